import BridgeCore
import CLibPQ

/// Applying a run change by change in source order, by prepared statements in a pipeline.
///
/// A pipeline is bounded: after so many bytes or statements it is ended by a sync and its results are read, so neither
/// side holds more than that, whatever the length of the run.
extension ApplySession {
    static let pipelineBytes = 256 << 10
    static let pipelineStatements = 256

    /// What a result on its way belongs to.
    enum Sent {
        case prepare(RelationPlan)
        case change(RelationPlan, offset: Int, RecordKind, setsKey: Bool)
        case plain
    }

    /// Applies the changes of those tables of the run that need the exact order.
    func applyExactly(_ run: Run) throws(BridgeError) {
        let exact = Set(run.tables.filter { $0.effects.needsExactOrder }.map { $0.plan.number })
        let begin = beginStatements() + ["SET LOCAL enable_seqscan = off"]
        try connection.execute(begin.joined(separator: "; "))
        if prepared.isFull {
            try connection.execute("DEALLOCATE ALL")
            prepared.forgetAll()
        }
        var offset = run.start
        while offset < run.end { offset = try applyPiece(run, exact, from: offset) }
        try record(conflicts)
        conflicts.removeAll()
    }

    /// Applies what fits one pipeline; under a policy that goes on after a conflict, inside a savepoint of its own.
    /// - Returns: where the next piece begins.
    private func applyPiece(_ run: Run, _ exact: Set<Int>, from start: Int) throws(BridgeError) -> Int {
        var end = start
        do throws(BridgeError) {
            try sendPiece(run, exact, from: start, &end)
        } catch {
            guard policy != .stop, error.conflictKind != nil, !connection.isBroken else { throw error }
            try connection.execute("ROLLBACK TO SAVEPOINT bridge_piece; RELEASE SAVEPOINT bridge_piece; DEALLOCATE ALL")
            prepared.forgetAll()
            try applyResolving(run, exact, from: start, to: end)
        }
        return end
    }

    private func sendPiece(
        _ run: Run, _ exact: Set<Int>, from start: Int, _ end: inout Int
    ) throws(BridgeError) {
        var pipeline = Pipeline()
        guard PQenterPipelineMode(connection.raw) == 1 else { throw connection.connectionError(during: "applying") }
        defer { connection.leavePipeline() }
        if policy != .stop { try sendPlain("SAVEPOINT bridge_piece", &pipeline) }
        var cursor = RecordCursor(run.bytes, offset: start)
        while cursor.offset < run.end, let record = try cursor.next() {
            end = cursor.offset
            guard let (change, plan) = try rowChange(record), exact.contains(plan.number) else { continue }
            do throws(BridgeError) {
                try send(change, plan, offset: record.offset, isChecked: false, &pipeline)
            } catch {
                // What is on its way comes first in the source's order, and so does what is wrong with it.
                if !connection.isBroken { try drain(&pipeline) }
                throw error
            }
            if pipeline.bytes >= Self.pipelineBytes || pipeline.sent.count >= Self.pipelineStatements { break }
        }
        try drain(&pipeline)
        guard policy != .stop else { return }
        // Not before every statement is known to have hit its row.
        try sendPlain("RELEASE SAVEPOINT bridge_piece", &pipeline)
        try drain(&pipeline)
    }

    /// Applies a whole small batch with its checkpoint in one exchange, from BEGIN to COMMIT. After an error the server
    /// passes over all that follows, the COMMIT too.
    /// - Returns: false if the server refused; nothing of it has happened then.
    func applySmall(_ run: Run, _ checkpoint: Checkpoint) throws(BridgeError) -> Bool {
        guard checkpoint.frontier >= committed.frontier, !prepared.isFull,
            !run.tables.contains(where: { $0.plan.touched != nil })
        else { return false }
        var pipeline = Pipeline()
        guard PQenterPipelineMode(connection.raw) == 1 else { throw connection.connectionError(during: "applying") }
        isOpen = true
        do throws(BridgeError) {
            defer { connection.leavePipeline() }
            try sendPlain("BEGIN", &pipeline)
            var cursor = RecordCursor(run.bytes, offset: run.start)
            while let record = try cursor.next() {
                guard let (change, plan) = try rowChange(record) else { continue }
                try send(change, plan, offset: record.offset, isChecked: true, &pipeline)
                // Whatever its rows are, a pipeline stays within a bound; larger ones go the other ways.
                if pipeline.bytes > Self.pipelineBytes * 4 { throw BridgeError(.serverRefused, "too large for one exchange") }
            }
            try sendShapeCheck(run.tables.map(\.plan), &pipeline)
            try sendCheckpoint(checkpoint, &pipeline)
            try Failpoint.applyBeforeCommit.hit()
            try sendPlain("COMMIT", &pipeline)
            try drain(&pipeline)
        } catch {
            if connection.isBroken || error.code == .connectionLost || error.code == .interrupted
                || error.code == .internalFault
            {
                throw error
            }
            // The slower ways find out what it was, name it, or get it right.
            rollback(keepingTransaction: transaction)
            return false
        }
        committedNow(checkpoint)
        return true
    }

    /// The change of a row record that is to be applied; nil for other records and for what is on the target already.
    func rowChange(_ record: RecordView) throws(BridgeError) -> (RowChange, RelationPlan)? {
        switch record.kind {
        case .insert, .update, .delete, .upsert, .remove: break
        default: return nil
        }
        let change = try RowChange(record)
        let position = position(at: record.offset)
        guard let plan = try plan(for: change.relation), position >= resumedAt else {
            return nil
        }
        return (change, plan)
    }

    // MARK: Sending

    struct Pipeline: ~Copyable {
        var sent: [Sent] = []
        var bytes = 0
        var parameters = ParameterList()
        /// For images of several tables, cells by column.
        var newCells = ContiguousArray<Cell>()
        var oldCells = ContiguousArray<Cell>()
    }

    func send(
        _ change: RowChange, _ plan: RelationPlan, offset: Int, isChecked: Bool, _ pipeline: inout Pipeline
    ) throws(BridgeError) {
        try Self.read(change.new, plan, into: &pipeline.newCells)
        try Self.read(change.old, plan, into: &pipeline.oldCells)
        let key = try statementKey(change, plan, offset: offset, isChecked: isChecked, &pipeline)
        // A key that stands in no old row stands in the new one.
        try send(key, plan, offset: offset, hasOld: change.old != nil, change.kind, &pipeline)
    }

    /// Sends a statement with the pipeline's cells.
    func send(
        _ key: StatementKey, _ plan: RelationPlan, offset: Int, hasOld: Bool, _ kind: RecordKind, _ pipeline: inout Pipeline
    ) throws(BridgeError) {
        let entry: PreparedStatements.Entry
        if let known = prepared.entry(for: key) {
            entry = known
        } else {
            var statement = statement(key, plan)
            if key.isChecked { statement.sql = Self.checked(statement.sql, key) }
            entry = prepared.add(key, statement)
            guard PQsendPrepare(connection.raw, entry.name, statement.sql, 0, nil) == 1 else {
                throw connection.connectionError(during: "applying")
            }
            pipeline.sent.append(.prepare(plan))
        }
        pipeline.parameters.removeAll()
        for parameter in entry.parameters {
            switch parameter {
            case .new(let column):
                let cell = pipeline.newCells[plan.columns[column].imageIndex]
                try append(cell, column, plan, offset, &pipeline)
            case .old(let column):
                let index = plan.columns[column].imageIndex
                try append(hasOld ? pipeline.oldCells[index] : pipeline.newCells[index], column, plan, offset, &pipeline)
            }
        }
        pipeline.bytes += pipeline.parameters.byteCount + 64
        let raw = connection.raw
        let sent = pipeline.parameters.withPointers { count, values in
            PQsendQueryPrepared(raw, entry.name, count, values, nil, nil, 0)
        }
        guard sent == 1 else { throw connection.connectionError(during: "applying") }
        pipeline.sent.append(.change(plan, offset: offset, kind, setsKey: key.kind == .update(setsKey: true)))
    }

    static func read(
        _ image: RowImage?, _ plan: RelationPlan, into cells: inout ContiguousArray<Cell>
    ) throws(BridgeError) {
        cells.removeAll(keepingCapacity: true)
        guard let image else { return }
        guard image.columnCount == plan.relation.columns.count else { throw RelationEffects.malformed() }
        var cursor = image.cells
        while let cell = try cursor.next() { cells.append(cell) }
    }

    private func append(
        _ cell: Cell, _ column: Int, _ plan: RelationPlan, _ offset: Int, _ pipeline: inout Pipeline
    ) throws(BridgeError) {
        guard cell.tag != .null else {
            pipeline.parameters.appendNull()
            return
        }
        do throws(CellRefusal) {
            try pipeline.parameters.append(cell, as: plan.columns[column].type)
        } catch {
            throw refusal(error, plan.columns[column], plan, offset)
        }
    }

    /// Which statement a change needs. Values that the source left out are taken from the whole old row where there is
    /// one, and are otherwise not set.
    private func statementKey(
        _ change: RowChange, _ plan: RelationPlan, offset: Int, isChecked: Bool, _ pipeline: inout Pipeline
    ) throws(BridgeError) -> StatementKey {
        let words = plan.relation.columns.count / 64 + 1
        var key = StatementKey(
            plan: plan.number, kind: .insert, isChecked: isChecked, leftOut: [UInt64](repeating: 0, count: words),
            oldNulls: [])
        switch change.kind {
        case .insert: return key
        case .upsert, .remove:
            guard case .uniqueKey = plan.identification else { throw unidentified(plan, offset) }
            key.kind = change.kind == .upsert ? .upsert : .remove
            return key
        default: break
        }
        if case .nothing = plan.identification { throw unidentified(plan, offset) }
        if case .wholeRow = plan.identification {
            guard change.oldKind == .full else { throw unidentified(plan, offset) }
            key.oldNulls = [UInt64](repeating: 0, count: words)
            for (index, cell) in pipeline.oldCells.enumerated() where cell.tag == .null { key.oldNulls.insert(column: index) }
        }
        guard change.kind == .update else {
            key.kind = .delete
            return key
        }
        var setsKey = false
        for column in plan.columns {
            let index = column.imageIndex
            if pipeline.newCells[index].tag == .unchanged, change.old != nil {
                let old = pipeline.oldCells[index]
                if old.tag.hasBytes && (change.oldKind == .full || column.isKey)
                    || (old.tag == .null && change.oldKind == .full)
                {
                    pipeline.newCells[index] = old
                }
            }
            if pipeline.newCells[index].tag == .unchanged { key.leftOut.insert(column: index) }
            if column.isKey, change.old != nil, !Self.isSame(pipeline.newCells[index], pipeline.oldCells[index]) {
                setsKey = true
            }
        }
        key.kind = .update(setsKey: setsKey)
        return key
    }

    static func isSame(_ a: Cell, _ b: Cell) -> Bool { a.tag == b.tag && a.bytes.elementsEqual(b.bytes) }

    private func unidentified(_ plan: RelationPlan, _ offset: Int) -> BridgeError {
        BridgeError(
            .changeRefused, "an update or delete does not say which row it means",
            context: [.init(.table, plan.relation.name.description)],
            hint: "give the source table a primary key or REPLICA IDENTITY FULL, then copy it again"
        ).at(change(at: offset).position)
    }

    private func statement(_ key: StatementKey, _ plan: RelationPlan) -> ApplyStatements.RowStatement {
        switch key.kind {
        // Rows that are not the link's are nobody's business here, whatever key they have.
        case .replace:
            plan.statements.updateRow(
                leftOut: key.leftOut, setsKey: plan.columns.contains { $0.isKey && $0.target.equality != .exact },
                identification: plan.identification, oldNulls: key.oldNulls, filter: mapping(for: plan.relation)?.targetFilter)
        case .deleteTaken:
            plan.statements.deleteRow(
                identification: plan.identification, oldNulls: key.oldNulls, filter: mapping(for: plan.relation)?.targetFilter)
        case .insert: plan.statements.insertRow
        case .upsert: plan.statements.upsertRow
        case .delete, .remove: plan.statements.deleteRow(identification: plan.identification, oldNulls: key.oldNulls)
        case .update(let setsKey):
            plan.statements.updateRow(
                leftOut: key.leftOut, setsKey: setsKey, identification: plan.identification, oldNulls: key.oldNulls)
        }
    }

    private static func checked(_ sql: String, _ key: StatementKey) -> String {
        // An upsert may do nothing, and a remove may find nothing.
        if key.kind == .upsert || key.kind == .remove { return sql }
        return ApplyStatements.checked(sql)
    }

    func sendPlain(_ sql: String, _ pipeline: inout Pipeline) throws(BridgeError) {
        guard PQsendQueryParams(connection.raw, sql, 0, nil, nil, nil, nil, 0) == 1 else {
            throw connection.connectionError(during: "applying")
        }
        pipeline.sent.append(.plain)
    }

    /// Behind all that is written, so that its locks keep the shape.
    private func sendShapeCheck(_ plans: [RelationPlan], _ pipeline: inout Pipeline) throws(BridgeError) {
        try send("bridge_shape", TargetShape.checkStatement, TargetShape.parameters(plans), &pipeline)
    }

    private func sendCheckpoint(_ checkpoint: Checkpoint, _ pipeline: inout Pipeline) throws(BridgeError) {
        try send(
            "bridge_checkpoint", ApplyStatements.checked(LinkRecords.checkpointStatement),
            LinkRecords.checkpointParameters(link, checkpoint), &pipeline)
    }

    /// Sends a statement that is no table's, and prepares it before if that was not done yet.
    private func send(
        _ name: String, _ sql: String, _ values: [String?], _ pipeline: inout Pipeline
    ) throws(BridgeError) {
        if prepared.common.insert(name).inserted {
            guard PQsendPrepare(connection.raw, name, sql, 0, nil) == 1 else {
                throw connection.connectionError(during: "applying")
            }
            pipeline.sent.append(.plain)
        }
        let sent = withCStrings(values) { pointers in
            PQsendQueryPrepared(connection.raw, name, Int32(clamping: values.count), pointers, nil, nil, 0)
        }
        guard sent == 1 else { throw connection.connectionError(during: "applying") }
        pipeline.sent.append(.plain)
    }

    // MARK: Receiving

    /// Ends the pipeline with a sync, and reads and checks its results.
    func drain(_ pipeline: inout Pipeline) throws(BridgeError) {
        guard !pipeline.sent.isEmpty else { return }
        guard PQpipelineSync(connection.raw) == 1 else { throw connection.connectionError(during: "applying") }
        var failure: BridgeError?
        var index = 0
        var cancelledAt: ContinuousClock.Instant?
        receiving: while true {
            guard let result = try connection.nextResult(&cancelledAt, during: "applying changes") else {
                // The end of one statement's results.
                index += 1
                if index > pipeline.sent.count { throw connection.connectionError(during: "applying changes") }
                continue
            }
            switch result.status {
            case PGRES_PIPELINE_SYNC: break receiving
            case PGRES_PIPELINE_ABORTED: break
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK:
                guard failure == nil, index < pipeline.sent.count, 
                    case .change(let plan, let offset, let kind, _) = pipeline.sent[index], kind != .upsert, kind != .remove,
                    result.affectedRows != 1
                else { continue }
                let conflict: ConflictKind = kind == .delete ? .deleteFoundNoRow : .updateFoundNoRow
                failure = BridgeError(conflict, table: plan.table.name.description).at(change(at: offset).position)
            default:
                guard failure == nil else { continue }
                let error = connection.error(in: result, wasCancelled: cancelledAt != nil, during: "applying changes")
                failure = index < pipeline.sent.count ? describe(error, pipeline.sent[index]) : error
            }
        }
        pipeline.sent.removeAll(keepingCapacity: true)
        pipeline.bytes = 0
        if let failure { throw failure }
    }

    private func describe(_ error: BridgeError, _ sent: Sent) -> BridgeError {
        switch sent {
        case .change(let plan, let offset, let kind, let setsKey):
            guard error.code == .conflict else { return locate(error, plan, at: offset) }
            let isOfKey = error.context.contains { $0.key == .detail && plan.isKeyConstraint($0.value) }
            let conflict: ConflictKind =
                switch kind {
                case .insert where isOfKey: .insertFoundRow
                case .update where isOfKey && setsKey: .keyTaken
                default: .uniqueValueTaken
                }
            let named = BridgeError(conflict, table: plan.table.name.description)
            // What the server said of the constraint helps to find the row.
            return error.context.reduce(named) { $0.adding($1.key, $1.value) }.at(change(at: offset).position)
        case .prepare(let plan): return locate(error, plan, at: nil)
        case .plain: return error
        }
    }
}

extension RelationPlan {
    /// Whether a server's words about a constraint mean the one by which changes name their rows. A partition's own index has
    /// another name, so where there is but one index it can be no other.
    fileprivate func isKeyConstraint(_ detail: String) -> Bool {
        guard identification == .uniqueKey, let index = table.uniqueIndex(on: columns.filter(\.isKey).map(\.name)) else {
            return false
        }
        return detail == "constraint \(index.name)" || (table.isPartitioned && table.uniqueIndexes.count == 1)
    }
}
