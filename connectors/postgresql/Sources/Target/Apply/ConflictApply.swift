import BridgeCore
import CLibPQ

/// Going on after a change that the target's data contradicts, where the policy says so, and finding the one change that the
/// server refuses where many were written at once. Both go change by change, each in a savepoint of its own.
extension ApplySession {
    /// Writes what is to be said of conflicts, in the transaction that goes past them.
    func record(_ records: [ConflictRecord]) throws(BridgeError) {
        let due = records.filter { Position(commit: $0.position.commit) >= resumedAt }
        guard !due.isEmpty else { return }
        try connection.execute((beginStatements() + ConflictTable.insert(link, due)).joined(separator: "; "))
    }

    /// Applies a piece of a run and resolves the conflicts in it.
    func applyResolving(_ run: Run, _ exact: Set<Int>, from start: Int, to end: Int) throws(BridgeError) {
        var cursor = RecordCursor(run.bytes, offset: start)
        while cursor.offset < end, let record = try cursor.next() {
            guard let (change, plan) = try rowChange(record), exact.contains(plan.number) else { continue }
            try connection.execute("SAVEPOINT bridge_change")
            do throws(BridgeError) {
                try perform(change, plan, offset: record.offset)
            } catch {
                guard let kind = error.conflictKind, !connection.isBroken else { throw error }
                try undoChange()
                let outcome = try resolve(kind, change, plan, offset: record.offset, error)
                let place = self.change(at: record.offset)
                conflicts.append(
                    ConflictRecord(
                        position: place.position, commitTime: place.commitTime, table: plan.table.name.description,
                        change: String(describing: change.kind), reason: kind.rawValue, outcome: outcome,
                        key: try change.keyText(plan.relation)))
            }
            try connection.execute("RELEASE SAVEPOINT bridge_change")
        }
    }

    private func undoChange() throws(BridgeError) { try connection.execute("ROLLBACK TO SAVEPOINT bridge_change") }

    /// Does what the policy says instead of the change, of which nothing has happened.
    /// - Throws: the conflict where the policy cannot go on without a guess, or without a row that the change does not name.
    private func resolve(
        _ kind: ConflictKind, _ change: RowChange, _ plan: RelationPlan, offset: Int, _ error: BridgeError
    ) throws(BridgeError) -> ConflictRecord.Outcome {
        if policy == .skip { return .skipped }
        let row = try filled(change, plan)
        switch kind {
        case .deleteFoundNoRow: break
        case .updateFoundNoRow:
            guard isWhole(row, plan) else { throw error }
            try insertOrReplace(row, plan, offset)
        case .insertFoundRow: try replace(row, plan, offset, error)
        case .keyTaken: try takeKey(row, change, plan, offset, error)
        case .uniqueValueTaken:
            // A partition's constraint goes by a name that does not tell whether it is the key's.
            guard plan.table.isPartitioned, case .uniqueKey = plan.identification else { throw error }
            if change.kind == .insert {
                try replace(row, plan, offset, error)
            } else if change.kind == .update, try givesOtherKey(row, change, plan) {
                try takeKey(row, change, plan, offset, error)
            } else {
                throw error
            }
        }
        return .overwritten
    }

    /// Makes the row that has the new row's key like it. Columns that only the target has keep their values.
    private func replace(
        _ row: ContiguousArray<Cell>, _ plan: RelationPlan, _ offset: Int, _ conflict: BridgeError
    ) throws(BridgeError) {
        do throws(BridgeError) { try perform(.replace, .update, row, plan, offset) } catch {
            // The row is there, but it is not the link's.
            throw error.hasFoundNothing ? conflict : error
        }
    }

    private func insertOrReplace(_ row: ContiguousArray<Cell>, _ plan: RelationPlan, _ offset: Int) throws(BridgeError) {
        do throws(BridgeError) { try perform(.insert, .insert, row, plan, offset) } catch {
            let mayBeKey = error.conflictKind == .uniqueValueTaken && plan.table.isPartitioned
            guard error.conflictKind == .insertFoundRow || mayBeKey, !connection.isBroken else { throw error }
            // The change gives the row another key, and that is taken.
            try undoChange()
            try replace(row, plan, offset, error)
        }
    }

    /// Whether an update moves its row to another key. Under REPLICA IDENTITY FULL every update brings the old row, and the row
    /// with the new key is then its own.
    private func givesOtherKey(
        _ row: ContiguousArray<Cell>, _ change: RowChange, _ plan: RelationPlan
    ) throws(BridgeError) -> Bool {
        guard let old = change.old else { return false }
        var before = ContiguousArray<Cell>()
        try Self.read(old, plan, into: &before)
        guard before.count == row.count else { throw RelationEffects.malformed() }
        return plan.columns.contains { $0.isKey && !Self.isSame(row[$0.imageIndex], before[$0.imageIndex]) }
    }

    /// Removes the row that has the key which the change gives to another: the change names both, and the source had no such
    /// row. Then the change is applied.
    private func takeKey(
        _ row: ContiguousArray<Cell>, _ change: RowChange, _ plan: RelationPlan, _ offset: Int, _ conflict: BridgeError
    ) throws(BridgeError) {
        guard plan.columns.allSatisfy({ !$0.isKey || row[$0.imageIndex].tag.hasBytes }) else { throw conflict }
        do throws(BridgeError) { try perform(.deleteTaken, .delete, row, plan, offset) } catch {
            throw error.hasFoundNothing ? conflict : error
        }
        try perform(change, plan, offset: offset)
    }

    // MARK: One change

    private func perform(_ change: RowChange, _ plan: RelationPlan, offset: Int) throws(BridgeError) {
        var pipeline = Pipeline()
        guard PQenterPipelineMode(connection.raw) == 1 else { throw connection.connectionError(during: "applying") }
        defer { connection.leavePipeline() }
        try send(change, plan, offset: offset, isChecked: false, &pipeline)
        try drain(&pipeline)
    }

    /// Performs a statement with a row that is not the change's own.
    private func perform(
        _ kind: StatementKey.Kind, _ recordKind: RecordKind, _ row: ContiguousArray<Cell>, _ plan: RelationPlan, _ offset: Int
    ) throws(BridgeError) {
        var pipeline = Pipeline()
        pipeline.newCells = row
        let none = [UInt64](repeating: 0, count: plan.relation.columns.count / 64 + 1)
        let key = StatementKey(plan: plan.number, kind: kind, isChecked: false, leftOut: none, oldNulls: none)
        guard PQenterPipelineMode(connection.raw) == 1 else { throw connection.connectionError(during: "applying") }
        defer { connection.leavePipeline() }
        try send(key, plan, offset: offset, hasOld: false, recordKind, &pipeline)
        try drain(&pipeline)
    }

    /// The cells of the new row, those that the source left out taken from the old one where that has them.
    private func filled(_ change: RowChange, _ plan: RelationPlan) throws(BridgeError) -> ContiguousArray<Cell> {
        var row = ContiguousArray<Cell>()
        try Self.read(change.new, plan, into: &row)
        guard !row.isEmpty, let old = change.old else { return row }
        var cells = old.cells
        for index in row.indices {
            guard let cell = try cells.next() else { throw RelationEffects.malformed() }
            guard row[index].tag == .unchanged else { continue }
            let isTold = change.oldKind == .full || plan.relation.columns[index].isKey
            if isTold, cell.tag.hasBytes || (cell.tag == .null && change.oldKind == .full) { row[index] = cell }
        }
        return row
    }

    private func isWhole(_ row: ContiguousArray<Cell>, _ plan: RelationPlan) -> Bool {
        plan.columns.allSatisfy { row[$0.imageIndex].tag.hasBytes || row[$0.imageIndex].tag == .null }
    }

    // MARK: Finding one change

    /// Names the change that the server refuses, of a table whose source states how rows end. Written at once they only tell
    /// that one is refused, and one by one they meet unique values that a later one frees, so those are passed over here.
    /// Nothing of it stays: the transaction is rolled back after it.
    func refusedState(_ run: Run, _ error: BridgeError) throws(BridgeError) -> BridgeError {
        guard error.isOfChange, error.changePosition == nil, let plan = refusedPlan,
            let effects = run.tables.first(where: { $0.plan === plan })?.effects, effects.isStateOnly
        else { return error }
        // Only the last state of a key is written.
        let written = Set(
            effects.table.entries.indices.compactMap { index in
                let entry = effects.table.entries[index]
                return entry.flags.contains(.isLive) && !entry.image.isMerged ? entry.image.offset : nil
            })
        try connection.execute("SET LOCAL enable_seqscan = off")
        var cursor = RecordCursor(run.bytes, offset: run.start)
        while cursor.offset < run.end, let record = try cursor.next() {
            guard let (change, its) = try rowChange(record), its === plan else { continue }
            if let image = change.new, !written.contains(RelationEffects.offset(of: image, in: run.bytes)) { continue }
            try connection.execute("SAVEPOINT bridge_change")
            do throws(BridgeError) {
                try perform(change, plan, offset: record.offset)
            } catch {
                guard error.code == .conflict, !connection.isBroken else { return error }
                try undoChange()
            }
            try connection.execute("RELEASE SAVEPOINT bridge_change")
        }
        return error
    }
}

extension BridgeError {
    fileprivate var hasFoundNothing: Bool { conflictKind == .updateFoundNoRow || conflictKind == .deleteFoundNoRow }
}
