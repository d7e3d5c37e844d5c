package import BridgeCore

/// What PostgreSQL's types are called, and how their values travel.
package enum PostgresTypes {
    /// A domain's base type by the domain's OID. A base type may be a domain again.
    package typealias Domains = [UInt32: (base: UInt32, name: String)]

    /// All domains of the database.
    package static func domains(_ connection: PostgresConnection) throws(BridgeError) -> Domains {
        var domains: Domains = [:]
        let rows = try connection.rows(
            "SELECT oid, typbasetype, format_type(typbasetype, typtypmod) FROM pg_type WHERE typtype = 'd'",
            during: "reading the catalog")
        for row in rows {
            guard let oid = row[0].flatMap({ UInt32($0) }), let base = row[1].flatMap({ UInt32($0) }), let name = row[2]
            else { continue }
            domains[oid] = (base, name)
        }
        return domains
    }

    /// How values of a type travel: those of a domain as its base type.
    package static func logicalType(_ name: String, oid: UInt32, domains: Domains) -> LogicalType {
        var oid = oid
        var name = name
        // A domain cannot contain itself; the bound only guards against a catalog that says so.
        for _ in 0..<32 {
            guard let domain = domains[oid] else { break }
            oid = domain.base
            name = domain.name
        }
        return LogicalType(name: name)
    }

    /// The names of the types that stand in every database under a fixed OID, as `format_type` gives them without a
    /// modifier (pg_type.dat; OIDs below 10000 never change their meaning).
    package static func builtInName(_ oid: UInt32) -> String? { builtIn[oid] }

    private static let builtIn: [UInt32: String] = [
        16: "boolean", 17: "bytea", 18: "\"char\"", 19: "name", 20: "bigint", 21: "smallint", 23: "integer",
        24: "regproc", 25: "text", 26: "oid", 27: "tid", 28: "xid", 29: "cid", 114: "json", 142: "xml", 600: "point",
        601: "lseg", 602: "path", 603: "box", 604: "polygon", 628: "line", 650: "cidr", 700: "real",
        701: "double precision", 718: "circle", 774: "macaddr8", 790: "money", 829: "macaddr", 869: "inet",
        1000: "boolean[]", 1001: "bytea[]", 1005: "smallint[]", 1007: "integer[]", 1009: "text[]", 1016: "bigint[]",
        1021: "real[]", 1022: "double precision[]", 1042: "character", 1043: "character varying",
        1082: "date", 1083: "time without time zone", 1114: "timestamp without time zone",
        1115: "timestamp without time zone[]", 1182: "date[]", 1184: "timestamp with time zone",
        1185: "timestamp with time zone[]", 1186: "interval", 1231: "numeric[]", 1266: "time with time zone",
        1560: "bit", 1562: "bit varying", 1700: "numeric", 2205: "regclass", 2206: "regtype", 2950: "uuid",
        2951: "uuid[]", 3220: "pg_lsn", 3614: "tsvector", 3615: "tsquery", 3802: "jsonb", 3904: "int4range",
        3906: "numrange", 3908: "tsrange", 3910: "tstzrange", 3912: "daterange", 3926: "int8range",
        4072: "jsonpath", 4451: "int4multirange", 4532: "nummultirange", 4533: "tsmultirange",
        4534: "tstzmultirange", 4535: "datemultirange", 4536: "int8multirange",
    ]

    /// The name with its modifier for the built-in types that carry one in pgoutput's relation messages, by the rules
    /// of their typmodout functions; nil for a type or a modifier that has to be looked up.
    package static func builtInName(_ oid: UInt32, modifier: Int32) -> String? {
        guard modifier >= 0 else { return builtIn[oid] }
        switch oid {
        case 1042: return modifier >= 4 ? "character(\(modifier - 4))" : nil
        case 1043: return modifier >= 4 ? "character varying(\(modifier - 4))" : nil
        case 1700:
            guard modifier >= 4 else { return nil }
            let bits = modifier - 4
            // The scale is an 11-bit signed number from version 15 on; before, it never used the upper bits.
            let scale = ((bits & 0x7FF) ^ 1024) - 1024
            return "numeric(\((bits >> 16) & 0xFFFF),\(scale))"
        case 1083: return "time(\(modifier)) without time zone"
        case 1114: return "timestamp(\(modifier)) without time zone"
        case 1184: return "timestamp(\(modifier)) with time zone"
        case 1266: return "time(\(modifier)) with time zone"
        case 1560: return "bit(\(modifier))"
        case 1562: return "bit varying(\(modifier))"
        default: return nil
        }
    }
}
