package import BridgeCore
import BridgeJournal
import Synchronization

/// What a running link can tell about itself at a moment.
package struct LinkProgress: Sendable {
    package enum Activity: String, Sendable {
        case starting, copying, streaming, stopping, stopped
        /// A connection was lost and is being tried again.
        case waiting
    }

    package struct Table: Sendable {
        package var name: TableName
        package var state: LinkState.Table.State
        package var rowsDone: Int64
        package var rowsEstimated: Int64?
        package var bytesDone: Int64
        /// Whether its rows are there, and an index that was dropped for them is still missing.
        package var isIndexing = false

        package init(name: TableName, state: LinkState.Table.State, rowsDone: Int64, rowsEstimated: Int64?, bytesDone: Int64 = 0) {
            self.name = name
            self.state = state
            self.rowsDone = rowsDone
            self.rowsEstimated = rowsEstimated
            self.bytesDone = bytesDone
        }
    }

    package var activity: Activity = .starting
    /// Whether the source delivers now: it was proven to be the link's, and the connection stands.
    package var isCapturing = false
    package var phase: LinkState.Phase = .preparing
    package var tables: [Table] = []
    /// Rows a second of the copy, over the last seconds.
    package var copyRowsPerSecond: Double = 0
    /// Everything the source committed before it has been received.
    package var captured: Position = .zero
    /// Everything the source committed before it is durable in the journal.
    package var journaled: Position = .zero
    /// Everything the source committed before it is on the target.
    package var applied: Position = .zero
    /// When the last applied transaction committed on the source.
    package var appliedCommitTime: Timestamp?
    /// When the last captured transaction committed on the source.
    package var capturedCommitTime: Timestamp?
    /// Whether everything captured has been applied.
    package var isDrained = false
    package var rowsApplied: Int64 = 0
    package var transactionsApplied: Int64 = 0
    package var rowsCaptured: Int64 = 0
    /// How often capture has begun; each time the source sends again what was not durable.
    package var captureSessions = 0
    package var transactionsCaptured: Int64 = 0
    /// Over the last seconds.
    package var rowsPerSecond: Double = 0
    package var transactionsPerSecond: Double = 0
    /// Rows and transactions of the last batch.
    package var lastBatchRows = 0
    package var lastBatchTransactions = 0
    package var lastBatchBytes = 0
    package var journalBytes: Int64 = 0
    /// Connections that were lost and made anew since the start.
    package var reconnects = 0
    /// What the link is waiting for, if it is.
    package var trouble: String?
    /// What the source keeps for the link, as it was last seen.
    package var retention: SourceRetention?
    /// Set while that is near the limit, or beyond it.
    package var slotWarning: String?

    package init() {}

    /// Seconds until the copy is done at the present rate; nil while unknown or when no copy is going on.
    package var copyRemainingSeconds: Double? {
        guard activity == .copying, copyRowsPerSecond > 0 else { return nil }
        var remaining: Int64 = 0
        for table in tables where table.state != .done {
            guard let estimate = table.rowsEstimated else { return nil }
            remaining += max(0, estimate - table.rowsDone)
        }
        return Double(remaining) / copyRowsPerSecond
    }
}

/// The progress of a link, shared between its loops and whoever watches.
final class ProgressBoard: Sendable {
    fileprivate struct State {
        var progress = LinkProgress()
        var applyRate = RateMeter()
        var transactionRate = RateMeter()
        var copyRate = RateMeter()
        /// The last commit position that stands in the journal, with the frontier that was known when it was written.
        var journaledCommit: Position?
        /// Whether a transaction stands in the journal of which the end is still to come.
        var isInsideTransaction = false
        /// Records in the journal, and those of them that are durable.
        var writtenRecords: UInt64 = 0
        var durableRecords: UInt64 = 0
        /// Whether this run's capture has opened its source.
        var isCapturing = false
        var appliedFrontier: Position = .zero
        var checkpoint: Position?
        /// Set once the checkpoint has been read; until then nothing counts as applied.
        var isApplying = false
    }
    private let state = Mutex(State())

    /// A consistent look at all of it, with the rates as of now.
    var current: LinkProgress {
        state.withLock { state in
            var progress = state.progress
            let now = ContinuousClock.now
            progress.isCapturing = state.isCapturing
            progress.rowsPerSecond = state.applyRate.perSecond(at: now)
            progress.transactionsPerSecond = state.transactionRate.perSecond(at: now)
            progress.copyRowsPerSecond = state.copyRate.perSecond(at: now)
            return progress
        }
    }

    /// The position of the last transaction that the target has durably; nil before the first checkpoint was read.
    var durableCheckpoint: Position? { state.withLock { $0.checkpoint } }

    /// Whether capture has proven in this run that its source is the link's.
    var isCapturing: Bool {
        get { state.withLock { $0.isCapturing } }
        set {
            state.withLock {
                if newValue, !$0.isCapturing { $0.progress.captureSessions += 1 }
                $0.isCapturing = newValue
            }
        }
    }

    /// Whether every transaction that has ended in the journal is on the target.
    var hasAppliedAllCommits: Bool { state.withLock { $0.isApplying && $0.hasAppliedAllCommits } }

    func update(_ body: (inout LinkProgress) -> Void) { state.withLock { body(&$0.progress) } }

    func copied(table: TableName, rows: Int64, bytes: Int64) {
        state.withLock { state in
            if let index = state.progress.tables.firstIndex(where: { $0.name == table }) {
                state.progress.tables[index].rowsDone += rows
                state.progress.tables[index].bytesDone += bytes
            }
            state.copyRate.add(rows, at: .now)
        }
    }

    /// What was copied of a table since is given up, and comes again.
    func uncopied(table: TableName, rows: Int64, bytes: Int64) {
        state.withLock { state in
            guard let index = state.progress.tables.firstIndex(where: { $0.name == table }) else { return }
            state.progress.tables[index].rowsDone -= rows
            state.progress.tables[index].bytesDone -= bytes
        }
    }

    /// A read was written to the journal.
    func captured(_ read: CaptureProgress, journal: JournalEnd) {
        state.withLock { state in
            state.progress.captured = max(state.progress.captured, read.frontier)
            state.progress.rowsCaptured += Int64(read.rows)
            state.progress.transactionsCaptured += Int64(read.transactions)
            if let commit = read.lastCommit { state.progress.capturedCommitTime = commit.commitTime }
            state.journaledCommit = journal.lastCommit?.position
            state.isInsideTransaction = journal.isInsideTransaction
            state.writtenRecords = journal.records
            state.settleJournaled()
            state.settleFrontier()
        }
    }

    func durable(_ end: JournalEnd, bytes: Int64) {
        state.withLock { state in
            state.progress.journaled = max(state.progress.journaled, end.frontier)
            state.progress.journalBytes = bytes
            state.durableRecords = end.records
            state.settleJournaled()
        }
    }

    /// The journal as it was found at the start.
    func opened(journal end: JournalEnd, bytes: Int64) {
        state.withLock { state in
            state.progress.captured = end.frontier
            state.progress.journaled = end.frontier
            state.progress.journalBytes = bytes
            (state.writtenRecords, state.durableRecords) = (end.records, end.records)
            state.progress.capturedCommitTime = end.lastCommit?.commitTime
            state.journaledCommit = end.lastCommit?.position
        }
    }

    func startedApplying(at checkpoint: Checkpoint) {
        state.withLock { state in
            state.appliedFrontier = checkpoint.frontier
            state.checkpoint = checkpoint.position
            state.isApplying = true
            state.progress.appliedCommitTime = checkpoint.commitTime
            state.settleFrontier()
        }
    }

    func applied(_ batch: ChangeBatch, bytes: Int) {
        state.withLock { state in
            state.progress.rowsApplied += Int64(batch.rows)
            state.progress.transactionsApplied += Int64(batch.transactions)
            state.progress.lastBatchRows = batch.rows
            state.progress.lastBatchTransactions = batch.transactions
            state.progress.lastBatchBytes = bytes
            state.applyRate.add(Int64(batch.rows), at: .now)
            state.transactionRate.add(Int64(batch.transactions), at: .now)
            if let checkpoint = batch.checkpoint {
                state.appliedFrontier = max(state.appliedFrontier, checkpoint.frontier)
                state.checkpoint = checkpoint.position
                state.progress.appliedCommitTime = checkpoint.commitTime
            }
            state.settleFrontier()
        }
    }
}

extension ProgressBoard.State {
    /// When the last transaction of the journal has been applied, the target is as far as capture is, idle stretches
    /// included; otherwise as far as its checkpoint.
    /// With nothing on its way to the disk, all that was captured is durable, idle stretches included.
    fileprivate mutating func settleJournaled() {
        guard durableRecords >= writtenRecords, !isInsideTransaction else { return }
        progress.journaled = max(progress.journaled, progress.captured)
    }

    fileprivate var hasAppliedAllCommits: Bool { journaledCommit.map { $0 < appliedFrontier } ?? true }

    fileprivate mutating func settleFrontier() {
        guard isApplying else { return }
        let isDrained = hasAppliedAllCommits && !isInsideTransaction
        progress.isDrained = isDrained
        progress.applied = max(progress.applied, isDrained ? max(appliedFrontier, progress.captured) : appliedFrontier)
    }
}
