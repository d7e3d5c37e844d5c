import BridgeCore

/// How a column enters a row's hash on the server: by an expression whose own hash is as exact as the value.
///
/// The trap in each type's hash function, which exists for hash joins and so must agree wherever `=` does: int8, and the
/// times that are stored as one, are folded to 32 bits; -0 and 0, 1.0 and 1.00, `1 mon` and `30 days` are one; blanks at
/// the end of bpchar do not count; enums are hashed by their OID; a nondeterministic collation hashes its sort key. Such
/// types enter by their binary form as bytea, or by the text of their output function, which is what a link carries.
struct HashForm: Hashable, Sendable {
    /// What is the same on two servers on which equal values have equal hashes.
    var name: String
    private var shape: Shape

    private enum Shape: Hashable, Sendable {
        /// The value itself, as this type.
        case plain(String)
        /// By a function of pg_catalog.
        case function(String)
        /// A 64-bit integer.
        case long
        /// One NaN for all of them: a computed one can have its sign bit set, and loses it on the way as text.
        case float(String, send: String)
        /// A numeric of which all values have one scale.
        case scaled
        case output
    }

    /// The expression over a reference to the column.
    func expression(_ reference: String) -> String {
        switch shape {
        case .plain(let type): "\(reference)::pg_catalog.\(type)"
        case .function(let name): "pg_catalog.\(name)(\(reference))"
        case .long: "pg_catalog.int8send(\(reference))"
        case .scaled: "pg_catalog.numeric_send(\(reference))"
        case .float(let type, let send):
            "pg_catalog.\(send)(CASE WHEN \(reference) = 'NaN'::pg_catalog.\(type) THEN 'NaN'::pg_catalog.\(type) ELSE \(reference) END)"
        // IS NOT NULL is false for a composite value with a field that is NULL.
        case .output: "CASE WHEN \(reference) IS DISTINCT FROM NULL THEN pg_catalog.format('%s', \(reference)) END"
        }
    }

    /// A 64-bit hash of its own over a reference, NULL for NULL; nil for a type that has none which can be called and is
    /// as exact as the value. A record costs more to make and to hash than several of these.
    func hash(_ reference: String, seed: String) -> String? {
        func text(_ expression: String) -> String { "pg_catalog.hashtextextended(\(expression), \(seed))" }
        switch shape {
        // Its hash function folds it, so it goes in as the seed too, of which all bits count.
        case .long: return "pg_catalog.hashint8extended(\(reference), \(reference) OPERATOR(pg_catalog.#) \(seed))"
        case .plain("bool"): return "pg_catalog.hashint4extended((\(reference))::pg_catalog.int4, \(seed))"
        case .plain("int4"): return "pg_catalog.hashint4extended(\(reference), \(seed))"
        case .plain("oid"): return "pg_catalog.hashoidextended(\(reference), \(seed))"
        case .plain("text"): return text(reference)
        case .plain("uuid"): return "pg_catalog.uuid_hash_extended(\(reference), \(seed))"
        case .plain("date"): return text("pg_catalog.encode(pg_catalog.date_send(\(reference)), 'hex')")
        // All NaN have one hash; so have -0 and 0, whose texts differ.
        case .float(let type, _):
            let hash = "pg_catalog.hash\(type)extended(NULLIF(\(reference), 0), \(seed))"
            return "COALESCE(\(hash), \(text("(\(reference))::pg_catalog.text")))"
        case .function("numeric_send"): return text("(\(reference))::pg_catalog.text")
        case .function(let send) where Self.short.contains(send):
            return text("pg_catalog.encode(pg_catalog.\(send)(\(reference)), 'hex')")
        // Its hash function knows no sign, and no scale. NaN has the hash of nothing, and infinity does not fit a scale. It
        // puts the power of 10,000 in by XOR, and 0 and NaN are the seed but for a bit: two such columns could take out of
        // each other what differs. So it is hashed once more.
        case .scaled:
            let other = "(\(seed) OPERATOR(pg_catalog.#) 1)"
            let hash = "pg_catalog.hash_numeric_extended(\(reference), CASE WHEN \(reference) OPERATOR(pg_catalog.<) 0 THEN \(other) ELSE \(seed) END)"
            return "pg_catalog.hashint4extended(0, \(hash))"
        case .plain, .function, .output: return nil
        }
    }

    /// The scale in `numeric(12,2)`; nil where there is none.
    private static func scale(_ typeName: String) -> Int? {
        guard let open = typeName.lastIndex(of: "("), typeName.last == ")" else { return nil }
        let parts = typeName[typeName.index(after: open)...].dropLast().split(separator: ",")
        return parts.count == 2 ? Int(parts[1]) : nil
    }

    /// Binary forms of a few bytes.
    private static let short: Set<String> = ["time_send", "timestamp_send", "timestamptz_send", "timetz_send", "interval_send"]

    /// What the catalog says of a column's type, below its domains.
    struct TypeFacts {
        var oid: UInt32
        /// `b` base, `e` enum, `r` range, `m` multirange, `c` composite.
        var kind: String
        var name: String
        /// Of an array; 0 for none.
        var element: UInt32
        /// `format_type`, with its modifiers.
        var typeName: String
        var hasDeterministicCollation: Bool
    }

    init(_ type: TypeFacts) {
        switch type.oid {
        case 16: (name, shape) = ("bool", .plain("bool"))
        case 17: (name, shape) = ("bytea", .plain("bytea"))
        // Their hash is that of 32 bits, which nothing folds.
        case 21, 23: (name, shape) = ("int4", .plain("int4"))
        case 20: (name, shape) = ("int8", .long)
        case 26: (name, shape) = ("oid", .plain("oid"))
        // A deterministic collation hashes the bytes, and so does bytea.
        case 25, 1043: (name, shape) = ("text", type.hasDeterministicCollation ? .plain("text") : .function("textsend"))
        // With the blanks, which two columns of one length pad alike.
        case 1042: (name, shape) = (type.typeName, .function("bpcharsend"))
        case 700: (name, shape) = ("float4", .float("float4", send: "float4send"))
        case 701: (name, shape) = ("float8", .float("float8", send: "float8send"))
        case 1082: (name, shape) = ("date", .plain("date"))
        case 2950: (name, shape) = ("uuid", .plain("uuid"))
        case 1700:
            let scale = Self.scale(type.typeName)
            name = scale.map { "numeric of scale \($0)" } ?? "numeric"
            shape = scale == nil ? .function("numeric_send") : .scaled
        case let oid where Self.sent[oid] != nil:
            name = type.name
            shape = .function(Self.sent[oid] ?? "")
        case _ where Self.plainElements.contains(type.element):
            name = type.name
            shape = .function("array_send")
        case let oid where type.kind == "e" && oid >= 16_384: (name, shape) = ("enum", .output)
        default: (name, shape) = ("output of \(type.name)", .output)
        }
    }

    /// Built-in types with a binary form that tells all their values apart and holds no OID.
    private static let sent: [UInt32: String] = [
        114: "json_send", 650: "cidr_send", 790: "cash_send", 829: "macaddr_send", 774: "macaddr8_send",
        869: "inet_send", 1083: "time_send", 1114: "timestamp_send", 1184: "timestamptz_send", 1186: "interval_send",
        1266: "timetz_send", 1560: "bit_send", 1562: "varbit_send", 3220: "pg_lsn_send",
        3802: "jsonb_send", 3904: "range_send", 3906: "range_send", 3908: "range_send", 3910: "range_send",
        3912: "range_send", 3926: "range_send", 4451: "multirange_send", 4532: "multirange_send",
        4533: "multirange_send", 4534: "multirange_send", 4535: "multirange_send", 4536: "multirange_send",
    ]

    /// Types that an array's binary form holds exactly: the form has the element type's OID, which is fixed for these.
    private static let plainElements: Set<UInt32> = [
        16, 17, 20, 21, 23, 25, 114, 869, 1043, 1082, 1083, 1114, 1184, 1186, 1700, 2950, 3802,
    ]
}
