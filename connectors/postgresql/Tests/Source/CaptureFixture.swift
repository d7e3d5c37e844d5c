import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// A database with a source connector on it, and what a capture of it delivers as readable lines.
struct SourceFixture: Sendable {
    let cluster: PostgresCluster
    let uri: String
    let source: PostgresSource
    let link: LinkDescription

    init(
        _ sql: String, tables: [String], form: ValueForm = .native, cluster: PostgresCluster? = nil,
        mappings: [TableMapping]? = nil, options: PostgresSource.Options = .init()
    ) async throws {
        self.cluster = if let cluster { cluster } else { try PostgresCluster.shared }
        uri = try await self.cluster.makeDatabase("source")
        try await self.cluster.psql(uri, sql)
        source = try PostgresSource(connectionString: uri, options: options)
        // The last part of the path, before the query; the query's own slashes come later.
        let name = uri.split(separator: "?").first?.split(separator: "/").last.map { String($0).replacing("_", with: "-") }
        link = LinkDescription(
            migration: name ?? "test", direction: .forward,
            mappings: mappings ?? tables.map { TableMapping(source: TableName(name: $0), target: TableName(name: $0)) },
            form: form)
    }

    @discardableResult
    func psql(_ sql: String) async throws -> String { try await cluster.psql(uri, sql) }

    var slot: String { link.identifier }

    func slotFact(_ column: String) async throws -> String {
        try await psql("SELECT \(column) FROM pg_replication_slots WHERE slot_name = '\(slot)'")
    }

    /// Prepares, and opens a capture at the origin.
    func open() async throws -> (CaptureOrigin, Stream) {
        let origin = try await source.prepareCapture(link, replacingLeftovers: false)
        return (origin, try await open(origin, origin.position))
    }

    /// Opens a capture that streams transactions while they run.
    func open(_ origin: CaptureOrigin, _ durable: Position, in workspace: CaptureWorkspace) async throws -> Stream {
        Stream(
            session: try await source.openCapture(link, origin: origin, durable: durable, workspace: workspace), source: source,
            link: link)
    }

    func open(_ origin: CaptureOrigin, _ durable: Position) async throws -> Stream {
        Stream(session: try await source.openCapture(link, origin: origin, durable: durable), source: source, link: link)
    }
}

/// Reads a capture the way the capture loop does, keeping what it delivers.
final class Stream {
    let session: any CaptureSession
    let source: PostgresSource
    private let link: LinkDescription
    private let records: RecordLines
    var lines: [String] { records.lines }
    var relations: [UInt32: Relation] { records.relations }
    var ends: [TransactionEnd] { records.ends }
    var starts: [TransactionStart] { records.starts }
    private(set) var frontier = Position.zero
    /// Records and tells the source so after every read.
    var acknowledges = true
    var limit = 1 << 20
    private let buffer = RecordBuffer()

    init(session: any CaptureSession, source: PostgresSource, link: LinkDescription) {
        self.link = link
        self.session = session
        self.source = source
        records = RecordLines()
    }

    /// Goes on with another session, and keeps what came before.
    init(continuing other: Stream, _ session: any CaptureSession) {
        self.session = session
        source = other.source
        link = other.link
        records = other.records
        frontier = other.frontier
    }

    /// One read.
    @discardableResult
    func step(patience: Duration = .milliseconds(200)) async throws -> CaptureProgress {
        buffer.removeAll()
        let progress = try await session.read(into: buffer, limit: limit, patience: patience)
        #expect(progress.frontier >= frontier)
        frontier = progress.frontier
        try records.collect(buffer)
        if acknowledges { session.acknowledge(frontier) }
        return progress
    }

    /// Reads until everything that is committed now has been delivered.
    func catchUp(deadline: Duration = .seconds(30)) async throws {
        let position = try await source.currentPosition(link)
        let end = ContinuousClock.now + deadline
        while frontier < position {
            try #require(ContinuousClock.now < end, "capture does not reach \(source.describe(position))")
            try await step()
        }
    }

    /// What was delivered since the last call, without relation, begin and commit lines.
    func takeChanges() -> [String] {
        takeLines().filter { !$0.hasPrefix("relation") && !$0.hasPrefix("begin") && !$0.hasPrefix("commit") }
    }

    func takeLines() -> [String] { records.take() }

    static func text(_ image: RowImage) throws -> String { try RecordLines.text(image) }
}

/// Records as readable lines.
final class RecordLines {
    private(set) var lines: [String] = []
    private(set) var relations: [UInt32: Relation] = [:]
    private(set) var ends: [TransactionEnd] = []
    private(set) var starts: [TransactionStart] = []

    func take() -> [String] {
        defer { lines = [] }
        return lines
    }

    func collect(_ buffer: RecordBuffer) throws {
        var cursor = RecordCursor(buffer.bytes)
        while let record = try cursor.next() {
            switch record.kind {
            case .relation:
                let relation = try Relation(payload: record.payload)
                relations[relation.id] = relation
                let columns = relation.columns.map { "\($0.name)\($0.isKey ? "*" : "") \($0.typeName)" }
                lines.append("relation \(relation.name): \(columns.joined(separator: ", "))")
            case .begin:
                starts.append(try record.transactionStart())
                lines.append("begin")
            case .commit:
                ends.append(try record.transactionEnd())
                lines.append("commit \(try record.transactionEnd().changes)")
            case .truncate:
                let (options, ids) = try record.truncation()
                lines.append("truncate \(options.rawValue) \(ids.map { name($0) }.joined(separator: ","))")
            case .message:
                let (prefix, content) = try record.message()
                lines.append("message \(prefix) \(String(decoding: content, as: UTF8.self))")
            case .insert, .update, .delete:
                let change = try RowChange(record)
                var line = "\(record.kind) \(name(change.relation))"
                if let old = change.old { line += " \(change.oldKind)(\(try Self.text(old)))" }
                if let new = change.new { line += " (\(try Self.text(new)))" }
                lines.append(line)
            default: lines.append("unexpected \(record.kind)")
            }
        }
    }

    private func name(_ id: UInt32) -> String { relations[id]?.name.name ?? "unknown table" }

    /// `1|a|~|NULL|-`: `~` unchanged, `-` absent; canonical cells with their tag in front.
    static func text(_ image: RowImage) throws -> String {
        var cells = image.cells
        var parts: [String] = []
        while let cell = try cells.next() {
            switch cell.tag {
            case .null: parts.append("NULL")
            case .unchanged: parts.append("~")
            case .absent: parts.append("-")
            case .text:
                let text = String(decoding: cell.bytes, as: UTF8.self)
                parts.append(text.utf8.count > 100 ? "\(text.utf8.count) bytes" : text)
            case .integer: parts.append("i\(cell.integer ?? 0)")
            case .real: parts.append("r\(cell.real ?? 0)")
            case .string: parts.append("s" + String(decoding: cell.bytes, as: UTF8.self))
            case .blob: parts.append("x" + cell.bytes.map { String($0, radix: 16) }.joined(separator: "."))
            }
        }
        return parts.joined(separator: "|")
    }
}

/// The error of a call that must fail.
func failure<Result>(
    _ location: SourceLocation = #_sourceLocation, isolation: isolated (any Actor)? = #isolation,
    _ body: () async throws -> Result
) async throws -> BridgeError {
    do {
        _ = try await body()
    } catch let error as BridgeError {
        return error
    }
    Issue.record("nothing was thrown", sourceLocation: location)
    throw ChildProcess.Failure("nothing was thrown")
}
