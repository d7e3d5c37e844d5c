package import BridgeCore

/// Takes down what was made for a migration, on both sides, so that nothing of it is left: after it was completed, or
/// cancelled. Every step is idempotent; killed anywhere, it is done again from the beginning.
///
/// Intent first, in the ledger and in a file that outlives it. Then the links' records, by which whoever keeps the links at
/// work ends them; the captures, once nobody uses them; what the cutover made, last of all the ledger itself.
package struct Teardown: Sendable {
    package enum Step: String, Sendable, CaseIterable {
        case intent
        case endLinks = "end_links"
        case removeCaptures = "remove_captures"
        /// Only where old tables are to be renamed. The source's fence stands yet, so that no client that was left behind
        /// writes in between.
        case renameOldTables = "rename_old_tables"
        case removeCutover = "remove_cutover"
        case removeFiles = "remove_files"
    }

    /// The steps that such an end has.
    package static func steps(completed: Bool, _ oldTables: OldTables) -> [Step] {
        Step.allCases.filter { $0 != .renameOldTables || completed && oldTables == .rename }
    }

    private let setup: CutoverSetup
    private let parts: any TeardownParts
    private let observe: @Sendable (Step, Duration?) -> Void

    /// - Parameter observe: told when a step begins, without a time, and when it is done.
    package init(
        _ setup: CutoverSetup, _ parts: any TeardownParts, observe: @escaping @Sendable (Step, Duration?) -> Void
    ) {
        self.setup = setup
        self.parts = parts
        self.observe = observe
    }

    /// - Parameters:
    ///   - completed: false for a migration that is cancelled.
    ///   - ledger: as it stands; nil if an earlier run has removed it already.
    package func run(completed: Bool, ledger: Ledger?) async throws(BridgeError) {
        let renames = Self.steps(completed: completed, setup.oldTables).contains(.renameOldTables)
        let oldTables = renames ? try setup.renamedTables() : []
        // What is begun is to be finished: what stands in a name's way is found before.
        if renames, let ledger, ledger.isClosing == nil { try await setup.source.rename(oldTables, isTrial: true) }
        try await perform(.intent) { () async throws(BridgeError) in
            try await parts.archive(ledger?.entries ?? [], completed: completed)
            if let ledger, ledger.isClosing == nil {
                try await setup.records.append(ledger.entry(.closing(completed: completed), attempt: ""), owner: setup.owner)
            }
        }
        try await perform(.endLinks) { () async throws(BridgeError) in
            try await parts.removeLink(.forward)
            try await parts.removeLink(.reverse)
        }
        try await perform(.removeCaptures) { () async throws(BridgeError) in
            try await removeCapture(.forward)
            try await removeCapture(.reverse)
        }
        if renames {
            try await perform(.renameOldTables) { () async throws(BridgeError) in
                try await setup.source.rename(oldTables, isTrial: false)
            }
        }
        try await perform(.removeCutover) { () async throws(BridgeError) in
            // The target has the ledger: as long as it is there, this is done again.
            try await setup.source.removeAll()
            try await setup.target.removeAll()
        }
        try await perform(.removeFiles) { () async throws(BridgeError) in try await parts.removeFiles() }
    }

    /// A capture that is in use is waited for: the link that uses it has lost its records, and ends.
    private func removeCapture(_ direction: LinkDescription.Direction) async throws(BridgeError) {
        let deadline = ContinuousClock.now + setup.limits.timeout
        while true {
            do throws(BridgeError) { return try await parts.removeCapture(direction) } catch where error.retry == .backoff {
                guard ContinuousClock.now < deadline else { throw error }
                try? await Task.sleep(for: .milliseconds(100))
            }
        }
    }

    private func perform(_ step: Step, _ body: () async throws(BridgeError) -> Void) async throws(BridgeError) {
        observe(step, nil)
        let began = ContinuousClock.now
        try await body()
        observe(step, ContinuousClock.now - began)
        try Failpoint.afterTeardown(step).hit()
    }
}

extension CutoverSetup {
    /// The source's tables with their new names.
    package func renamedTables() throws(BridgeError) -> [OldTable] {
        try OldTable.all(services.flatMap(\.tables).map(\.source), migration: migration)
    }
}

/// What a teardown needs done by the rest of the product. Nothing there is never an error.
package protocol TeardownParts: Sendable {
    /// Keeps the ledger where it outlives the databases' records.
    func archive(_ entries: [LedgerEntry], completed: Bool) async throws(BridgeError)
    /// Removes what a link's target holds of it.
    func removeLink(_ direction: LinkDescription.Direction) async throws(BridgeError)
    /// Removes what a link's source holds of it.
    func removeCapture(_ direction: LinkDescription.Direction) async throws(BridgeError)
    /// Removes journals and the states of checks.
    func removeFiles() async throws(BridgeError)
}

extension Failpoint {
    /// The step of the teardown is done, and the next has not begun.
    package static func afterTeardown(_ step: Teardown.Step) -> Failpoint { Failpoint("cutover.teardown-\(step.rawValue)") }

    /// Every failpoint that only a cutover's verbs pass.
    package static let ofCutover =
        [.cutoverBegun] + Step.allCases.flatMap { [beforeStep($0), afterStep($0)] } + Teardown.Step.allCases.map(afterTeardown)
}
