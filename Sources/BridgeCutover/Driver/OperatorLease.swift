import BridgeCore

/// The right to change where the application is: one operator at a time. It is renewed until it is released; once it is
/// lost, no entry of the ledger is accepted any more, and without one no step that matters is taken.
actor OperatorLease {
    static let length = Duration.seconds(30)

    private let records: any CutoverSession
    private let owner: String
    private var renewing: Task<Void, Never>?

    private let isOwnerGone: @Sendable (String) -> Bool

    init(_ records: any CutoverSession, owner: String, isOwnerGone: @escaping @Sendable (String) -> Bool) {
        self.isOwnerGone = isOwnerGone
        self.records = records
        self.owner = owner
    }

    /// - Throws: `alreadyRunning`, naming the holder.
    func take() async throws(BridgeError) {
        do throws(BridgeError) { try await records.takeLease(owner: owner, lasting: Self.length) } catch where error.code == .alreadyRunning {
            let names = error.context.filter { $0.key == .processes }
            guard let holder = names.last?.value, isOwnerGone(holder) else { throw error }
            try await records.releaseLease(owner: holder)
            try await records.takeLease(owner: owner, lasting: Self.length)
        }
        let (records, owner) = (records, owner)
        renewing = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: Self.length / 3)
                // A renewal that fails is tried again; an entry that is refused tells that it was too late.
                if !Task.isCancelled { try? await records.takeLease(owner: owner, lasting: Self.length) }
            }
        }
    }

    /// Lets it run out: to renew it would make anew what a teardown removes.
    func endRenewal() async {
        renewing?.cancel()
        await renewing?.value
        renewing = nil
    }

    func release() async {
        await endRenewal()
        // One that cannot be released ends by itself.
        try? await records.releaseLease(owner: owner)
    }
}
