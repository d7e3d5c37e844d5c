import BridgeCore

/// Makes what was written durable, on a thread of its own, beside the writing. Since one sync runs at a time and each
/// covers all that was written before it began, callers that arrive during one share the next.
actor JournalSyncer {
    private nonisolated let executor = ThreadExecutor(name: "journal-sync")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let shared: JournalShared
    private let files: any JournalFiles
    private let state: StateFile

    init(shared: JournalShared, files: any JournalFiles, state: StateFile) {
        self.shared = shared
        self.files = files
        self.state = state
    }

    /// Returns when everything up to `end` is durable.
    func sync(upTo end: JournalEnd) throws(BridgeError) -> JournalEnd {
        let target = shared.syncTarget
        if (target.durable.segment, target.durable.offset) >= (end.segment, end.offset) { return target.durable }
        if let failure = target.failure { throw failure }
        guard let file = target.file else { throw BridgeError(.internalFault, "the journal is closed") }
        do throws(BridgeError) {
            try Failpoint.journalBeforeSync.hit()
            try files.synchronize(file)
            try Failpoint.journalAfterSync.hit()
            try state.recordDurable(
                segment: target.written.segment, offset: target.written.offset, records: target.written.records)
        } catch {
            shared.fail(error)
            // What the failed sync covered may be anywhere; the next opening begins another segment.
            try? state.update { $0.isDistrusted = true }
            throw error
        }
        shared.publish(durable: target.written)
        return target.written
    }
}
