import BridgeCore
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

/// A source with its session and the mirror that its records are replayed into, driven by one test at a time, which is why it
/// may be handed about.
final class CaptureHarness: @unchecked Sendable {
    let database: TestDatabase
    let source: SQLiteSource
    let link: LinkDescription
    private(set) var origin: CaptureOrigin
    private(set) var session: any CaptureSession
    private(set) var mirror = Mirror()
    /// Behind the last transaction that was delivered whole, or moved by a frontier.
    private(set) var durable: Position
    let buffer = RecordBuffer()
    var limit = 1 << 20
    private(set) var largestRead = 0
    private(set) var reads = 0
    /// Where its sessions keep what outlasts them.
    let workspace: CaptureWorkspace?

    init(
        _ sql: String, tables: [String], journalMode: String = "WAL", encoding: String = "UTF-8",
        link: LinkDescription? = nil, hasWorkspace: Bool = false
    ) async throws {
        database = try TestDatabase(sql, journalMode: journalMode, encoding: encoding)
        workspace = hasWorkspace ? CaptureWorkspace(directory: database.folder + "/bridge/capture") : nil
        source = SQLiteSource(path: database.path)
        self.link = link ?? forwardLink(tables)
        origin = try await source.prepareCapture(self.link, replacingLeftovers: false)
        durable = origin.position
        session = try await source.openCapture(
            self.link, origin: origin, durable: origin.position, workspace: workspace)
    }

    @discardableResult
    func read(patience: Duration = .zero) async throws -> CaptureProgress {
        buffer.removeAll()
        let progress = try await session.read(into: buffer, limit: limit, patience: patience)
        largestRead = max(largestRead, buffer.count)
        reads += 1
        try mirror.apply(buffer.bytes)
        #expect(progress.frontier >= durable)
        if let last = progress.lastCommit { #expect(progress.frontier.commit >= last.end) }
        if !progress.isInsideTransaction { durable = progress.frontier }
        return progress
    }

    /// Reads until everything committed before the call has been delivered.
    func drain() async throws {
        let goal = try await source.currentPosition(link)
        let deadline = ContinuousClock.now + .seconds(30)
        while true {
            let progress = try await read(patience: .milliseconds(50))
            if progress.frontier >= goal, !progress.isInsideTransaction { return }
            try #require(ContinuousClock.now < deadline, "the source's position was not reached")
        }
    }

    /// Drains, then says where mirror and tables differ.
    func difference(_ tables: [String: [String]]) async throws -> String? {
        try await drain()
        return try compare(tables)
    }

    func compare(_ tables: [String: [String]]) throws -> String? {
        let observer = try TestDatabase.open(database.path)
        defer { try? observer.close() }
        return try observer.read { database in
            for (table, columns) in tables {
                if let words = try BridgeSQLiteTests.difference(mirror, database, table, columns: columns) { return words }
            }
            return nil
        }
    }

    /// Ends the session and begins another where the first was durable.
    func reopen(durable position: Position? = nil) async throws {
        await session.close()
        if let position {
            durable = position
            mirror.resume(at: position.commit)
        }
        mirror.endSession()
        session = try await source.openCapture(link, origin: origin, durable: position ?? durable, workspace: workspace)
    }

    func close() async {
        await session.close()
        await source.close()
    }

    func openTable(_ table: String, of snapshot: any SourceSnapshot) async throws -> any CopyReader {
        let mapping = try #require(link.mappings.first { $0.source.name == table })
        let schema = try #require(try await source.describeTables([mapping.source]).first)
        return try await snapshot.openTable(schema, mapping: mapping, format: .rows)
    }

    func forget(_ table: String) { mirror.forget(table: table) }

    /// Puts copied rows into the mirror.
    func mirrorLoad(_ table: String, _ columns: [Relation.Column], _ chunk: RecordBuffer) throws {
        let number = UInt32((link.mappings.firstIndex { $0.source.name == table } ?? 0) + 1)
        try mirror.load(
            id: number, name: table, columns: columns.map(\.name), keyFlags: columns.map(\.isKey), chunk.bytes)
    }

    /// Reads a table to its end into the mirror.
    func load(_ table: String, from reader: any CopyReader, betweenChunks: () throws -> Void = {}) async throws -> Position {
        let chunk = RecordBuffer()
        while true {
            chunk.removeAll()
            let rows = try await reader.read(into: chunk, limit: 2_000)
            if rows == 0 { break }
            try mirrorLoad(table, reader.columns, chunk)
            try betweenChunks()
        }
        await reader.close()
        return reader.position
    }
}

/// Runs `body` and gives the code of the error that it must throw.
func errorCode(_ body: () async throws -> Void) async -> ErrorCode? {
    do {
        try await body()
        return nil
    } catch let error as BridgeError { return error.code } catch { return nil }
}

/// Waits until something holds; the deadline is for tests that fail.
func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(30)
    while try await !condition() {
        try #require(ContinuousClock.now < deadline, "never came about: \(what)")
        try await Task.sleep(for: .milliseconds(5))
    }
}
