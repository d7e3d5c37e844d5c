/// What an application may have declared, and what it may have stored under it, as SQL.
enum DeclaredTypes {
    struct Value {
        let sql: String
        /// Whether PostgreSQL has no way to store it as text.
        var isFaulty = false
        /// Whether it is an infinity, which a column of decimals gives back as a word.
        var isInfinite = false
    }

    static let integers = ["0", "1", "-1", "9007199254740993", "9223372036854775807", "-9223372036854775807 - 1"].map { Value(sql: $0) }
    static let reals =
        [
            "1.5", "1.0", "-0.0", "0.1", "1e3", "1e19", "1e22", "-1e22", "9007199254740994.0", "5e-324", "2.2250738585072014e-308",
            "1.7976931348623157e308", "0.30000000000000004", "-9223372036854775808.0", "1234567890123456.7",
        ].map { Value(sql: $0) } + ["9e999", "-9e999"].map { Value(sql: $0, isInfinite: true) }
    static let texts =
        [
            "''", "' 1'", "'1e3'", "'1.10'", "'007'", "'now'", "'NaN'", "'Infinity'", "'-Infinity'", "'true'", "'2024-01-02'",
            "'2024-01-02 03:04:05.1'", "'2024-01-02T03:04:05+02:00'", "'123456789012345678901234567890'", "'0.1234567890123456789012345'",
            "'123e4567-E89B-12d3-a456-426614174000'", "'{\"b\": 1, \"a\":2, \"b\":[ ]}'", "'äü€😀'", "char(9, 10, 92, 78, 13, 39)", "'\\N'", "'abc  '",
        ].map { Value(sql: $0) }
        + ["x'610062'", "x'ff'", "x'00d8'", "x'eda080'"].map { Value(sql: "CAST(\($0) AS TEXT)", isFaulty: true) }
    static let blobs = ["x''", "x'00ff5c27'", "zeroblob(5000)"].map { Value(sql: $0) }

    struct Column {
        let name: String
        let declared: String
        let value: Value

        /// Whether it is a number of a column whose numbers become decimals.
        var isDecimal: Bool { ["NUMERIC", "DECIMAL(10,2)", "numeric", "NUMBER"].contains(declared) }
    }

    /// A table with a column for each value, so that each column's plan follows from its value alone.
    struct Table {
        let name: String
        let columns: [Column]
        let isStrict: Bool

        /// - Parameter wanted: the columns that it is to have.
        func definition(_ wanted: [Column]) -> String {
            let columns = wanted.map { "\($0.name) \($0.declared)" }.joined(separator: ", ")
            return "CREATE TABLE \(name) (id INTEGER PRIMARY KEY, \(columns))\(isStrict ? " STRICT" : "");"
        }

        func insert(_ id: Int) -> String { "INSERT INTO \(name) VALUES (\(id), \(columns.map(\.value.sql).joined(separator: ", ")));" }
    }

    static let tables: [Table] = stride(from: 0, to: declarations.count, by: 4).map { start in
        table("plain_\(start)", declarations[start..<min(start + 4, declarations.count)].map { ($0, everything) })
    } + [
        table(
            "strict",
            [
                ("INT", integers), ("INTEGER", integers), ("REAL", integers + reals), ("TEXT", texts), ("BLOB", blobs), ("ANY", everything),
            ], isStrict: true)
    ]

    private static let everything = integers + reals + texts + blobs

    private static let declarations = [
        "INTEGER", "INT", "BIGINT", "TINYINT(1)", "REAL", "DOUBLE", "FLOAT", "TEXT", "VARCHAR(3)", "CHAR(40)", "CLOB", "BLOB", "NUMERIC",
        "DECIMAL(10,2)", "numeric", "NUMBER", "BOOLEAN", "DATE", "DATETIME", "TIMESTAMP", "TIME", "UUID", "JSON", "STRING", "MONEY", "",
        "DECIMAL_TEXT", "DECIMAL_BLOB", "NUMERIC_DOUBLE",
    ]

    private static func table(_ name: String, _ types: [(declared: String, values: [Value])], isStrict: Bool = false) -> Table {
        let columns = types.enumerated().flatMap { number, type in
            type.values.enumerated().map { Column(name: "c\(number)_\($0.offset)", declared: type.declared, value: $0.element) }
        }
        return Table(name: name, columns: columns, isStrict: isStrict)
    }
}
