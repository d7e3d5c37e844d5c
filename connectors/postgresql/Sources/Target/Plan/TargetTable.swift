import BridgeCore

/// What the applier and the loader must know of a target table, read from the server's catalog.
struct TargetTable: Hashable, Sendable {
    struct Column: Hashable, Sendable {
        var name: String
        /// `format_type`, modifiers included.
        var typeName: String
        /// The type below a domain, modifiers included; `typeName` for all others.
        var baseTypeName: String
        /// The same type for a cast: schema and name, quoted, without modifiers, so that the cast cuts and rounds nothing.
        var castName: String
        var isNotNull: Bool
        var hasDefault: Bool
        /// Computed by the server; never written.
        var isGenerated: Bool
        /// GENERATED ALWAYS AS IDENTITY: an UPDATE may not set it.
        var isAlwaysIdentity: Bool
        var isDomain: Bool { typeName != baseTypeName }

        /// A reference to the column as an operand: a domain over an enum has no operators of its own.
        func operand(_ reference: String) -> String { isDomain ? "\(reference)::\(castName)" : reference }

        /// By which `=` tells apart what its text tells apart, so that no comparison by text is needed beside it.
        var equality: Equality

        enum Equality: String, Hashable, Sendable {
            /// `=` holds for values with the same text only.
            case exact
            /// `=` also holds for values with another text (1.0 and 1.00).
            case loose
            /// There is no usable `=`.
            case none
        }
    }

    /// A unique index that is in force.
    struct UniqueIndex: Hashable, Sendable {
        var name: String
        var isPrimary: Bool
        /// Checked at once, row by row; false for a deferrable constraint.
        var isImmediate: Bool
        var nullsAreDistinct: Bool
        /// Each key part as an operand: a quoted column name or an expression over column names.
        var parts: [String]
        /// The columns, in index order; nil if a part is an expression.
        var columns: [String]?
        /// The equality operator of each part, as `schema.operator` for OPERATOR().
        var operators: [String]
        /// The WHERE of a partial index.
        var predicate: String?
    }

    var oid: UInt32
    var name: TableName
    var isPartitioned: Bool
    var columns: [Column]
    var uniqueIndexes: [UniqueIndex]
    /// Constraints that the server does not enforce in the replica role.
    var deferredConstraints: [DeferredConstraint]

    func column(named name: String) -> Column? { columns.first { $0.name == name } }

    /// The table for UPDATE, DELETE and TRUNCATE, which would otherwise reach into tables that inherit from it.
    var only: String { isPartitioned ? name.quoted : "ONLY \(name.quoted)" }

    /// A whole unique index, not partial and at once checked, on exactly these columns in whatever order.
    func uniqueIndex(on names: [String]) -> UniqueIndex? {
        uniqueIndexes.first { index in
            guard let columns = index.columns, index.predicate == nil, index.isImmediate else { return false }
            return columns.count == names.count && Set(columns) == Set(names)
        }
    }

    var primaryKey: UniqueIndex? { uniqueIndexes.first { $0.isPrimary && $0.isImmediate } }
}

extension TargetTable {
    /// The catalog query for one table, by schema and name as parameters: one row a column.
    static let columnsQuery = """
        SELECT c.oid, c.relkind, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
          CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(b.base, b.typmod)
               ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END,
          (SELECT pg_catalog.quote_ident(tn.nspname) FROM pg_catalog.pg_namespace tn WHERE tn.oid = bt.typnamespace)
            || '.' || pg_catalog.quote_ident(bt.typname),
          a.attnotnull OR (t.typtype = 'd' AND t.typnotnull), a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
          a.attidentity = 'a',
          CASE WHEN b.base = ANY ('{16,17,18,19,20,21,23,25,26,1042,1043,1082,1083,1114,1184,2950}'::pg_catalog.oid[])
                 AND (a.attcollation = 0 OR (SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation))
               THEN 'exact'
               WHEN bt.typtype = 'e' THEN 'exact'
               WHEN b.base = ANY ('{700,701,869,650,790,1186,1266,1560,1562,1700,3802,774,829}'::pg_catalog.oid[])
               THEN 'loose'
               ELSE 'none' END
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        CROSS JOIN LATERAL (
          WITH RECURSIVE d(base, typmod, typtype, depth) AS (
            SELECT t.oid, a.atttypmod, t.typtype, 0
            UNION ALL
            SELECT p.typbasetype, p.typtypmod, q.typtype, d.depth + 1
            FROM d JOIN pg_catalog.pg_type p ON p.oid = d.base JOIN pg_catalog.pg_type q ON q.oid = p.typbasetype
            WHERE d.typtype = 'd')
          SELECT d.base, d.typmod FROM d ORDER BY d.depth DESC LIMIT 1) b
        JOIN pg_catalog.pg_type bt ON bt.oid = b.base
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
        ORDER BY a.attnum
        """

    /// The unique indexes of a table, by OID as parameter: one row a key part, in order.
    static let uniqueIndexesQuery = """
        SELECT x.relname, i.indisprimary, i.indimmediate,
          coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::pg_catalog.bool, false),
          k.position, pg_catalog.pg_get_indexdef(i.indexrelid, k.position::pg_catalog.int4, true),
          (SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0),
          (SELECT pg_catalog.quote_ident(on_.nspname) || '.' || o.oprname
           FROM pg_catalog.pg_opclass oc
           JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype
             AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
           JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
           JOIN pg_catalog.pg_namespace on_ ON on_.oid = o.oprnamespace
           WHERE oc.oid = i.indclass[k.position - 1]),
          pg_catalog.pg_get_expr(i.indpred, i.indrelid, true)
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, position)
        WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND k.position <= i.indnkeyatts
        ORDER BY i.indisprimary DESC, x.relname, k.position
        """
}

extension TargetTable {
    /// Reads a table from the catalog; nil if there is none.
    static func read(_ name: TableName, _ connection: PostgresConnection) throws(BridgeError) -> TargetTable? {
        let schema = name.schema ?? connection.defaultSchemas.first ?? "public"
        let action = "reading the target's catalog"
        let rows = try connection.rows(columnsQuery, [schema, name.name], during: action)
        guard let first = rows.first, let oid = first[0].flatMap({ UInt32($0) }) else { return nil }
        let columns = rows.map { row in
            Column(
                name: row[2] ?? "", typeName: row[3] ?? "", baseTypeName: row[4] ?? "", castName: row[5] ?? "",
                isNotNull: row[6] == "t", hasDefault: row[7] == "t", isGenerated: row[8] == "t",
                isAlwaysIdentity: row[9] == "t", equality: Column.Equality(rawValue: row[10] ?? "") ?? .none)
        }
        var indexes: [UniqueIndex] = []
        for row in try connection.rows(uniqueIndexesQuery, ["\(oid)"], during: action) {
            if indexes.last?.name != row[0] {
                indexes.append(
                    UniqueIndex(
                        name: row[0] ?? "", isPrimary: row[1] == "t", isImmediate: row[2] == "t",
                        nullsAreDistinct: row[3] != "t", parts: [], columns: [], operators: [], predicate: row[8]))
            }
            let last = indexes.count - 1
            indexes[last].parts.append(part(row[6], row[5], columns))
            if let column = row[6] { indexes[last].columns?.append(column) } else { indexes[last].columns = nil }
            indexes[last].operators.append(row[7] ?? "pg_catalog.=")
        }
        return TargetTable(
            oid: oid, name: TableName(schema: schema, name: name.name), isPartitioned: first[1] == "p", columns: columns,
            uniqueIndexes: indexes, deferredConstraints: try DeferredConstraint.read(oid, columns, connection))
    }

    /// A part of an index as an operand: an expression in parentheses, so that whatever it is it stands where one may.
    static func part(_ name: String?, _ expression: String?, _ columns: [Column]) -> String {
        guard let name else { return "(\(expression ?? "NULL"))" }
        let reference = quoteIdentifier(name)
        return columns.first { $0.name == name }?.operand(reference) ?? reference
    }
}
