import BridgeCore

/// Writes the ledger, one entry after the other, without anybody having to wait for it: within the pause every commit
/// counts. What must be in the database before a step is waited for with ``flush()``.
actor LedgerWriter {
    private let records: any CutoverSession
    private let owner: String
    private(set) var ledger: Ledger
    private var waiting: [LedgerEntry] = []
    private var isWriting = false
    private var failure: BridgeError?
    private var idlers: [CheckedContinuation<Void, Never>] = []

    init(_ ledger: Ledger, _ records: any CutoverSession, owner: String) {
        self.ledger = ledger
        self.records = records
        self.owner = owner
    }

    /// Adds an entry. It counts at once for whoever asks ``ledger``, and is written soon.
    func post(_ event: LedgerEvent, attempt: String) throws(BridgeError) {
        if let failure { throw failure }
        let entry = ledger.entry(event, attempt: attempt)
        try ledger.append(entry)
        waiting.append(entry)
        guard !isWriting else { return }
        isWriting = true
        Task { await self.write() }
    }

    /// Adds an entry that is in the database when this returns.
    func add(_ event: LedgerEvent, attempt: String) async throws(BridgeError) {
        try post(event, attempt: attempt)
        try await flush()
    }

    /// Waits until all that was added is in the database.
    func flush() async throws(BridgeError) {
        while isWriting { await withCheckedContinuation { idlers.append($0) } }
        if let failure { throw failure }
    }

    /// After a failure: what the database has is what there is.
    func reread() async throws(BridgeError) {
        while isWriting { await withCheckedContinuation { idlers.append($0) } }
        ledger = try Ledger(try await records.ledger())
        failure = nil
    }

    private func write() async {
        while let entry = waiting.first {
            do throws(BridgeError) { try await records.append(entry, owner: owner) } catch {
                failure = error
                waiting.removeAll()
                break
            }
            waiting.removeFirst()
        }
        isWriting = false
        let idlers = idlers
        self.idlers = []
        for idler in idlers { idler.resume() }
    }
}
