import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import GRDB
import Glibc
import Testing

/// A value of a hand-written row.
enum Value: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByNilLiteral,
    ExpressibleByFloatLiteral
{
    case null
    case integer(Int64)
    case real(Double)
    case text(String)
    case bytes([UInt8])
    case blob([UInt8])
    case unchanged
    case absent
    /// Another engine's own text, which must not reach SQLite.
    case foreign(String)

    init(integerLiteral value: Int64) { self = .integer(value) }
    init(stringLiteral value: String) { self = .text(value) }
    init(floatLiteral value: Double) { self = .real(value) }
    init(nilLiteral: ()) { self = .null }
}

/// Hand-written records that become a batch.
final class BatchWriter {
    let buffer = RecordBuffer()
    private let relations: [Relation]
    private(set) var rows = 0
    private var transactions = 0
    private var changes: UInt64 = 0
    private var position = Position.zero

    init(_ relations: [Relation]) { self.relations = relations }

    /// Writes a whole transaction.
    @discardableResult
    func transaction(_ commit: UInt64, _ body: (BatchWriter) -> Void) -> BatchWriter {
        begin(commit)
        body(self)
        return self.commit()
    }

    func begin(_ commit: UInt64) {
        position = Position(commit: commit)
        changes = 0
        buffer.appendBegin(
            TransactionStart(transaction: commit, position: position, commitTime: Timestamp(microseconds: 0)))
    }

    @discardableResult
    func commit() -> BatchWriter {
        buffer.appendCommit(
            TransactionEnd(
                position: position, end: position.commit + 1, commitTime: Timestamp(microseconds: 0), changes: changes))
        transactions += 1
        return self
    }

    func insert(_ relation: UInt32, _ row: [Value]) { row1(.insert, relation, row) }
    func upsert(_ relation: UInt32, _ row: [Value]) { row1(.upsert, relation, row) }
    func remove(_ relation: UInt32, _ key: [Value]) { row1(.remove, relation, key) }

    func update(_ relation: UInt32, key: [Value]? = nil, whole: [Value]? = nil, to row: [Value]) {
        change(.update, relation, key: key, whole: whole) { self.append(row) }
    }

    func delete(_ relation: UInt32, key: [Value]? = nil, whole: [Value]? = nil) {
        change(.delete, relation, key: key, whole: whole) {}
    }

    func truncate(_ relations: [UInt32]) {
        buffer.appendTruncate(relations, options: [])
        changes += 1
    }

    private func row1(_ kind: RecordKind, _ relation: UInt32, _ row: [Value]) {
        let start = buffer.beginRow(kind, relation: relation)
        append(row)
        end(start)
    }

    private func change(
        _ kind: RecordKind, _ relation: UInt32, key: [Value]?, whole: [Value]?, _ rest: () -> Void
    ) {
        let old: OldRowKind = key != nil ? .key : whole != nil ? .full : .none
        let start = buffer.beginRow(kind, relation: relation, old: old)
        if let image = key ?? whole { append(image) }
        rest()
        end(start)
    }

    private func end(_ start: Int) {
        buffer.endRecord(start)
        rows += 1
        changes += 1
    }

    func append(_ row: [Value]) { appendRow(row, to: buffer) }

    /// The batch, with a checkpoint at its last transaction unless it ends inside one.
    func batch(checkpoint: Bool = true) -> ChangeBatch {
        ChangeBatch(
            records: buffer, relations: Dictionary(uniqueKeysWithValues: relations.map { ($0.id, $0) }),
            checkpoint: checkpoint
                ? Checkpoint(
                    position: position, frontier: Position(commit: position.commit + 1),
                    commitTime: Timestamp(microseconds: 0))
                : nil,
            rows: rows, transactions: transactions)
    }
}

func appendRow(_ row: [Value], to buffer: RecordBuffer) {
    buffer.beginRowImage(columns: row.count)
    for value in row {
        switch value {
        case .null: buffer.appendCell(.null)
        case .integer(let value): buffer.appendCell(integer: value)
        case .real(let value): buffer.appendCell(real: value)
        case .text(let text): Array(text.utf8).withUnsafeBytes { buffer.appendCell(.string, $0) }
        case .bytes(let bytes): bytes.withUnsafeBytes { buffer.appendCell(.string, $0) }
        case .blob(let bytes): bytes.withUnsafeBytes { buffer.appendCell(.blob, $0) }
        case .unchanged: buffer.appendCell(.unchanged)
        case .absent: buffer.appendCell(.absent)
        case .foreign(let text): Array(text.utf8).withUnsafeBytes { buffer.appendCell(.text, $0) }
        }
    }
}

/// A chunk of the copy's `rows` format.
func chunk(_ rows: [[Value]]) -> RecordBuffer {
    let buffer = RecordBuffer()
    for row in rows {
        let start = buffer.count
        buffer.append(bigEndian: UInt32(0))
        appendRow(row, to: buffer)
        buffer.patch(bigEndian: UInt32(buffer.count - start - 4), at: start)
    }
    return buffer
}

/// A relation of a PostgreSQL source: `name:type`, a `*` behind the name of a key's column.
func postgresRelation(
    _ id: UInt32, _ name: String, _ columns: [String], identity: Relation.IdentityKind = .key
) -> Relation {
    Relation(
        id: id, engine: EngineName(rawValue: "postgresql"), form: .canonical,
        name: TableName(schema: "public", name: name), identity: identity, columns: columns.map(column))
}

/// A relation of a SQLite source: `name:declared type`.
func sqliteRelation(_ id: UInt32, _ name: String, _ columns: [String]) -> Relation {
    Relation(
        id: id, engine: .sqlite, form: .native, name: TableName(name: name), identity: .key,
        columns: columns.map(column))
}

func column(_ text: String) -> Relation.Column {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    let isKey = parts[0].hasSuffix("*")
    return Relation.Column(
        name: isKey ? String(parts[0].dropLast()) : parts[0], isKey: isKey, typeName: parts[1],
        type: LogicalType(name: parts[1]))
}

/// A target file in a folder of its own, made by an independent writer.
final class TargetFixture: Sendable {
    let folder: TemporaryDirectory
    let path: String
    let target: SQLiteTarget

    init(_ sql: String = "", busyTimeout: Int32 = 2_000) throws {
        folder = try TemporaryDirectory(prefix: "sqlite")
        path = folder.path("target.db")
        target = SQLiteTarget(path: path, busyTimeout: busyTimeout)
        if !sql.isEmpty { try execute(sql) }
    }

    /// GRDB, the independent reader and writer.
    func open() throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.foreignKeysEnabled = false
        configuration.allowsUnsafeTransactions = true
        configuration.busyMode = .timeout(5)
        return try DatabaseQueue(path: path, configuration: configuration)
    }

    func execute(_ sql: String) throws { try open().write { try $0.execute(sql: sql) } }

    /// Rows as text that shows storage class and value: `i:1|t:a|null`.
    func rows(_ sql: String) throws -> [String] { try showRows(open(), sql) }

    /// A link for relations whose tables have the same names on the target.
    func link(_ relations: [Relation], migration: String = "shop", form: ValueForm? = nil) -> LinkDescription {
        LinkDescription(
            migration: migration, direction: .forward,
            mappings: relations.map { TableMapping(source: $0.name, target: TableName(name: $0.name.name)) },
            form: form ?? relations.first?.form ?? .canonical)
    }

    /// Brings a link to `syncing` as if its tables had been copied empty.
    func startSyncing(
        _ link: LinkDescription, relations: [Relation], origin: UInt64 = 1, copied: UInt64 = 1
    ) async throws {
        _ = try await target.prepareLink(link)
        try await target.recordOrigin(
            link, CaptureOrigin(identity: ["system": "1"], position: Position(commit: origin)))
        for (mapping, relation) in zip(link.mappings, relations) {
            let load = try await target.openLoad(link, mapping: mapping, columns: relation.columns, format: .rows)
            try await load.finish(position: Position(commit: copied), rows: 0)
        }
        try await target.finishCopy(link)
    }

    /// An applier for relations whose tables are empty.
    func applier(_ relations: [Relation]) async throws -> any ChangeApplier {
        let link = link(relations)
        try await startSyncing(link, relations: relations)
        return try await target.openApplier(link)
    }
}

func showRows(_ database: DatabaseQueue, _ sql: String) throws -> [String] {
    try database.read { database in
        try Row.fetchAll(database, sql: sql).map { row in
            row.databaseValues.map { value in
                switch value.storage {
                case .null: "null"
                case .int64(let value): "i:\(value)"
                case .double(let value): "r:\(String(value.bitPattern, radix: 16))"
                case .string(let value): "t:\(value)"
                case .blob(let value): "x:" + value.map { String($0, radix: 16) }.joined(separator: ",")
                }
            }.joined(separator: "|")
        }
    }
}

/// The error that a step ends with.
func failure(_ body: () async throws -> Void) async -> BridgeError? {
    do {
        try await body()
        return nil
    } catch { return error as? BridgeError }
}

extension BridgeError {
    func value(_ key: ErrorContext.Key) -> String? { context.first { $0.key == key }?.value }
}
