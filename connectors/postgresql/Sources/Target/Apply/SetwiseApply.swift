import BridgeCore
import CLibPQ

/// Applying a run by the net effect on each key: staged by COPY, then one statement for all rows of a kind.
///
/// All statements and streams of a run go to the server as one query, so that a run costs one exchange whatever it
/// holds. Each statement must hit exactly as many rows as were staged for it.
extension ApplySession {
    private enum Step {
        case plain
        /// The statement must hit this many rows.
        case counted(RelationPlan, Int64)
        case stage(RelationPlan, RelationEffects)
        case insert(RelationPlan, RelationEffects, Int64)
    }

    private struct Script {
        var sql = ""
        var steps: [Step] = []

        mutating func add(_ statement: String, _ step: Step = .plain) {
            if !sql.isEmpty { sql += "; " }
            sql += statement
            steps.append(step)
        }
    }

    /// How many rows of each kind a table's effects hold.
    private struct Counts {
        var deletes: Int64 = 0
        var voids: Int64 = 0
        var inserts: Int64 = 0
        /// By number of the set of left-out columns.
        var updates: [Int64]
        var removes: Int64 = 0
        var upserts: Int64 = 0

        init(_ effects: RelationEffects) {
            updates = [Int64](repeating: 0, count: effects.groups.count)
            for index in effects.table.entries.indices {
                let entry = effects.table.entries[index]
                if entry.flags.contains(.isStateOnly) {
                    if entry.flags.contains(.isLive) { upserts += 1 } else { removes += 1 }
                } else {
                    if entry.isDelete { deletes += 1 }
                    if entry.isVoid { voids += 1 }
                    if entry.isUpdate { updates[Int(entry.group)] += 1 }
                    if entry.isInsert { inserts += 1 }
                }
            }
            inserts += Int64(effects.keylessInserts.count)
        }

        var updated: Int64 { updates.reduce(0, +) }
        var staged: Int64 { deletes + voids + updated + removes + upserts }
    }

    /// Applies tables of the run by their net effect.
    ///
    /// Where the server has refused what is written to a table, all its touched rows are taken out before any is written.
    /// Rows that are updated are held meanwhile, with the values that the source left out and those of the target's own
    /// columns.
    ///
    /// Where it has refused upserts, all touched keys are removed, and with
    /// them every row that holds a unique value which one of them takes. That is sound because only sources that state
    /// the rows of one consistent picture write upserts. Two rows of the picture never hold the same unique value; so a
    /// row on the target that is in the way, and was not touched in this run, is in another state on the source, and its
    /// own record follows before the transaction is committed.
    func applySetwise(_ run: Run, _ group: [Run.Table]) throws(BridgeError) {
        var script = Script()
        for statement in beginStatements() { script.add(statement) }
        let dirty = plans.values.filter(\.isStageDirty).map { $0.statements.stage }
        if !dirty.isEmpty { script.add("TRUNCATE \(dirty.joined(separator: ", "))") }
        let tables = group.map { ($0.plan, $0.effects, Counts($0.effects)) }
        for (plan, _, counts) in tables where counts.staged > 0 && !plan.hasStage {
            script.add(plan.statements.createStage)
        }
        for (plan, effects, counts) in tables where effects.needsReplacing && counts.updated > 0 {
            script.add(plan.statements.createHeld)
            script.add(plan.statements.emptyHeld)
        }
        script.add("SET LOCAL enable_seqscan = on")
        script.add("SAVEPOINT bridge")
        for (plan, effects, counts) in tables { add(plan, effects, counts, to: &script) }
        for plan in plans.values { plan.isStageDirty = false }
        for (plan, _, counts) in tables where counts.staged > 0 {
            plan.hasStage = true
            plan.isStageDirty = true
        }
        hasSavepoint = true
        try perform(script, run)
    }

    private func add(
        _ plan: RelationPlan, _ effects: RelationEffects, _ counts: Counts, to script: inout Script
    ) {
        let statements = plan.statements
        if counts.staged > 0 { script.add(statements.copyToStage, .stage(plan, effects)) }
        // A row in the way of one that came and went is as much a conflict as one in the way of a row that stays.
        if counts.voids > 0 { script.add(statements.findStaged(group: -1), .counted(plan, 0)) }
        if counts.deletes > 0 { script.add(statements.deleteStaged(group: 0), .counted(plan, counts.deletes)) }
        if effects.needsReplacing, counts.updated > 0 {
            // Of rows that pass values on among themselves none may stand in another's way.
            script.add(statements.holdStaged, .counted(plan, counts.updated))
            // What is held has no index.
            script.add("SET LOCAL enable_hashjoin = on")
            script.add("SET LOCAL enable_mergejoin = on")
        }
        for (group, count) in counts.updates.enumerated() where count > 0 {
            if effects.needsReplacing {
                script.add(
                    statements.insertHeld(group: group + 1, leftOut: effects.groups[group]), .counted(plan, count))
                continue
            }
            script.add(
                statements.updateStaged(group: group + 1, leftOut: effects.groups[group]), .counted(plan, count))
        }
        if effects.needsReplacing, counts.updated > 0 {
            script.add("SET LOCAL enable_hashjoin = off")
            script.add("SET LOCAL enable_mergejoin = off")
        }
        if counts.inserts > 0 { script.add(statements.copyToTable, .insert(plan, effects, counts.inserts)) }
        guard effects.isStateOnly else { return }
        if effects.needsReplacing {
            if counts.removes + counts.upserts > 0 { script.add(statements.deleteAllStaged) }
            guard counts.upserts > 0 else { return }
            for index in plan.table.uniqueIndexes where !index.isPrimary {
                script.add(statements.deleteHolders(of: index, group: 1))
            }
            script.add(statements.insertStaged(group: 1), .counted(plan, counts.upserts))
        } else {
            if counts.removes > 0 { script.add(statements.deleteStaged(group: 0)) }
            if counts.upserts > 0 { script.add(statements.upsertStaged(group: 1)) }
        }
    }

    // MARK: Running

    private func perform(_ script: Script, _ run: Run) throws(BridgeError) {
        try connection.checkInterrupt()
        guard PQsendQuery(connection.raw, script.sql) == 1 else { throw connection.connectionError(during: "applying") }
        var failure: BridgeError?
        refusedPlan = nil
        var step = 0
        var cancelledAt: ContinuousClock.Instant?
        while let result = try connection.nextResult(&cancelledAt, during: "applying changes") {
            // After the first failure the server says nothing more, and what is left is only taken off the line.
            let current = step < script.steps.count ? script.steps[step] : .plain
            switch result.status {
            case PGRES_COPY_IN:
                do throws(BridgeError) {
                    if failure == nil { try stream(current, run) }
                    try connection.finishStream(nil)
                } catch {
                    if failure == nil { refusedPlan = Self.plan(current) }
                    failure = failure ?? error
                    if connection.isBroken { throw error }
                    try connection.finishStream("the rows cannot be written")
                }
                continue
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK:
                step += 1
                guard failure == nil, let (plan, expected) = Self.expectation(current), result.affectedRows != expected
                else { continue }
                refusedPlan = plan
                failure = BridgeError(
                    .conflict, "the target does not have the rows that the source changed",
                    context: [.init(.table, plan.table.name.description)])
            default:
                let error = connection.error(in: result, wasCancelled: cancelledAt != nil, during: "applying changes")
                if failure == nil { refusedPlan = Self.plan(current) }
                failure = failure ?? locate(error, Self.plan(current), at: nil)
            }
        }
        if let failure { throw failure }
    }

    private static func expectation(_ step: Step) -> (RelationPlan, Int64)? {
        switch step {
        case .counted(let plan, let count), .insert(let plan, _, let count): (plan, count)
        case .plain, .stage: nil
        }
    }

    private static func plan(_ step: Step) -> RelationPlan? {
        switch step {
        case .counted(let plan, _), .insert(let plan, _, _), .stage(let plan, _): plan
        case .plain: nil
        }
    }

    // MARK: Streams

    private func stream(_ step: Step, _ run: Run) throws(BridgeError) {
        scratch.removeAll()
        switch step {
        case .stage(let plan, let effects): try streamStage(plan, effects, run)
        case .insert(let plan, let effects, _): try streamInserts(plan, effects, run)
        case .plain, .counted: throw BridgeError(.internalFault, "the server asks for rows that nobody announced")
        }
        try connection.writeCopy(scratch.bytes)
        scratch.removeAll()
    }

    private func flushScratch() throws(BridgeError) {
        guard scratch.count >= 128 << 10 else { return }
        try connection.writeCopy(scratch.bytes)
        scratch.removeAll()
    }

    private func streamStage(_ plan: RelationPlan, _ effects: RelationEffects, _ run: Run) throws(BridgeError) {
        for index in effects.table.entries.indices {
            let entry = effects.table.entries[index]
            let isState = entry.flags.contains(.isStateOnly)
            if isState ? !entry.flags.contains(.isLive) : entry.isDelete {
                scratch.append(UInt8(ascii: "0"))
                try appendKey(plan, effects, index)
            } else if entry.isVoid {
                scratch.appendDecimal(-1)
                try appendKey(plan, effects, index)
            } else if isState || entry.isUpdate {
                scratch.appendDecimal(Int64(entry.group) + 1)
                try appendRow(plan, effects, entry.image, run, isWhole: isState, leadingSeparator: true)
            } else {
                continue
            }
            scratch.appendCopyRowEnd()
            try flushScratch()
        }
    }

    private func streamInserts(_ plan: RelationPlan, _ effects: RelationEffects, _ run: Run) throws(BridgeError) {
        for index in effects.table.entries.indices {
            let entry = effects.table.entries[index]
            guard !entry.flags.contains(.isStateOnly), entry.isInsert else { continue }
            try appendRow(plan, effects, entry.image, run, isWhole: true, leadingSeparator: false)
            scratch.appendCopyRowEnd()
            try flushScratch()
        }
        for offset in effects.keylessInserts {
            let image = ImageReference(offset: offset, isMerged: false)
            try appendRow(plan, effects, image, run, isWhole: true, leadingSeparator: false)
            scratch.appendCopyRowEnd()
            try flushScratch()
        }
    }

    /// A key that goes: values in the key's columns, NULL in all others.
    private func appendKey(_ plan: RelationPlan, _ effects: RelationEffects, _ index: Int) throws(BridgeError) {
        var reader = ByteReader(effects.table.key(index))
        for column in plan.columns {
            scratch.appendCopySeparator()
            if column.isKey {
                let cell = try RelationEffects.readCell(&reader)
                try encode(cell, column, plan, nil)
            } else {
                scratch.appendCopyNull()
            }
        }
    }

    /// - Parameter isWhole: whether every column must have a value; otherwise those left out are written as NULL, which
    ///   the statement for their group does not look at.
    private func appendRow(
        _ plan: RelationPlan, _ effects: RelationEffects, _ reference: ImageReference, _ run: Run, isWhole: Bool,
        leadingSeparator: Bool
    ) throws(BridgeError) {
        var cells = try effects.image(reference, run.bytes).cells
        var needsSeparator = leadingSeparator
        for target in plan.columnOfImage {
            guard let cell = try cells.next() else { throw RelationEffects.malformed() }
            guard target >= 0 else { continue }
            if needsSeparator { scratch.appendCopySeparator() }
            needsSeparator = true
            switch cell.tag {
            case .null: scratch.appendCopyNull()
            case .unchanged where !isWhole: scratch.appendCopyNull()
            default: try encode(cell, plan.columns[target], plan, reference.isMerged ? nil : reference.offset)
            }
        }
    }

    @inline(__always)
    private func encode(
        _ cell: Cell, _ column: RelationPlan.Column, _ plan: RelationPlan, _ offset: Int?
    ) throws(BridgeError) {
        do throws(CellRefusal) {
            try CellEncoder.append(cell, as: column.type, style: .copy, to: scratch)
        } catch {
            throw refusal(error, column, plan, offset)
        }
    }

    func refusal(
        _ refusal: CellRefusal, _ column: RelationPlan.Column, _ plan: RelationPlan, _ offset: Int?
    ) -> BridgeError {
        let error = BridgeError(
            refusal == .missing ? .valueMissing : .valueDoesNotFit, refusal.message,
            context: [.init(.table, plan.table.name.description), .init(.column, column.name)])
        return locate(error, nil, at: offset)
    }
}

extension PostgresConnection {
    /// Ends the stream that the server is reading, with its rows or giving up. Results follow.
    func finishStream(_ reason: String?) throws(BridgeError) {
        while true {
            let result = reason.map { PQputCopyEnd(raw, $0) } ?? PQputCopyEnd(raw, nil)
            if result == 1 { break }
            guard result == 0 else { throw connectionError(during: "sending rows") }
            try flush()
        }
    }

    /// Leaves pipeline mode, whatever is still on the way. What was sent without a sync is carried out by the one that
    /// is sent here, so it must stand in an open transaction, which the caller then rolls back.
    func leavePipeline() {
        guard PQpipelineStatus(raw) != PQ_PIPELINE_OFF, PQexitPipelineMode(raw) == 0 else { return }
        guard !isBroken, PQpipelineSync(raw) == 1 else { return }
        var cancelledAt: ContinuousClock.Instant?
        // Each command's results end with nil; two in a row say that nothing is on its way any more.
        var nils = 0
        while nils < 2, !isBroken {
            do throws(BridgeError) {
                guard let result = try nextResult(&cancelledAt, during: "applying changes") else {
                    nils += 1
                    continue
                }
                nils = 0
                if result.status == PGRES_PIPELINE_SYNC, PQexitPipelineMode(raw) == 1 { return }
            } catch { return }
        }
        _ = PQexitPipelineMode(raw)
    }
}
