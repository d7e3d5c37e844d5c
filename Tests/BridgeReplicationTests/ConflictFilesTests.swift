import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeReplication

@Suite("Files about changes that could not be applied")
struct ConflictFilesTests {
    private let folder: TemporaryDirectory
    private let files: ConflictFiles
    private let binding = LinkBinding(link: "shop", identity: "system=7\nslot=a", origin: "10")

    init() throws {
        folder = try TemporaryDirectory(prefix: "conflicts")
        files = ConflictFiles(directory: folder.path("conflicts"))
    }

    private func stop(_ commit: UInt64, _ ordinal: UInt64, _ binding: LinkBinding? = nil) throws -> ConflictStop {
        let error = BridgeError(.insertFoundRow, table: "public.t").at(Position(commit: commit, ordinal: ordinal))
        return try #require(ConflictStop(error, binding ?? self.binding))
    }

    private func decision(_ stop: ConflictStop) -> SkipDecision {
        SkipDecision(
            stop, source: "public.t", change: "insert", key: "{\"id\":\"1\"}", commitTime: Timestamp(microseconds: 5), at: .now)
    }

    private func text(_ path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test("P32 passing over writes dead letter and decision once, readable for their owner only, and forgets the stop")
    func passesOver() async throws {
        #expect(try await files.stop() == nil)
        #expect(try await files.decisions(binding).isEmpty)
        let stop = try stop(.max, 3)
        for _ in 0..<2 {
            // The second time as after a kill behind the decision.
            try await files.put(stop)
            #expect(try await files.stop() == stop)
            try await files.passOver(decision(stop), line: "{\"a\":1}")
            #expect(try await files.stop() == nil && !files.hasStop)
        }
        let decisions = try await files.decisions(binding)
        #expect(decisions.map(\.position) == [Position(commit: .max, ordinal: 3)])
        #expect(decisions.first?.passed.record.outcome == .passedOver)
        #expect(text(files.deadLetterPath) == "{\"a\":1}\n")
        for path in [files.deadLetterPath, files.decisionsPath] {
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
        }
    }

    @Test("P32 a dead letter that a crash cut off is written over, and what is whole stays")
    func tornDeadLetter() async throws {
        try await files.put(try stop(10, 0))
        try "{\"first\":1}\n{\"sec".write(toFile: files.deadLetterPath, atomically: false, encoding: .utf8)
        #expect(try await files.deadLetters() == ["{\"first\":1}"])
        try await files.passOver(decision(try stop(10, 0)), line: "{\"second\":2}")
        #expect(text(files.deadLetterPath) == "{\"first\":1}\n{\"second\":2}\n")
        #expect(try await files.deadLetters().count == 2)
    }

    @Test("P32 a decision is for its link and capture, and for the change that the link stands at")
    func bindings() async throws {
        let first = try stop(10, 1)
        try await files.put(first)
        for other in [try stop(10, 2), try stop(11, 1), try stop(10, 1, LinkBinding(link: "shop/reverse", identity: "", origin: "10"))] {
            let error = await #expect(throws: BridgeError.self) { try await files.passOver(decision(other), line: "{}") }
            #expect(error?.code == .conflictMissing)
        }
        #expect(text(files.deadLetterPath) == nil)
        try await files.passOver(decision(first), line: "{}")
        for other in [
            LinkBinding(link: "shop/reverse", identity: binding.identity, origin: "10"),
            LinkBinding(link: "shop", identity: "system=8", origin: "10"),
            LinkBinding(link: "shop", identity: binding.identity, origin: "11"),
        ] {
            #expect(try await files.decisions(other).isEmpty)
        }
        #expect(try await files.decisions(binding).count == 1)
    }

    @Test("P32 a file that cannot be read is an error, never taken for none")
    func unreadable() async throws {
        try await files.put(try stop(10, 1))
        for path in [files.stopPath, files.decisionsPath] {
            try "{ \"half".write(toFile: path, atomically: false, encoding: .utf8)
        }
        #expect(await #expect(throws: BridgeError.self) { try await files.stop() }?.code == .inputOutput)
        #expect(await #expect(throws: BridgeError.self) { try await files.decisions(binding) }?.code == .inputOutput)
    }

    @Test("P31 what was left out is forgotten once the target is past it, and attempts count anew once it got on")
    func gettingOn() {
        var refusals = Refusals()
        for commit in stride(from: UInt64(10), to: 40, by: 10) {
            let position = Position(commit: commit, ordinal: 1)
            let error = BridgeError(.uniqueValueTaken, table: "t").at(position)
            let verdict = refusals.verdict(on: error, policy: .skip, applied: Position(commit: commit - 5))
            #expect(verdict == .leaveOut(position))
            let change = PassedChange(
                source: "t",
                record: ConflictRecord(
                    position: position, commitTime: Timestamp(microseconds: 5), table: "t", change: "insert",
                    reason: "unique_value_taken", outcome: .skipped, key: "{}"))
            #expect(refusals.leaveOut(change) && !refusals.leaveOut(change))
            #expect(refusals.leftOut.map(\.record.position) == [position])
        }
        // The transaction's place may be another with each attempt.
        for applied in [UInt64(50), 60] {
            var verdicts: [Refusals.Verdict] = []
            for attempt in UInt64(0)..<3 {
                let error = BridgeError(.conflict, "x", context: [.init(.position, "\(applied + attempt)")])
                verdicts.append(refusals.verdict(on: error, policy: .skip, applied: Position(commit: applied)))
            }
            #expect(verdicts.first != .stop && verdicts.last == .stop, "\(applied)")
        }
        #expect(refusals.isTrying(at: Position(commit: 60)) && !refusals.isTrying(at: Position(commit: 61)))
    }

    @Test("P32 only what can pass is tried again, and no more often than it is said; a connection is never a change's fault")
    func refusals() {
        let change = Position(commit: 10, ordinal: 2)
        func verdicts(_ error: BridgeError, _ policy: ConflictPolicy = .stop) -> [Refusals.Verdict] {
            var refusals = Refusals()
            return (0..<4).map { _ in refusals.verdict(on: error, policy: policy) }
        }
        for error in [BridgeError(.uniqueValueTaken, table: "t").at(change), BridgeError(.changeRefused, "x").at(change)] {
            let verdicts = verdicts(error)
            #expect(verdicts[2...].allSatisfy { $0 == .stop })
            #expect(verdicts[..<2].allSatisfy { if case .tryAgain = $0 { true } else { false } })
        }
        // What shows at the commit only tells of no one change.
        for policy in ConflictPolicy.allCases {
            for error in [BridgeError(.conflict, "x", context: [.init(.position, "10")]), BridgeError(.changeRefused, "x")] {
                let verdicts = verdicts(error, policy)
                #expect(verdicts[2...].allSatisfy { $0 == .stop })
                #expect(verdicts[..<2].allSatisfy { if case .tryAgain = $0 { true } else { false } })
            }
        }
        for code in [ErrorCode.valueDoesNotFit, .valueMissing, .schemaChanged] {
            #expect(verdicts(BridgeError(code, "x").at(change), .skip).first == .stop)
        }
        #expect(verdicts(BridgeError(.uniqueValueTaken, table: "t").at(change), .skip).first == .leaveOut(change))
        #expect(verdicts(BridgeError(.changeRefused, "x").at(change), .skip).first != .leaveOut(change))
        for code in [ErrorCode.connectionLost, .serverBusy, .diskFull, .serverUnreachable, .schemaChanged] {
            #expect(ConflictStop(BridgeError(code, "x").at(change), binding) == nil)
        }
        let full = BridgeError(.diskFull, "x", context: [.init(.sqlstate, "53100")])
        #expect(full.passingByItself.retry == .backoff)
        #expect(BridgeError(.diskFull, "the journal's").passingByItself.retry == .never)
    }
}
