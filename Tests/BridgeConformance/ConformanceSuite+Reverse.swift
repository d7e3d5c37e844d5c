package import BridgeCore
import BridgeJournal
import BridgeReplication
import BridgeTestSupport
import Logging
import Testing

/// The way back beside the way forward.
extension ConformanceSuite {
    package var back: LinkDescription { link.reversed }

    private func reverseConfiguration(_ other: LinkDescription? = nil) -> LinkConfiguration {
        LinkConfiguration(link: other ?? back, journalDirectory: folder.path("back/journal"), batchBytes: 1 << 20, patience: .seconds(30))
    }

    private static var silent: Logger { Logger(label: "conformance") { _ in SwiftLogNoOpLogHandler() } }

    /// Makes the way back as a process of its own would.
    package func prepareReverse(_ other: LinkDescription? = nil) async throws {
        let (from, to) = (try target.makeSource(), try source.makeTarget())
        let preparation = ReversePreparation(configuration: reverseConfiguration(other), source: from, target: to, logger: Self.silent)
        do { try await preparation.prepare() } catch {
            await from.close()
            await to.close()
            throw error
        }
        await from.close()
        await to.close()
    }

    private func makeReverseRunner() throws -> LinkRunner {
        try LinkRunner(
            configuration: reverseConfiguration(), source: target.makeSource(), target: source.makeTarget(), logger: Self.silent)
    }

    private func marker(of link: LinkDescription, on database: any ConformanceDatabase) async throws -> String? {
        let target = try database.makeTarget()
        let state = try await target.linkState(link)
        await target.close()
        return state?.checkpoint?.marker
    }

    /// Waits until each side holds everything that was written to the other before.
    private func drainBothWays(_ text: String) async throws {
        try await source.writeMarker(text, link)
        try await target.writeMarker(text, back)
        try await waitUntil(deadline: .seconds(90)) { try await marker(of: link, on: target) == text }
        try await waitUntil(deadline: .seconds(90)) { try await marker(of: back, on: source) == text }
    }

    /// The keys of all row records in a journal, by the first cell of each.
    private func journaledKeys(_ directory: String) async throws -> [Int64] {
        let reader = try await JournalReader.open(directory: folder.path(directory))
        let buffer = RecordBuffer()
        var keys: [Int64] = []
        while try await reader.read(into: buffer, limit: 1 << 20) > 0 {
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() {
                guard [.insert, .update, .delete, .upsert, .remove].contains(record.kind) else { continue }
                let change = try RowChange(record)
                let image = try #require(change.new ?? change.old)
                var cells = image.cells
                let cell = try #require(try cells.next())
                keys.append(try #require(cell.integer ?? Int64(String(decoding: cell.bytes, as: UTF8.self))))
            }
            buffer.removeAll()
        }
        await reader.close()
        return keys
    }

    private static let writes = 10_000
    /// Keys from here on are written on the target's side.
    private static let far: Int64 = 1_000_000

    /// 7,000 inserts, 2,000 updates and 1,000 deletes, in transactions of one to twenty.
    private static func writes(from first: Int64) -> String {
        var statements: [String] = []
        for number in 0..<Int64(7_000) {
            let id = first + number
            statements.append(
                number % 2 == 0
                    ? "INSERT INTO accounts VALUES (\(id), 'm\(id)', \(number), NULL);"
                    : "INSERT INTO items VALUES (\(id), 'k', NULL, 0.5);")
            if number % 7 < 2 {
                statements.append(
                    number % 2 == 0
                        ? "UPDATE accounts SET balance = -1, note = 'changed' WHERE id = \(id);" : "UPDATE items SET price = 1.5 WHERE a = \(id);")
            }
            if number % 7 == 3 { statements.append(number % 2 == 0 ? "DELETE FROM accounts WHERE id = \(id);" : "DELETE FROM items WHERE a = \(id);") }
        }
        precondition(statements.count == writes)
        var sql = ""
        var (rest, size) = (statements[...], 1)
        while !rest.isEmpty {
            sql += "BEGIN; \(rest.prefix(size).joined(separator: " ")) COMMIT;\n"
            rest = rest.dropFirst(size)
            size = size % 20 + 1
        }
        return sql
    }

    /// Both directions at once, the way back made while the way forward carries writes: nothing goes round.
    package func bothWays() async throws {
        let forward = try makeRunner()
        async let forwardEnd = forward.run(untilCaughtUp: false)
        try await waitUntil { forward.progress.activity == .streaming }
        let source = source
        async let near: Void = source.execute(Self.writes(from: 1))
        try await waitUntil { forward.progress.transactionsApplied > 20 }
        try await prepareReverse()
        let reverse = try makeReverseRunner()
        async let reverseEnd = reverse.run(untilCaughtUp: false)
        try await waitUntil { reverse.progress.activity == .streaming }
        try await target.execute(Self.writes(from: Self.far))
        _ = try await near
        try await drainBothWays("all written")
        try await expectEqual("after writes on both sides")
        #expect(try await source.rows(.accounts).count > 5_000)
        forward.stop()
        reverse.stop()
        #expect(try await !forwardEnd)
        #expect(try await !reverseEnd)

        let there = try await journaledKeys("journal"), here = try await journaledKeys("back/journal")
        #expect(there.count { $0 >= Self.far } == 0, "echoes in the journal of the way forward")
        #expect(here.count { $0 < Self.far } == 0, "echoes in the journal of the way back")
        for (keys, logsKeys) in [(there, try source.makeSource().logsKeys), (here, try target.makeSource().logsKeys)] {
            // A source that logs keys merges what happened to a row between two reads.
            #expect(logsKeys ? keys.count <= Self.writes * 2 : keys.count == Self.writes)
            #expect(Set(keys).count == 7_000)
        }
    }

    /// What the way forward applied is no echo even when the way back reads it after the way forward is gone.
    package func echoesAfterRemoval() async throws {
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await prepareReverse()
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await remove(link, from: source, to: target)
        // Nor when the server has cleaned up.
        try await target.execute("VACUUM;")
        try await target.execute("BEGIN; UPDATE accounts SET balance = 12 WHERE id = 1; INSERT INTO items VALUES (77, 'x', NULL, NULL); COMMIT;")
        #expect(try await makeReverseRunner().run(untilCaughtUp: true))
        try await expectEqual("after the way back alone")
        #expect(Set(try await journaledKeys("back/journal")) == [1, 77])
        try await remove(back, from: target, to: source)
        #expect(try await source.traces().isEmpty)
        #expect(try await target.traces().isEmpty)
    }

    private func remove(
        _ link: LinkDescription, from: any ConformanceDatabase, to: any ConformanceDatabase
    ) async throws {
        let (source, target) = (try from.makeSource(), try to.makeTarget())
        try await source.connect()
        try await target.connect()
        try await source.removeCapture(link)
        try await target.removeLink(link)
        await source.close()
        await target.close()
    }

    private func watch(_ link: LinkDescription, on database: any ConformanceDatabase) async throws {
        let target = try database.makeTarget()
        let comparison = try await target.openComparison(link, role: .target)
        try await #require(comparison.target).watchForeignWrites()
        await comparison.close()
        await target.close()
    }

    /// Throws unless the watch is whole.
    private func foreignWrites(_ link: LinkDescription, on database: any ConformanceDatabase) async throws -> [ForeignWrite] {
        let target = try database.makeTarget()
        let comparison = try await target.openComparison(link, role: .target)
        let writes = try await #require(comparison.target).foreignWrites(after: 0, limit: 100)
        await comparison.close()
        await target.close()
        return writes
    }

    /// Removing one direction leaves the other at work, with everything that it has on both sides.
    package func removesOneDirection(_ direction: LinkDescription.Direction) async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await prepareReverse()
        try await watch(link, on: target)
        try await watch(back, on: source)
        let goesForward = direction == .forward
        let staying = goesForward ? try makeReverseRunner() : try makeRunner()
        let (from, to) = goesForward ? (target, source) : (source, target)
        let stays = goesForward ? back : link
        async let end = staying.run(untilCaughtUp: false)
        try await waitUntil { staying.progress.activity == .streaming }
        try await from.execute("BEGIN; UPDATE accounts SET balance = 99 WHERE id = 1; COMMIT;")
        try await waitUntil { try await from.rows(.accounts) == to.rows(.accounts) }

        if goesForward { try await remove(link, from: source, to: target) } else { try await remove(back, from: target, to: source) }
        try await from.execute(Self.changes)
        try await from.writeMarker("after the removal", stays)
        try await waitUntil { try await marker(of: stays, on: to) == "after the removal" }
        try await expectEqual("after one direction was removed")
        staying.stop()
        #expect(try await !end)
        #expect(try await foreignWrites(stays, on: to).isEmpty)
        try await to.execute("BEGIN; UPDATE accounts SET balance = 5 WHERE id = 5; COMMIT;")
        #expect(try await foreignWrites(stays, on: to).count == 1)
        #expect(try await !source.traces().isEmpty)
        #expect(try await !target.traces().isEmpty)

        try await remove(stays, from: from, to: to)
        #expect(try await source.traces().isEmpty)
        #expect(try await target.traces().isEmpty)
    }

    /// A way back that was not prepared is not run: it would copy what is older over what the application wrote.
    package func refusesUnpreparedReverse() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let before = (try await source.traces(), try await target.traces())
        let error = await #expect(throws: BridgeError.self) { try await makeReverseRunner().run(untilCaughtUp: true) }
        #expect(error?.code == .checkpointForeign)
        #expect(try await source.traces() == before.0)
        #expect(try await target.traces() == before.1)

        // Nor one whose tables, or whose journal, are others than those that it was prepared with.
        try await prepareReverse()
        try await prepareReverse()
        var fewer = back
        fewer.mappings[0].columns = ["id", "email"]
        let changed = fewer
        let selection = await #expect(throws: BridgeError.self) { try await prepareReverse(changed) }
        #expect(selection?.code == .configurationInvalid)
        try ChildProcess.runBlocking(["mv", folder.path("back"), folder.path("aside")])
        let journal = await #expect(throws: BridgeError.self) { try await prepareReverse() }
        #expect(journal?.code == .journalMissing)
        try ChildProcess.runBlocking(["mv", folder.path("aside"), folder.path("back")])
        try await prepareReverse()
        #expect(try await makeReverseRunner().run(untilCaughtUp: true))
        try await expectEqual("after all refusals")
    }

    /// Goes on where a killed preparation stopped: the way back is made, and carries what is written from then on.
    package func preparesAgain() async throws {
        try await prepareReverse()
        try await target.execute(Self.changes)
        #expect(try await makeReverseRunner().run(untilCaughtUp: true))
        #expect(try await makeRunner().run(untilCaughtUp: true))
        try await expectEqual("after the second preparation")
    }

    /// Brings the way forward to where the way back can be prepared.
    package func runForward() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
    }

    /// Where a process of its own finds the way back's journal.
    package var reverseJournal: String { folder.path("back/journal") }
}

extension SourceConnector {
    /// Whether records say how rows are, and not what happened to them.
    fileprivate var logsKeys: Bool { engine == EngineName(rawValue: "sqlite") }
}
