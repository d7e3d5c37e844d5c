import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A database of its own with a link whose copy is finished, and batches written by hand.
struct TargetFixture {
    let cluster: PostgresCluster
    let url: String
    let link: LinkDescription
    let target: PostgresTarget

    /// - Parameters:
    ///   - schema: SQL that makes the target tables.
    ///   - tables: pairs of source and target names; a name stands for both, in the schema public.
    init(
        _ schema: String, tables: [(TableName, TableName)], form: ValueForm = .native, columns: [String]? = nil,
        direction: LinkDescription.Direction = .forward
    ) async throws {
        cluster = try PostgresCluster.shared
        url = try await cluster.makeDatabase("target")
        if !schema.isEmpty { try await cluster.psql(url, schema) }
        // Replication origins belong to the cluster, so that every link needs a name of its own.
        let name = "m\(UInt32.random(in: .min ... .max))"
        link = LinkDescription(
            migration: name, direction: direction,
            mappings: tables.map { TableMapping(source: $0.0, target: $0.1, columns: columns) }, form: form)
        target = PostgresTarget(connectionString: url)
    }

    init(_ schema: String, tables: [String], form: ValueForm = .native) async throws {
        try await self.init(schema, tables: tables.map { (Self.name($0), Self.name($0)) }, form: form)
    }

    private init(_ other: TargetFixture, link: LinkDescription) {
        cluster = other.cluster
        url = other.url
        target = other.target
        self.link = link
    }

    /// The same with a link to which only some rows of a target table belong.
    func filtering(_ table: String, by filter: String) -> TargetFixture {
        var link = link
        for index in link.mappings.indices where link.mappings[index].target.name == table {
            link.mappings[index].targetFilter = filter
        }
        return TargetFixture(self, link: link)
    }

    static func name(_ table: String) -> TableName { TableName(schema: "public", name: table) }

    /// Makes the link's records and finishes its copy.
    func begin(origin: Position = Position(commit: 1)) async throws {
        _ = try await target.prepareLink(link)
        try await target.recordOrigin(link, CaptureOrigin(identity: ["system": "7"], position: origin))
        try await cluster.psql(url, "UPDATE _bridge.link_table SET state = 'done'")
        try await target.finishCopy(link)
    }

    func openApplier() async throws -> any ChangeApplier { try await target.openApplier(link) }

    func sql(_ text: String) async throws -> String { try await cluster.psql(url, text) }

    func checkpoint() async throws -> Checkpoint? { try await target.linkState(link)?.checkpoint }

    /// Removes what is not in the database, and closes.
    func end() async throws {
        try await target.removeLink(link)
        await target.close()
    }
}

/// One cell of a hand-written row.
enum TestCell: ExpressibleByStringLiteral, ExpressibleByNilLiteral, ExpressibleByIntegerLiteral {
    case text(String)
    case null
    case unchanged
    case absent
    case integer(Int64)
    case real(Double)
    case string([UInt8])
    case blob([UInt8])

    init(stringLiteral value: String) { self = .text(value) }
    init(nilLiteral: ()) { self = .null }
    init(integerLiteral value: Int64) { self = .integer(value) }
    static func string(_ text: String) -> TestCell { .string(Array(text.utf8)) }
    init(_ text: String?) { self = text.map { .text($0) } ?? .null }
}

extension RecordBuffer {
    func append(row: [TestCell]) {
        beginRowImage(columns: row.count)
        for cell in row {
            switch cell {
            case .text(let text): Array(text.utf8).withUnsafeBytes { appendCell(.text, $0) }
            case .null: appendCell(.null)
            case .unchanged: appendCell(.unchanged)
            case .absent: appendCell(.absent)
            case .integer(let value): appendCell(integer: value)
            case .real(let value): appendCell(real: value)
            case .string(let bytes): bytes.withUnsafeBytes { appendCell(.string, $0) }
            case .blob(let bytes): bytes.withUnsafeBytes { appendCell(.blob, $0) }
            }
        }
    }
}

/// Writes batches record by record.
struct BatchWriter {
    private var buffer = RecordBuffer()
    private(set) var relations: [UInt32: Relation] = [:]
    private var known: [UInt32: Relation]
    private(set) var rows = 0
    private var transactions = 0
    private var lsn: UInt64
    private var checkpoint: Checkpoint?

    init(relations: [Relation], lsn: UInt64 = 1_000) {
        known = Dictionary(uniqueKeysWithValues: relations.map { ($0.id, $0) })
        self.relations = known
        self.lsn = lsn
    }

    var position: Position { Position(commit: lsn) }
    var isEmpty: Bool { buffer.isEmpty }

    mutating func begin() {
        lsn += 100
        buffer.appendBegin(TransactionStart(transaction: lsn, position: position, commitTime: .now))
    }

    mutating func commit() {
        buffer.appendCommit(TransactionEnd(position: position, end: lsn + 10, commitTime: .now, changes: 0))
        transactions += 1
        checkpoint = Checkpoint(position: position, frontier: Position(commit: lsn + 10), commitTime: .now)
    }

    mutating func insert(_ relation: UInt32, _ row: [TestCell]) { write(.insert, relation, row) }
    mutating func upsert(_ relation: UInt32, _ row: [TestCell]) { write(.upsert, relation, row) }
    mutating func remove(_ relation: UInt32, _ row: [TestCell]) { write(.remove, relation, row) }

    private mutating func write(_ kind: RecordKind, _ relation: UInt32, _ row: [TestCell]) {
        let start = buffer.beginRow(kind, relation: relation)
        buffer.append(row: row)
        buffer.endRecord(start)
        rows += 1
    }

    mutating func update(_ relation: UInt32, _ row: [TestCell], old: [TestCell]? = nil, kind: OldRowKind = .key) {
        let start = buffer.beginRow(.update, relation: relation, old: old == nil ? .none : kind)
        if let old { buffer.append(row: old) }
        buffer.append(row: row)
        buffer.endRecord(start)
        rows += 1
    }

    mutating func delete(_ relation: UInt32, _ old: [TestCell], kind: OldRowKind = .key) {
        let start = buffer.beginRow(.delete, relation: relation, old: kind)
        buffer.append(row: old)
        buffer.endRecord(start)
        rows += 1
    }

    mutating func truncate(_ relations: [UInt32], _ options: TruncateOptions = []) {
        buffer.appendTruncate(relations, options: options)
    }

    mutating func describe(_ relation: Relation) {
        buffer.appendRelation(relation)
        known[relation.id] = relation
    }

    /// What was written so far; what follows goes into the next batch.
    /// - Parameter isPart: the batch ends inside a transaction.
    mutating func take(isPart: Bool = false) -> ChangeBatch {
        let batch = ChangeBatch(
            records: buffer, relations: relations, checkpoint: isPart ? nil : checkpoint, rows: rows,
            transactions: transactions)
        buffer = RecordBuffer()
        relations = known
        rows = 0
        transactions = 0
        return batch
    }
}

func relation(
    _ id: UInt32, _ name: String, key: [String] = ["id"], _ columns: [(String, String)], form: ValueForm = .native,
    schema: String? = "public"
) -> Relation {
    relation(id, name, .key, key: key, columns, form: form, schema: schema)
}

func relation(
    _ id: UInt32, _ name: String, _ identity: Relation.IdentityKind, key: [String] = ["id"],
    _ columns: [(String, String)], form: ValueForm = .native, schema: String? = "public"
) -> Relation {
    Relation(
        id: id, engine: EngineName(rawValue: form == .native ? "postgresql" : "sqlite"), form: form,
        name: TableName(schema: schema, name: name), identity: identity,
        columns: columns.map {
            .init(name: $0.0, isKey: key.contains($0.0), typeName: $0.1, type: LogicalType(name: $0.1))
        })
}


func environment(_ name: String, default value: Int) -> Int {
    getenv(name).flatMap { Int(String(cString: $0)) } ?? value
}
