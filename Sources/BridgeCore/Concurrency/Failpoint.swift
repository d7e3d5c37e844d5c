#if canImport(Glibc)
import Glibc
#else
import Musl
#endif
import Synchronization

/// A named place at a durability boundary where a test can make the process die or a step fail.
///
/// Inert unless the environment variable `BRIDGE_FAILPOINTS` names it: `journal.write=kill`,
/// `apply.commit=kill@3,copy.table=error` (at the third passage; several by commas). `kill` is SIGKILL, `error` throws,
/// `exit` leaves at once with status 70.
package struct Failpoint: Sendable {
    package let name: String

    package init(_ name: String) { self.name = name }

    /// Every failpoint of the product. A crash test walks this list, so that a new boundary is tested from its first day.
    package static let all: [Failpoint] = [
        .captureReceived, .captureAcknowledge, .journalBeforeWrite, .journalAfterWrite, .journalBeforeSync,
        .journalAfterSync, .journalNewSegment, .sourcePrepared, .linkPrepared, .copyTableBegin, .copyChunk,
        .copyTableBeforeCommit, .copyTableAfterCommit, .copyFinished, .applyBegin, .applyPart, .applyBeforeCommit,
        .applyAfterCommit, .journalRetention, .logPruned, .reverseJournaled, .reverseAdopted, .captureSpill,
        .captureReadBack, .captureReadBackPart,
        .stopRecorded, .deadLetterWritten, .skipDecided,
    ] + ofPartedCopy

    /// Those that are passed only where a change cannot be applied.
    package static let ofConflicts: [Failpoint] = [.stopRecorded, .deadLetterWritten, .skipDecided]

    /// Those that only the making of the way back passes.
    package static let ofReversePreparation: [Failpoint] = [.reverseJournaled, .reverseAdopted]

    /// Those that only a source passes that streams transactions while they run.
    package static let ofStreaming: [Failpoint] = [.captureSpill, .captureReadBack, .captureReadBackPart]

    /// Changes of a running transaction are about to be put aside.
    package static let captureSpill = Failpoint("capture.spill")
    /// A transaction that was put aside has committed and is about to be read back.
    package static let captureReadBack = Failpoint("capture.read-back")
    /// Part of it was read back.
    package static let captureReadBackPart = Failpoint("capture.read-back-part")

    /// Those that only the copy of tables in parts passes.
    package static let ofPartedCopy: [Failpoint] = [
        .copyPartsBeforeBegin, .copyPartsAfterBegin, .copyPartBegin, .copyPartBeforeCommit, .copyPartAfterCommit,
        .copyPartsLoaded, .copyIndexBeforeCommit, .copyIndexAfterCommit,
    ]

    /// A batch was received from the source and not yet journaled.
    package static let captureReceived = Failpoint("capture.received")
    /// The journal is synced; the source is about to hear of it.
    package static let captureAcknowledge = Failpoint("capture.acknowledge")
    package static let journalBeforeWrite = Failpoint("journal.before-write")
    package static let journalAfterWrite = Failpoint("journal.after-write")
    package static let journalBeforeSync = Failpoint("journal.before-sync")
    package static let journalAfterSync = Failpoint("journal.after-sync")
    /// A new segment file exists; its directory entry is not yet synced.
    package static let journalNewSegment = Failpoint("journal.new-segment")
    /// Slot and publication, or log and triggers, exist; the target does not know of it yet.
    package static let sourcePrepared = Failpoint("source.prepared")
    /// The target's records of the link exist.
    package static let linkPrepared = Failpoint("link.prepared")
    package static let copyTableBegin = Failpoint("copy.table-begin")
    package static let copyChunk = Failpoint("copy.chunk")
    package static let copyTableBeforeCommit = Failpoint("copy.table-before-commit")
    package static let copyTableAfterCommit = Failpoint("copy.table-after-commit")
    /// A table is about to be recorded as loaded in parts, with what was left in it removed and its indexes dropped.
    package static let copyPartsBeforeBegin = Failpoint("copy.parts-before-begin")
    package static let copyPartsAfterBegin = Failpoint("copy.parts-after-begin")
    /// A part has its place in the records, uncommitted; none of its rows is sent.
    package static let copyPartBegin = Failpoint("copy.part-begin")
    package static let copyPartBeforeCommit = Failpoint("copy.part-before-commit")
    package static let copyPartAfterCommit = Failpoint("copy.part-after-commit")
    /// All parts of a table are committed; it is not yet recorded as done.
    package static let copyPartsLoaded = Failpoint("copy.parts-loaded")
    /// An index was built again, uncommitted.
    package static let copyIndexBeforeCommit = Failpoint("copy.index-before-commit")
    package static let copyIndexAfterCommit = Failpoint("copy.index-after-commit")
    package static let copyFinished = Failpoint("copy.finished")
    package static let applyBegin = Failpoint("apply.begin")
    /// Part of a large transaction was applied; the target's transaction is still open.
    package static let applyPart = Failpoint("apply.part")
    package static let applyBeforeCommit = Failpoint("apply.before-commit")
    package static let applyAfterCommit = Failpoint("apply.after-commit")
    /// A segment is about to be removed.
    package static let journalRetention = Failpoint("journal.retention")
    /// A change log was pruned on the source.
    package static let logPruned = Failpoint("log.pruned")

    /// The way back has its journal; no record names it yet.
    package static let reverseJournaled = Failpoint("reverse.journaled")
    /// The way back is a link.
    package static let reverseAdopted = Failpoint("reverse.adopted")

    /// The change that the link stops at is recorded.
    package static let stopRecorded = Failpoint("conflict.stop-recorded")
    /// A change that is to be passed over is in the dead-letter file; nothing says yet that it is.
    package static let deadLetterWritten = Failpoint("conflict.dead-letter-written")
    /// It is decided that a change is to be passed over; the link is still said to stand there.
    package static let skipDecided = Failpoint("conflict.skip-decided")

    /// Passes the place. Costs one load of a constant while no failpoint is switched on.
    @inline(__always)
    package func hit() throws(BridgeError) {
        if let armed = Self.armed { try armed.passes(name) }
    }

    private static let armed: ArmedFailpoints? = getenv("BRIDGE_FAILPOINTS").flatMap {
        ArmedFailpoints(String(cString: $0))
    }
}

/// The failpoints that the environment switched on.
private final class ArmedFailpoints: Sendable {
    private enum Action: String { case kill, error, exit }
    private struct Arm {
        let action: Action
        var passagesLeft: Int
    }
    private let arms: Mutex<[String: Arm]>

    init?(_ specification: String) {
        var arms: [String: Arm] = [:]
        for entry in specification.split(separator: ",") {
            let sides = entry.split(separator: "=", maxSplits: 1)
            guard sides.count == 2 else { continue }
            let parts = sides[1].split(separator: "@", maxSplits: 1)
            guard let word = parts.first, let action = Action(rawValue: String(word)) else { continue }
            let passage = parts.count == 2 ? Int(parts[1]) ?? 1 : 1
            arms[String(sides[0])] = Arm(action: action, passagesLeft: passage)
        }
        guard !arms.isEmpty else { return nil }
        self.arms = Mutex(arms)
    }

    func passes(_ name: String) throws(BridgeError) {
        let action: Action? = arms.withLock { arms in
            guard var arm = arms[name], arm.passagesLeft > 0 else { return nil }
            arm.passagesLeft -= 1
            arms[name] = arm
            return arm.passagesLeft == 0 ? arm.action : nil
        }
        switch action {
        case nil: return
        case .kill: kill(getpid(), SIGKILL)
        case .exit: _exit(70)
        case .error: throw BridgeError(.internalFault, "failpoint \(name) is switched on")
        }
    }
}
