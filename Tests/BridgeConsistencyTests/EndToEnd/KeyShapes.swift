import BridgeConformance
import BridgeConsistency
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// What a key's column holds.
enum KeyKind: Sendable {
    case integer, decimal, real, text, uuid, moment, bytes

    /// The type on the source.
    func declaration(_ isPostgres: Bool) -> String {
        switch self {
        case .integer: isPostgres ? "bigint" : "INTEGER"
        case .decimal: isPostgres ? "numeric" : "DECIMAL(10,2)"
        case .real: isPostgres ? "double precision" : "REAL"
        case .text: isPostgres ? "text" : "TEXT"
        case .uuid: isPostgres ? "uuid" : "TEXT"
        case .moment: isPostgres ? "timestamp with time zone" : "DATETIME"
        case .bytes: isPostgres ? "bytea" : "BLOB"
        }
    }

    /// A value as canonical text; the same number always gives the same value, another one another.
    func value(_ number: Int) -> String {
        switch self {
        case .integer: return number % 7 == 0 ? "\(Int64.max - Int64(number))" : "\(number % 2 == 0 ? number : -number)"
        case .decimal:
            switch number % 5 {
            case 0: return "\(number)"
            case 1: return "\(number).5"
            case 2: return "-\(number).25"
            case 3: return "0.\(number)1"
            default: return "\(9_007_199_254_740_993 + number)"
            }
        case .real: return number % 3 == 0 ? "\(number).0" : "\(number).1"
        case .text: return number % 3 == 0 ? "\(number)" : "it''s \(number) é"
        case .uuid:
            let digits = String(number, radix: 16)
            return "aabbccdd-0000-4000-8000-" + String(repeating: "0", count: 12 - digits.count) + digits
        case .moment:
            let minute = number / 60 % 60
            return "2024-05-06 \(two(number / 3600 % 24)):\(two(minute)):\(two(number % 60)).\(number % 2 == 0 ? "500000" : "000000")Z"
        case .bytes: return hex(number)
        }
    }

    private func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }

    private func hex(_ number: Int) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    /// The value in SQL.
    /// - Parameter isText: the column is an SQLite one that holds the source's decimals as text.
    func literal(_ value: String, isPostgres: Bool, isText: Bool) -> String {
        switch self {
        case .integer: value
        case .decimal: isText ? "'\(value)'" : value
        case .real: isPostgres ? "'\(value)'::float8" : value
        case .text, .uuid, .moment: "'\(value)'"
        case .bytes: isPostgres ? "'\\x\(value)'" : "x'\(value)'"
        }
    }
}

/// A table with a key of some types, a number that names the row to the test, and two more columns.
struct KeyShape: Sendable {
    let name: String
    let kinds: [KeyKind]

    static func all(source: any ConformanceEngine, target: any ConformanceEngine) -> [KeyShape] {
        var kinds: [[KeyKind]] = [
            [.integer], [.decimal], [.real], [.text], [.moment], [.bytes], [.decimal, .text], [.real, .decimal, .bytes],
            [.text, .integer],
        ]
        if source is PostgreSQLEngine { kinds += [[.uuid], [.uuid, .moment]] }
        return kinds.enumerated().map { KeyShape(name: "t\($0.offset)", kinds: $0.element) }
    }

    var columns: [String] { kinds.indices.map { "k\($0)" } }
    var keyList: String { columns.joined(separator: ", ") }

    func definition(_ isPostgres: Bool) -> String {
        let parts = zip(columns, kinds).map { "\($0) \($1.declaration(isPostgres)) NOT NULL" }
        let integer = isPostgres ? "bigint" : "INTEGER"
        return "CREATE TABLE \(name) (w \(isPostgres ? "text" : "TEXT"), \(parts.joined(separator: ", ")), v \(integer) NOT NULL, "
            + "u \(integer) NOT NULL, PRIMARY KEY (\(keyList)));"
    }
}

/// The tables as they must be on the source, and what was done to the target.
struct KeyWorld: Sendable {
    /// By table, by the number that names the row, the number that its key is made of.
    private var rows: [[Int: Int]]
    private var undo: [String] = []
    private var next = 1
    private var markers = 0
    /// Rows that the source wrote last.
    private var written: [[Int]]
    private let shapes: [KeyShape]
    private let checked: CheckedPair

    init(_ checked: CheckedPair, _ shapes: [KeyShape]) {
        self.checked = checked
        self.shapes = shapes
        rows = shapes.map { _ in [:] }
        written = shapes.map { _ in [] }
    }

    private var isSourcePostgres: Bool { checked.source is PostgreSQLDatabase }
    private var isTargetPostgres: Bool { checked.target is PostgreSQLDatabase }

    private func key(_ shape: KeyShape, _ number: Int, onTarget: Bool) -> [String] {
        let isPostgres = onTarget ? isTargetPostgres : isSourcePostgres
        return shape.kinds.map {
            $0.literal($0.value(number), isPostgres: isPostgres, isText: onTarget && !isPostgres && isSourcePostgres)
        }
    }

    private func insert(_ shape: KeyShape, _ row: Int, key number: Int, w: String = "w", onTarget: Bool) -> String {
        "INSERT INTO \(shape.name) (\(shape.keyList), v, u, w) VALUES "
            + "(\(key(shape, number, onTarget: onTarget).joined(separator: ", ")), \(row), 0, '\(w)');"
    }

    private func rekey(_ shape: KeyShape, _ row: Int, key number: Int, onTarget: Bool) -> String {
        let parts = zip(shape.columns, key(shape, number, onTarget: onTarget)).map { "\($0) = \($1)" }
        return "UPDATE \(shape.name) SET \(parts.joined(separator: ", ")) WHERE v = \(row);"
    }

    private mutating func fresh() -> Int {
        next += 1
        return next
    }

    // MARK: The source

    mutating func makeSource(_ generator: inout SeededGenerator) async throws {
        var sql = shapes.map { $0.definition(isSourcePostgres) }.joined()
        sql += "CREATE TABLE marker (id \(isSourcePostgres ? "bigint" : "INTEGER") PRIMARY KEY);"
        for (index, shape) in shapes.enumerated() {
            for _ in 0..<(6 + generator.below(6)) {
                let number = fresh()
                rows[index][number] = number
                sql += insert(shape, number, key: number, onTarget: false)
            }
        }
        try await checked.source.execute(sql)
    }

    /// Inserts, updates, deletes and changes of keys, and waits until the target has them.
    mutating func writeSource(_ generator: inout SeededGenerator) async throws {
        var sql = "BEGIN;"
        for (index, shape) in shapes.enumerated() {
            written[index] = []
            for row in rows[index].keys.sorted() where generator.chance(60) {
                switch generator.below(4) {
                case 0:
                    sql += "DELETE FROM \(shape.name) WHERE v = \(row);"
                    rows[index][row] = nil
                    continue
                case 1:
                    let number = fresh()
                    sql += rekey(shape, row, key: number, onTarget: false)
                    rows[index][row] = number
                default: sql += "UPDATE \(shape.name) SET u = u + 1 WHERE v = \(row);"
                }
                written[index].append(row)
            }
            for _ in 0..<(1 + generator.below(4)) {
                let number = fresh()
                rows[index][number] = number
                written[index].append(number)
                sql += insert(shape, number, key: number, onTarget: false)
            }
        }
        markers += 1
        let marker = markers
        try await checked.source.execute(sql + "INSERT INTO marker VALUES (\(marker)); COMMIT;")
        try await waitUntil { [checked] in try await checked.count("SELECT count(*) FROM marker WHERE id = \(marker)") == 1 }
    }

    // MARK: The target

    /// Does something to rows of the target.
    /// - Parameter seen: by the watch, so that any row may be meant; else those that the source wrote last.
    /// - Returns: what a check must find, as `table kind number`.
    mutating func writeTarget(_ generator: inout SeededGenerator, seen: Bool) async throws -> Set<String> {
        var sql = ""
        var found: Set<String> = []
        for (index, shape) in shapes.enumerated() {
            for row in (seen ? rows[index].keys.sorted() : written[index]) where generator.chance(50) {
                guard let number = rows[index][row] else { continue }
                let action = generator.below(5)
                switch action {
                case 0:
                    sql += "UPDATE \(shape.name) SET w = 'planted' WHERE v = \(row);"
                    undo.append("UPDATE \(shape.name) SET w = 'w' WHERE v = \(row);")
                    found.insert("\(shape.name) different \(row)")
                case 1:
                    sql += "CREATE TABLE kept_\(shape.name)_\(row) AS SELECT * FROM \(shape.name) WHERE v = \(row);"
                    sql += "DELETE FROM \(shape.name) WHERE v = \(row);"
                    undo.append(
                        "INSERT INTO \(shape.name) SELECT * FROM kept_\(shape.name)_\(row); DROP TABLE kept_\(shape.name)_\(row);")
                    found.insert("\(shape.name) missing \(row)")
                case 2 where seen:
                    let other = fresh()
                    sql += rekey(shape, row, key: other, onTarget: true)
                    undo.append(rekey(shape, row, key: number, onTarget: true))
                    found.formUnion(["\(shape.name) missing \(row)", "\(shape.name) extra \(row)"])
                case 3 where seen:
                    // There and gone again: neither side has it.
                    let other = fresh()
                    sql += insert(shape, other, key: other, onTarget: true) + "DELETE FROM \(shape.name) WHERE v = \(other);"
                default:
                    sql += rekey(shape, row, key: fresh(), onTarget: true) + rekey(shape, row, key: number, onTarget: true)
                }
            }
            guard seen, generator.chance(50) else { continue }
            let other = fresh()
            sql += insert(shape, other, key: other, w: "extra", onTarget: true)
            undo.append("DELETE FROM \(shape.name) WHERE v = \(other);")
            found.insert("\(shape.name) extra \(other)")
        }
        try await run(sql, seen: seen)
        return found
    }

    mutating func restoreTarget(seen: Bool) async throws {
        try await run(undo.joined(), seen: seen)
        undo = []
    }

    private func run(_ sql: String, seen: Bool) async throws {
        guard !sql.isEmpty else { return }
        if seen { try await checked.target.execute("BEGIN; \(sql) COMMIT;") } else { try await checked.target.plant("BEGIN; \(sql) COMMIT") }
    }

    /// Checks, and expects these findings and no other, with every table decided.
    func expect(_ wanted: Set<String>, mode: CheckReport.Mode = .incremental, _ what: String) async throws {
        let report = try await checked.check(mode) {
            $0.showValues = true
            $0.sampleLimit = 10_000
        }
        var found: [String] = []
        for table in report.tables {
            let name = table.source.split(separator: ".").last.map(String.init) ?? ""
            for sample in table.samples {
                let values = sample.kind == .extra ? sample.targetValues : sample.sourceValues
                found.append("\(name) \(sample.kind) \(values?["v"].flatMap { $0 } ?? "?")")
            }
        }
        #expect(found.sorted() == wanted.sorted(), "\(what): \(report.summary)")
        #expect(report.verdict == (wanted.isEmpty ? .consistent : .inconsistent), "\(what): \(report.summary)")
        #expect(report.tables.allSatisfy { $0.status != .inconclusive }, "\(what): \(report.summary)")
    }
}
