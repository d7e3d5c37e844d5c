import BridgeCore

/// The applier's work on its connection: which transaction is open, what has been staged, which statements are prepared.
/// Lives on the thread of ``PostgresApplier``.
///
/// A batch is cut into *runs* at truncates and at changes of a relation. Each table of a run is applied in one of three
/// ways:
/// - set-wise, by the net effect on each key;
/// - change by change in source order, where the net effect cannot be told or the server refused it;
/// - set-wise with all touched rows taken out before any is written, where the server refused the first way.
final class ApplySession {
    let link: LinkDescription
    let connection: PostgresConnection
    /// Transactions before it were applied before this session began: whoever cut the batches may have read the
    /// checkpoint while an earlier session was still committing.
    let resumedAt: Position
    private(set) var committed: Checkpoint

    /// Whether a transaction is open on the target.
    var isOpen = false
    /// Whether a savepoint of ours stands in it.
    var hasSavepoint = false
    var relations: [UInt32: Relation] = [:]
    var plans: [UInt32: RelationPlan] = [:]
    var planCount = 0
    var prepared = PreparedStatements()
    let scratch = RecordBuffer(capacity: 256 << 10)

    /// The source transaction that the walk is in, kept across batches that cut one.
    var transaction = Position.zero
    /// The table whose statement the server refused last; nil if that cannot be told.
    var refusedPlan: RelationPlan?
    /// What the open transaction wrote by. A plan stays here when its relation changes.
    var touched: [RelationPlan] = []
    /// Where in the batch which transaction begins.
    var transactionStarts: [(offset: Int, position: Position)] = []
    /// What is done with changes that the target's data contradicts.
    let policy: ConflictPolicy
    /// Of the batch at hand: its records, and where the source counts their changes.
    var batch = UnsafeRawBufferPointer(start: nil, count: 0)
    var locator = ChangeLocator(ChangePlaces())
    /// How often runs of the batch were halved.
    var halvings = 0
    static let mostHalvings = 64
    /// Conflicts of the batch that are to be recorded before its commit.
    var conflicts: [ConflictRecord] = []

    /// Batches up to this many rows go over change by change in one exchange: staging costs more than they do. (Server
    /// time for 40 rows of four tables: 0.8 ms this way, 1.3 ms staged; the two meet at about 80.)
    static let smallBatchRows = 64

    init(
        link: LinkDescription, connection: PostgresConnection, checkpoint: Checkpoint, policy: ConflictPolicy
    ) {
        self.link = link
        self.policy = policy
        self.connection = connection
        committed = checkpoint
        resumedAt = checkpoint.frontier
    }

    // MARK: Batches

    func apply(_ batch: ChangeBatch) throws(BridgeError) {
        // Where the session stands, for another go.
        let (known, started, before, isFirst) = (relations, transaction, committed, !isOpen)
        var attempts = 0
        while true {
            do throws(BridgeError) {
                return try applyOnce(batch)
            } catch {
                // A relation that came within the batch may have taken the place of a plan.
                let used = Array(plans.values) + touched
                rollback()
                attempts += 1
                // Whatever failed, a plan that is out of date may be why. Earlier batches of the transaction are gone with
                // it; the caller brings them again.
                guard let changed = changedTable(used) else { throw error }
                plans.removeAll()
                guard isFirst, committed == before, attempts < 3 else { throw TargetShape.error(changed) }
                relations = known
                transaction = started
            }
        }
    }

    private func changedTable(_ plans: [RelationPlan]) -> TableName? {
        guard !connection.isBroken, !plans.isEmpty else { return nil }
        return try? TargetShape.firstChanged(plans, connection)
    }

    private func applyOnce(_ batch: ChangeBatch) throws(BridgeError) {
        try Failpoint.applyBegin.hit()
        for (id, relation) in batch.relations { learn(id, relation) }
        locator = ChangeLocator(batch.places, fallback: transaction)
        self.batch = batch.records.bytes
        halvings = 0
        defer { self.batch = UnsafeRawBufferPointer(start: nil, count: 0) }
        try walk(batch)
        try record(batch.leftOut)
        guard let checkpoint = batch.checkpoint else {
            try Failpoint.applyPart.hit()
            return
        }
        try commit(checkpoint)
        try Failpoint.applyAfterCommit.hit()
    }

    /// Undoes everything since the last commit. Never fails: a connection that cannot do it is gone, and the server does.
    /// - Parameter position: the source transaction that the walk is in afterwards.
    func rollback(keepingTransaction position: Position = .zero) {
        hasSavepoint = false
        transaction = position
        conflicts.removeAll()
        prepared.forgetAll()
        for plan in plans.values {
            plan.hasStage = false
            plan.isStageDirty = false
        }
        touched.removeAll()
        guard !connection.isBroken else { return }
        connection.leavePipeline()
        if isOpen || connection.isInTransaction { try? connection.execute("ROLLBACK; DEALLOCATE ALL") }
        isOpen = false
    }

    private func learn(_ id: UInt32, _ relation: Relation) {
        guard relations[id] != relation else { return }
        relations[id] = relation
        plans[id] = nil
    }

    /// Goes through the batch's records, collects runs and applies them.
    private func walk(_ batch: ChangeBatch) throws(BridgeError) {
        let bytes = batch.records.bytes
        transactionStarts.removeAll(keepingCapacity: true)
        transactionStarts.append((0, transaction))
        var run = Run(bytes: bytes, start: 0)
        run.isWholeBatch = batch.checkpoint != nil && batch.leftOut.isEmpty
        var cursor = RecordCursor(bytes)
        var lastRelation: UInt32?
        var plan: RelationPlan?
        var effects: RelationEffects?
        while let record = try cursor.next() {
            switch record.kind {
            case .insert, .update, .delete, .upsert, .remove:
                let change = try RowChange(record)
                if change.relation != lastRelation {
                    lastRelation = change.relation
                    plan = try self.plan(for: change.relation)
                    effects = plan.map { run.effects(of: $0) }
                }
                guard let effects, transaction >= resumedAt else { continue }
                run.rows += 1
                try effects.note(change, in: bytes)
            case .begin:
                transaction = try record.transactionStart().position
                transactionStarts.append((record.offset, transaction))
            case .relation:
                let relation = try Relation(payload: record.payload)
                guard relations[relation.id] != relation else { continue }
                run.isWholeBatch = false
                try finish(&run, at: record.offset)
                learn(relation.id, relation)
                lastRelation = nil
            case .truncate:
                run.isWholeBatch = false
                try finish(&run, at: record.offset)
                try truncate(record)
                lastRelation = nil
            case .abandon:
                throw BridgeError(.internalFault, "an abandoned transaction was handed to the target")
            case .commit, .message, .frontier: break
            }
        }
        if run.isWholeBatch, let checkpoint = batch.checkpoint, run.rows > 0, run.rows <= Self.smallBatchRows, !isOpen {
            run.end = bytes.count
            if try applySmall(run, checkpoint) { return }
        }
        try finish(&run, at: bytes.count)
    }

    private func finish(_ run: inout Run, at offset: Int) throws(BridgeError) {
        run.end = offset
        if run.rows > 0 {
            try apply(run)
            try collectTouched(run)
        }
        run.begin(at: offset)
    }

    // MARK: Truncates

    /// One statement for all tables, since a table that others refer to cannot be emptied alone. CASCADE is not repeated:
    /// the source lists every table that it emptied, and on the target it could reach tables that are not the link's.
    /// Where only some rows are the link's, those are deleted.
    private func truncate(_ record: RecordView) throws(BridgeError) {
        let (options, ids) = try record.truncation()
        var tables: [String] = []
        var statements: [String] = []
        for id in ids {
            // A table that is not the link's was emptied beside one that is.
            guard let relation = relations[id], let mapping = mapping(for: relation) else { continue }
            let plan = try plan(for: id)
            guard let plan, transaction >= resumedAt else { continue }
            if let filter = mapping.targetFilter {
                statements.append("DELETE FROM \(plan.table.only) WHERE (\(filter))")
            } else {
                tables.append(plan.table.only)
            }
        }
        if !tables.isEmpty {
            let identity = options.contains(.restartIdentity) ? " RESTART IDENTITY" : ""
            statements.append("TRUNCATE \(tables.joined(separator: ", "))\(identity)")
        }
        guard !statements.isEmpty else { return }
        do throws(BridgeError) {
            try connection.execute((beginStatements() + statements).joined(separator: "; "))
        } catch {
            throw locate(error, nil, at: record.offset)
        }
    }

    // MARK: Transactions

    /// What must be said to be inside a transaction without a savepoint. The caller sends it at once.
    func beginStatements() -> [String] {
        defer {
            isOpen = true
            hasSavepoint = false
        }
        if !isOpen { return ["BEGIN", LinkRecords.touch(link)] }
        return hasSavepoint ? ["RELEASE SAVEPOINT bridge"] : []
    }

    private func commit(_ checkpoint: Checkpoint) throws(BridgeError) {
        guard checkpoint.frontier >= committed.frontier else {
            // Such a batch was applied by an earlier session as a whole; its rows were passed over.
            guard isOpen else { return }
            throw BridgeError(.internalFault, "a batch's checkpoint is behind the one that is stored")
        }
        if isOpen || checkpoint != committed {
            if isOpen { try checkTouched() }
            // Behind all that was written, so that its locks keep the shape.
            let shapes = touched.isEmpty ? [] : [TargetShape.check(of: touched)]
            let begin = (beginStatements() + shapes).map { "\($0); " }.joined()
            let update = ApplyStatements.checked(LinkRecords.checkpointUpdate(link, checkpoint))
            do throws(BridgeError) {
                try connection.execute(begin + update)
            } catch {
                switch error.sqlState {
                case "22012": throw LinkRecords.missing(link)
                case TargetShape.isOther: throw TargetShape.error(nil)
                default: throw error
                }
            }
            try Failpoint.applyBeforeCommit.hit()
            do throws(BridgeError) { try connection.execute("COMMIT") } catch {
                // What only the commit shows is of no one change.
                throw error.isOfChange ? error.adding(.position, transaction.storedForm) : error
            }
        }
        committedNow(checkpoint)
    }

    func committedNow(_ checkpoint: Checkpoint) {
        committed = checkpoint
        isOpen = false
        hasSavepoint = false
        // ON COMMIT DELETE ROWS has emptied them.
        for plan in plans.values { plan.isStageDirty = false }
        touched.removeAll()
    }

    // MARK: Relations

    func mapping(for relation: Relation) -> TableMapping? {
        link.mappings.first { $0.source == relation.name }
            ?? link.mappings.first { $0.source.schema == nil && $0.source.name == relation.name.name }
    }

    func plan(for id: UInt32) throws(BridgeError) -> RelationPlan? {
        if let plan = plans[id] { return plan }
        guard let relation = relations[id] else {
            throw BridgeError(.recordMalformed, "a change belongs to a table that was not described")
        }
        guard let mapping = mapping(for: relation) else {
            throw BridgeError(
                .internalFault, "the stream holds changes of a table that is not the link's",
                context: [.init(.table, relation.name.description)])
        }
        let shape = try TargetShape.read(mapping.target, connection)
        guard let table = try TargetTable.read(mapping.target, connection) else {
            throw BridgeError(
                .targetTableMissing, "the target table does not exist",
                context: [.init(.table, mapping.target.description)])
        }
        let plan = try RelationPlan(
            number: planCount, relation: relation, mapping: mapping, table: table, shape: shape,
            isWayBack: link.direction == .reverse)
        planCount += 1
        plans[id] = plan
        return plan
    }

    // MARK: Errors

    /// The source transaction that the record at an offset of the batch belongs to.
    func position(at offset: Int) -> Position {
        let next = firstTransaction(at: offset + 1)
        return next == 0 ? transaction : transactionStarts[next - 1].position
    }

    /// The number of the first transaction that begins at an offset of the batch or behind it.
    func firstTransaction(at offset: Int) -> Int {
        var (low, high) = (0, transactionStarts.count)
        while low < high {
            let middle = (low + high) / 2
            if transactionStarts[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The error with its table, by the name that the operator knows, and the source position.
    /// - Parameter offset: of a byte of the one change that it is about; nil if it is about several.
    func locate(_ error: BridgeError, _ plan: RelationPlan?, at offset: Int?) -> BridgeError {
        var located = error
        switch error.sqlState {
        case "42703", "42804", "42P01", "42P10", "428C9":
            located = BridgeError(
                .schemaChanged, "the target table no longer has the shape that the changes need",
                context: error.context)
        default:
            if error.isRefusalOfChange { located = BridgeError(.changeRefused, error.message, context: error.context) }
        }
        if let plan { located = located.adding(.table, plan.table.name.description) }
        guard let offset else { return located.adding(.position, transaction.storedForm) }
        return located.at(change(at: offset).position)
    }

    /// Where the source counts the change of the batch whose record holds the byte at an offset.
    func change(at offset: Int) -> (position: Position, commitTime: Timestamp) { locator.change(at: offset, in: batch) }
}

/// A stretch of a batch that can be applied as one, with what is known of its effect.
struct Run {
    let bytes: UnsafeRawBufferPointer
    var start: Int
    var end = 0
    var rows = 0
    /// Whether nothing but this run is in the batch, which ends with a checkpoint.
    var isWholeBatch = false
    typealias Table = (plan: RelationPlan, effects: RelationEffects)
    private(set) var tables: [Table] = []

    init(bytes: UnsafeRawBufferPointer, start: Int) {
        self.bytes = bytes
        self.start = start
    }

    mutating func effects(of plan: RelationPlan) -> RelationEffects {
        if let known = tables.first(where: { $0.plan === plan }) { return known.effects }
        let effects = plan.takeEffects()
        tables.append((plan, effects))
        return effects
    }

    mutating func begin(at offset: Int) {
        start = offset
        rows = 0
        tables.removeAll()
    }
}

extension BridgeError {
    /// Whether the server refused what a statement writes, in words that are no constraint's: a trigger or a function raised
    /// an error, a view's check, a row too large for an index.
    fileprivate var isRefusalOfChange: Bool {
        guard code == .serverRefused, let sqlState else { return false }
        return ["P0", "38", "39", "44", "54", "09", "2F"].contains(sqlState.prefix(2))
    }
}
