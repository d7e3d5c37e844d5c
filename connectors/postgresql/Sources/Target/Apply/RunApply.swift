import BridgeCore

/// Choosing the way that each table of a run is applied in.
extension ApplySession {
    /// Applies a run inside the open transaction, each table in the fastest way that is right. Tables do not depend on
    /// each other: in the replica role neither foreign keys nor ordinary triggers look from one to another.
    ///
    /// What the server refuses set-wise, held rows included, is halved between transactions until only those are left
    /// that are refused by themselves: one transaction's conflict must not send others into the exact order, in which rows
    /// cannot pass unique values on among themselves. Where much of a batch is refused, its transactions are tried
    /// one by one: so each costs a try or two, and not one more at each level.
    func apply(_ run: Run) throws(BridgeError) {
        let wasRefused = try applyNetEffects(run)
        let exact = run.tables.filter { $0.effects.needsExactOrder }
        guard !exact.isEmpty else { return }
        let borders = borders(in: run)
        guard wasRefused, !borders.isEmpty else { return try applyExactly(run) }
        halvings += 1
        let cuts = halvings <= Self.mostHalvings ? [borders[borders.count / 2]] : borders
        let plans = Set(exact.map { $0.plan.number })
        for (start, end) in zip([run.start] + cuts, cuts + [run.end]) {
            let piece = try piece(of: run, from: start, to: end, plans)
            if piece.rows > 0 { try apply(piece) }
        }
    }

    /// Applies the tables whose net effect can be told, and leaves out those of which the server refuses it.
    /// - Returns: whether there are such.
    private func applyNetEffects(_ run: Run) throws(BridgeError) -> Bool {
        var wasRefused = false
        var refusals = 0
        var groups = [run.tables]
        // Each refusal moves a table to a slower way, of which there are two.
        while let group = groups.popLast()?.filter({ !$0.effects.needsExactOrder }) {
            if group.isEmpty { continue }
            do throws(BridgeError) {
                try applySetwise(run, group)
            } catch {
                guard Self.isUndecided(error), !connection.isBroken, hasSavepoint else { throw error }
                try connection.execute("ROLLBACK TO SAVEPOINT bridge; RELEASE SAVEPOINT bridge")
                hasSavepoint = false
                refusals += 1
                do throws(BridgeError) { try slowDown(group, error) } catch {
                    throw try refusedState(run, error)
                }
                wasRefused = wasRefused || group.contains { $0.effects.needsExactOrder }
                // The trouble of some tables must not cost the others a try each.
                groups += refusals > 3 ? group.map { [$0] } : [group]
            }
        }
        return wasRefused
    }

    /// Chooses the next slower way for the table that the server refused; for all if that cannot be told.
    private func slowDown(_ group: [Run.Table], _ error: BridgeError) throws(BridgeError) {
        // Values that rows pass on among themselves clash in passing only.
        let isClash = error.sqlState == "23505" || error.sqlState == "23P01"
        var hasMoved = false
        for (plan, effects) in group where refusedPlan == nil || plan === refusedPlan {
            if effects.isStateOnly, effects.needsReplacing {
                if plan === refusedPlan { throw error }
                continue
            }
            hasMoved = true
            if effects.isStateOnly || (isClash && !effects.needsReplacing) {
                effects.needsReplacing = true
            } else {
                effects.needsExactOrder = true
            }
        }
        if !hasMoved { throw error }
    }

    /// Whether an error may come from merging and reordering alone, or wants the exact order to name its change.
    private static func isUndecided(_ error: BridgeError) -> Bool {
        switch error.code {
        case .conflict, .changeRefused, .valueDoesNotFit, .valueMissing: true
        default: error.sqlState == "21000" || error.sqlState == "22012"
        }
    }

    // MARK: Pieces

    /// Where a run can be cut between two transactions; empty if it holds but one.
    private func borders(in run: Run) -> [Int] {
        let first = firstTransaction(at: run.start + 1)
        let last = firstTransaction(at: run.end)
        return first < last ? transactionStarts[first..<last].map(\.offset) : []
    }

    /// A stretch of a run with what it does to some of its tables.
    private func piece(of run: Run, from start: Int, to end: Int, _ plans: Set<Int>) throws(BridgeError) -> Run {
        var piece = Run(bytes: run.bytes, start: start)
        piece.end = end
        var cursor = RecordCursor(run.bytes, offset: start)
        while cursor.offset < end, let record = try cursor.next() {
            guard let (change, plan) = try rowChange(record), plans.contains(plan.number) else { continue }
            piece.rows += 1
            try piece.effects(of: plan).note(change, in: run.bytes)
        }
        return piece
    }
}
