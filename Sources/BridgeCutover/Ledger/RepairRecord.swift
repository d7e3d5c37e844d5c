package import BridgeCore

/// What a repair has to do with a cutover: as long as rows of the target are rewritten out of the source, no attempt may begin
/// that has the application write there; and the ledger tells of each table that was repaired.
package actor RepairRecord {
    private let records: any CutoverSession
    private let owner: String
    private let lease: OperatorLease

    /// - Parameters:
    ///   - records: of the target; closed by ``end()``.
    ///   - owner: a name for the operator's lease, different for each process.
    ///   - isOwnerGone: whether the process of another name has ended for certain.
    package init(_ records: any CutoverSession, owner: String, isOwnerGone: @escaping @Sendable (String) -> Bool) {
        self.records = records
        self.owner = owner
        lease = OperatorLease(records, owner: owner, isOwnerGone: isOwnerGone)
    }

    /// Takes the operator's lease.
    /// - Throws: `alreadyRunning` while a verb of the cutover is at work.
    package func begin() async throws(BridgeError) { try await lease.take() }

    /// Writes down how many rows of which of the target's tables were rewritten.
    /// - Throws: `leaseLost`; `ledgerDiverged`.
    package func add(_ tables: [(name: String, rows: Int64)]) async throws(BridgeError) {
        guard !tables.isEmpty else { return }
        var ledger = try Ledger(try await records.ledger())
        for table in tables {
            let entry = ledger.entry(.repaired(table: table.name, rows: table.rows), attempt: "")
            try await records.append(entry, owner: owner)
            try ledger.append(entry)
        }
    }

    /// Gives the lease back.
    package func end() async {
        await lease.release()
        await records.close()
    }
}
