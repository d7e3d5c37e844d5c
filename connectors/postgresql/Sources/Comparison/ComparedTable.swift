import BridgeCore

/// A table as the checker's queries need it.
struct ComparedTable: Sendable {
    struct Column: Sendable {
        var column: Relation.Column
        /// The type below a domain for a cast, quoted.
        var castName: String
        /// For the check of a key's cells.
        var type: TargetType
        var isDomain: Bool
        var isNotNull: Bool
        var form: HashForm
        /// The equality by which a key is looked up, as `schema.operator`.
        var equality: String

        /// The column, however it and its table are called.
        var reference: String { "s.\(quoteIdentifier(column.name))" }
        /// The column as it enters a hash.
        var exact: String { exact(reference) }
        /// The same of another reference to a value of the type.
        func exact(_ reference: String) -> String { form.expression(value(reference)) }
        /// The value below all domains.
        func value(_ reference: String) -> String { isDomain ? "(\(reference))::\(castName)" : reference }
    }

    var oid: UInt32
    var name: TableName
    var isPartitioned: Bool
    var columns: [Column]
    var keyOrder: String?
    var estimatedRows: Int64?
    var serverHash: String

    var keys: [Column] { columns.filter(\.column.isKey) }
    /// What names a row.
    var identity: [Column] { keys.isEmpty ? columns : keys }

    var layout: ComparisonLayout {
        ComparisonLayout(
            table: name, columns: columns.map(\.column), keyOrder: keyOrder, estimatedRows: estimatedRows,
            serverHash: serverHash)
    }
}

extension ComparedTable {
    /// Reads it from the catalog.
    /// - Parameter choose: which columns are compared, and which of them name a row.
    /// - Returns: nil if there is no such table.
    static func read(
        _ name: TableName, _ connection: PostgresConnection,
        choose: (TableSchema) throws(BridgeError) -> [Relation.Column]
    ) throws(BridgeError) -> ComparedTable? {
        let action = "reading the catalog"
        let catalog = PostgresCatalog(connection)
        guard let oid = try catalog.resolve([name]).first.flatMap({ $0 }),
            let schema = try catalog.describe([oid]).first,
            let table = try TargetTable.read(schema.name, connection), table.oid == oid
        else { return nil }
        let chosen = try choose(schema)
        let forms = try forms(oid, connection)
        let key = chosen.filter(\.isKey).map(\.name)
        let index = table.uniqueIndex(on: key)
        let columns = try chosen.map { (column) throws(BridgeError) -> Column in
            guard let found = table.column(named: column.name), let form = forms[column.name] else {
                throw BridgeError(
                    .targetTableMismatch, "the table lacks a column that is compared",
                    context: [.init(.table, schema.name.description), .init(.column, column.name)])
            }
            var equality = "pg_catalog.="
            if let index, let part = index.columns?.firstIndex(of: column.name) { equality = index.operators[part] }
            return Column(
                column: column, castName: found.castName, type: TargetType(typeName: found.baseTypeName),
                isDomain: found.typeName != found.baseTypeName, isNotNull: found.isNotNull, form: form, equality: equality)
        }
        let leads = try connection.rows(
            """
            SELECT DISTINCT a.attname FROM pg_index i
            JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attcollation = i.indcollation[0]
            JOIN pg_opclass o ON o.oid = i.indclass[0] AND o.opcdefault
            WHERE i.indrelid = $1::oid AND i.indisvalid AND i.indpred IS NULL
            """, ["\(oid)"], during: action
        ).compactMap { $0[0] }
        var order: String?
        // Without an index along it every range would cost a scan of the whole table.
        if let first = key.first, leads.contains(first), columns.first(where: { $0.column.isKey })?.isNotNull == true {
            order = try KeyOrder.read(table: oid, column: first, connection)
        }
        let names = columns.map { ($0.column.isKey ? "*" : "") + $0.form.name }
        return ComparedTable(
            oid: oid, name: schema.name, isPartitioned: table.isPartitioned, columns: columns, keyOrder: order,
            estimatedRows: schema.estimatedRows,
            serverHash: "\(try hashBase(connection)): \(names.joined(separator: ", "))")
    }

    /// The server's part of the hash's name. The hashes of three constants stand for all that makes hash functions differ
    /// between servers of one version, such as the byte order.
    private static func hashBase(_ connection: PostgresConnection) throws(BridgeError) -> String {
        let row = try connection.rows(
            """
            SELECT current_setting('server_encoding'),
              hash_record_extended(ROW('bridge'::text, 1::int4, '\\x0102030405060708090a0b0c0d'::bytea), 0)
            """, during: "asking the server for a hash"
        ).first
        return "postgresql \(connection.serverVersion / 10_000) \(row?[0] ?? "") \(row?[1] ?? "") v2"
    }

    private static func forms(
        _ table: UInt32, _ connection: PostgresConnection
    ) throws(BridgeError) -> [String: HashForm] {
        var forms: [String: HashForm] = [:]
        for row in try connection.rows(typesQuery, ["\(table)"], during: "reading the catalog") {
            guard let column = row[0], let oid = row[1].flatMap({ UInt32($0) }) else { continue }
            forms[column] = HashForm(
                HashForm.TypeFacts(
                    oid: oid, kind: row[2] ?? "b", name: row[3] ?? "", element: row[4].flatMap { UInt32($0) } ?? 0,
                    typeName: row[5] ?? "", hasDeterministicCollation: row[6] == "t"))
        }
        return forms
    }

    /// One row a column: its type below all domains.
    private static let typesQuery = """
        SELECT a.attname, b.base, bt.typtype, bt.typname, CASE WHEN bt.typcategory = 'A' THEN bt.typelem ELSE 0 END,
          format_type(b.base, b.typmod),
          a.attcollation = 0 OR (SELECT l.collisdeterministic FROM pg_collation l WHERE l.oid = a.attcollation)
        FROM pg_attribute a
        CROSS JOIN LATERAL (
          WITH RECURSIVE d(base, typmod, depth) AS (
            SELECT a.atttypid, a.atttypmod, 0
            UNION ALL
            SELECT p.typbasetype, p.typtypmod, d.depth + 1 FROM d JOIN pg_type p ON p.oid = d.base WHERE p.typtype = 'd')
          SELECT d.base, d.typmod FROM d ORDER BY d.depth DESC LIMIT 1) b
        JOIN pg_type bt ON bt.oid = b.base
        WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped
        """
}

/// The name of the order in which a column's index has its values.
enum KeyOrder {
    /// - Returns: nil where no other database can be relied on to have the same.
    static func read(table: UInt32, column: String, _ connection: PostgresConnection) throws(BridgeError) -> String? {
        // The new names of a database's locale from version 17 on.
        let version = connection.serverVersion
        let locale = version >= 170_000 ? "d.datlocale" : version >= 150_000 ? "d.daticulocale" : "NULL"
        let provider = version >= 150_000 ? "d.datlocprovider::text" : "'c'"
        let actual = version >= 150_000 ? "pg_database_collation_actual_version(d.oid)" : "pg_collation_actual_version(100)"
        let own = version >= 170_000 ? "l.colllocale" : version >= 150_000 ? "l.colliculocale" : "NULL"
        // An ICU collation may have rules of its own.
        let rules = version >= 160_000
            ? "coalesce(' ' || CASE WHEN l.collprovider = 'd' THEN d.daticurules ELSE l.collicurules END, '')" : "''"
        let row = try connection.rows(
            """
            SELECT a.atttypid, current_setting('server_encoding'), l.collisdeterministic,
              CASE WHEN l.collprovider = 'd' THEN \(provider) ELSE l.collprovider::text END,
              CASE WHEN l.collprovider = 'd' THEN coalesce(\(locale), d.datcollate) ELSE coalesce(\(own), l.collcollate) END
                || \(rules),
              CASE WHEN l.collprovider = 'd' THEN \(actual) ELSE pg_collation_actual_version(l.oid) END
            FROM pg_attribute a
            JOIN pg_database d ON d.datname = current_database()
            LEFT JOIN pg_collation l ON l.oid = a.attcollation
            WHERE a.attrelid = $1::oid AND a.attname = $2 AND NOT a.attisdropped
            """, ["\(table)", column], during: "reading the catalog"
        ).first
        guard let row, let type = row[0].flatMap({ UInt32($0) }) else { return nil }
        switch type {
        case 20, 21, 23: return "integer"
        case 17: return "bytes"
        case 2950: return "uuid"
        // A date and a time with as many digits as either side keeps are ordered by the moment.
        case 1082: return "pg:date"
        case 1114: return "pg:timestamp"
        case 1184: return "pg:timestamptz"
        case 25, 1043: break
        // bpchar compares without its blanks, numerics and floats have values that are equal and not the same.
        default: return nil
        }
        guard row[1] == "UTF8", row[2] == "t", let provider = row[3], let locale = row[4] else { return nil }
        switch (provider, locale) {
        case ("c", "C"), ("c", "POSIX"): return "utf8"
        // The built-in provider compares code points.
        case ("b", _): return "utf8"
        default: return row[5].map { "pg:\(provider):\(locale):\($0)" }
        }
    }
}
