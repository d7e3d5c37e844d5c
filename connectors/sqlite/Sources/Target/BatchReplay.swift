import BridgeCore

/// Applies batches over one connection, each with its checkpoint in one target transaction.
///
/// A transaction of the source that is larger than a batch keeps the target's transaction open from batch to batch.
/// SQLite then spills what does not fit its cache into the WAL, so memory stays bounded whatever the size.
final class BatchReplay {
    private let connection: TargetConnection
    private let link: LinkDescription
    private var relations: [UInt32: Relation] = [:]
    private var tables: [UInt32: TableReplay] = [:]
    /// Up to which transaction each table's copy holds all, by the source's name.
    private let copied: [TableName: Position]
    /// The table of the last change: changes come in runs.
    private var current: (relation: UInt32, table: TableReplay)?
    /// The source transaction that is being applied.
    private var transaction: Position?
    /// What is done with changes that the target's data contradicts.
    private let policy: ConflictPolicy
    private let conflicts: ConflictTable
    /// Of the batch at hand: where the source counts its changes, its bytes, and the change that is being applied.
    private var locator = ChangeLocator(ChangePlaces())
    private var batch = UnsafeRawBufferPointer(start: nil, count: 0)
    private var offset = 0
    /// Whether what fails now may be about another change than the one at `offset`.
    private var isSettling = false
    private var schemaVersion: Int64?
    private let schemaVersionStatement: SQLiteStatement
    private let checkpointStatement: SQLiteStatement
    /// The checkpoint that the target must still have.
    private var stored: Checkpoint?

    init(
        _ connection: TargetConnection, link: LinkDescription, policy: ConflictPolicy = .stop
    ) throws(BridgeError) {
        self.connection = connection
        self.link = link
        self.policy = policy
        conflicts = ConflictTable(connection: connection, link: link)
        let records = LinkRecords(connection: connection, link: link)
        if try records.areOld() {
            try connection.database.transaction(.immediate) { () throws(BridgeError) in
                try OwnSchemaChanges.counting(connection.database) { () throws(BridgeError) in try records.upgrade() }
            }
        }
        guard let state = try records.read() else {
            throw BridgeError(
                .internalFault, "the link has no records on the target",
                context: [.init(.migration, link.migration)])
        }
        stored = state.checkpoint
        copied = state.tables.mapValues(\.position)
        schemaVersionStatement = try connection.prepare("PRAGMA main.schema_version")
        checkpointStatement = try connection.prepare(
            """
            UPDATE main._bridge_link
            SET position = ?2, frontier = ?3, commit_time = ?4, marker = coalesce(?7, marker)
            WHERE name = ?1 AND phase = 'syncing' AND position = ?5 AND frontier = ?6
            """)
    }

    func apply(_ batch: ChangeBatch) throws(BridgeError) {
        do throws(BridgeError) {
            isSettling = false
            if !connection.database.isInTransaction() { try begin() }
            try Failpoint.applyBegin.hit()
            try adopt(batch.relations)
            for record in batch.leftOut { try conflicts.insert(record) }
            locator = ChangeLocator(batch.places, fallback: transaction ?? .zero)
            (self.batch, offset) = (batch.records.bytes, 0)
            try withExtendedLifetime(batch.records) { (records) throws(BridgeError) in try replay(records.bytes) }
            guard let checkpoint = batch.checkpoint else {
                try Failpoint.applyPart.hit()
                return
            }
            try settle()
            try record(checkpoint)
            try Failpoint.applyBeforeCommit.hit()
            try connection.database.execute("COMMIT")
            stored = checkpoint
            try Failpoint.applyAfterCommit.hit()
        } catch {
            let located = locate(error)
            rollback()
            throw located
        }
    }

    /// Goes back to the last checkpoint.
    func rollback() {
        connection.database.rollback()
        for table in tables.values { table.forget() }
        transaction = nil
    }

    private func begin() throws(BridgeError) {
        try connection.database.execute("BEGIN IMMEDIATE")
        // A table that was altered is looked at again, so that a paused link goes on with the new columns.
        guard try schemaVersionStatement.step() else { return }
        let version = schemaVersionStatement.integer(0)
        schemaVersionStatement.reset()
        if let schemaVersion, schemaVersion != version { forgetTables() }
        schemaVersion = version
    }

    private func forgetTables() {
        tables.removeAll()
        current = nil
    }

    private func adopt(_ known: [UInt32: Relation]) throws(BridgeError) {
        for (identifier, relation) in known { try adopt(relation, as: identifier) }
    }

    private func adopt(_ relation: Relation, as identifier: UInt32) throws(BridgeError) {
        guard relations[identifier] != relation else { return }
        relations[identifier] = relation
        guard let table = tables.removeValue(forKey: identifier) else { return }
        current = nil
        // Rows that wait are of the old shape.
        try settle(table)
    }

    private func settle() throws(BridgeError) {
        isSettling = true
        for table in tables.values { try settle(table) }
        isSettling = false
    }

    private func settle(_ table: TableReplay) throws(BridgeError) {
        // Sources that log keys deliver a transaction though the copy may hold it: its begin does not tell.
        let copy = copied[table.plan.relation.name] ?? .zero
        try table.settle(displacing: transaction.map { $0 < copy } ?? false)
    }

    private func record(_ checkpoint: Checkpoint) throws(BridgeError) {
        guard let stored, checkpoint.position >= stored.position else {
            throw BridgeError(
                .internalFault, stored == nil ? "changes came before the copy was finished" : "a checkpoint went backwards",
                context: [.init(.migration, link.migration)])
        }
        let statement = checkpointStatement
        try statement.bind(1, string: link.name)
        try statement.bind(2, string: checkpoint.position.storedForm)
        try statement.bind(3, string: checkpoint.frontier.storedForm)
        try statement.bind(4, integer: checkpoint.commitTime.microseconds)
        try statement.bind(5, string: stored.position.storedForm)
        try statement.bind(6, string: stored.frontier.storedForm)
        try statement.bind(7, string: checkpoint.marker)
        try statement.run()
        guard connection.database.changes() == 1 else {
            throw BridgeError(
                .checkpointForeign, "the checkpoint on the target is not the one that this process left there",
                context: [.init(.migration, link.migration)],
                hint: "make sure that no other bridge writes to this target, then run the command again")
        }
    }

    // MARK: Records

    private func replay(_ bytes: UnsafeRawBufferPointer) throws(BridgeError) {
        var cursor = RecordCursor(bytes)
        while let record = try cursor.next() {
            switch record.kind {
            case .insert, .update, .delete, .upsert, .remove:
                offset = record.offset
                let change = try RowChange(record)
                do throws(BridgeError) { try apply(change) } catch { try resolve(change, error) }
            case .begin: transaction = try record.transactionStart().position
            case .commit:
                try settle()
                transaction = nil
            case .truncate:
                offset = record.offset
                for relation in try record.truncation().relations { try table(relation).truncate() }
            case .relation:
                let relation = try Relation(payload: record.payload)
                try adopt(relation, as: relation.id)
            case .message, .frontier: break
            case .abandon:
                throw BridgeError(.internalFault, "an abandoned transaction reached the applier")
            }
        }
    }

    @inline(__always)
    private func apply(_ change: RowChange) throws(BridgeError) {
        let table = try table(change.relation)
        switch change.kind {
        case .insert:
            guard let row = change.new else { throw BridgeError.malformedRecord(at: 0) }
            try table.insert(row)
        case .upsert:
            guard let row = change.new else { throw BridgeError.malformedRecord(at: 0) }
            try table.upsert(row)
        case .remove:
            guard let key = change.old else { throw BridgeError.malformedRecord(at: 0) }
            try table.remove(key)
        case .update: try table.update(change)
        case .delete: try table.delete(change)
        default: throw BridgeError.malformedRecord(at: 0)
        }
    }

    /// Does what the policy says instead of a change that the target's data contradicts, and of which nothing has happened.
    /// - Throws: the error where it says to stop, and where going on would take a guess.
    private func resolve(_ change: RowChange, _ error: BridgeError) throws(BridgeError) {
        guard policy != .stop, let kind = error.conflictKind, kind != .uniqueValueTaken else { throw error }
        let table = try table(change.relation)
        if policy == .overwrite { try table.overwrite(change, kind, error) }
        let place = locator.change(at: offset, in: batch)
        try conflicts.insert(
            ConflictRecord(
                position: place.position, commitTime: place.commitTime, table: table.plan.target.name,
                change: String(describing: change.kind), reason: kind.rawValue,
                outcome: policy == .skip ? .skipped : .overwritten, key: try change.keyText(table.plan.relation)))
    }

    @inline(__always)
    private func table(_ identifier: UInt32) throws(BridgeError) -> TableReplay {
        if let current, current.relation == identifier { return current.table }
        if let table = tables[identifier] {
            current = (identifier, table)
            return table
        }
        let table = try makeTable(identifier)
        current = (identifier, table)
        return table
    }

    private func makeTable(_ identifier: UInt32) throws(BridgeError) -> TableReplay {
        guard let relation = relations[identifier] else {
            throw BridgeError(
                .recordMalformed, "a change names a relation that was not described",
                context: [.init(.detail, "relation \(identifier)")])
        }
        guard let mapping = link.mappings.first(where: { $0.names(relation.name) }) else {
            throw BridgeError(
                .internalFault, "a change of a table that is not part of the link reached the applier",
                context: [.init(.table, relation.name.description)])
        }
        let target = try connection.requiredTarget(mapping.target)
        let table = try TableReplay(
            RelationPlan(relation, mapping: mapping, target: target, isWayBack: link.direction == .reverse), connection: connection,
            place: { [unowned self] in self.ordinal })
        tables[identifier] = table
        return table
    }

    /// The place of the change at hand in its transaction.
    private var ordinal: UInt64 { locator.change(at: offset, in: batch).position.ordinal }

    /// Says where in the source's order an error happened.
    private func locate(_ error: BridgeError) -> BridgeError {
        guard let transaction else { return error }
        // Rows that had to wait tell themselves which change it was.
        if let ordinal = error.context.first(where: { $0.key == .ordinal }).flatMap({ UInt64($0.value) }) {
            return error.at(Position(commit: transaction.commit, ordinal: ordinal))
        }
        guard error.isOfChange, !batch.isEmpty, !isSettling else {
            return error.adding(.position, Position(commit: transaction.commit).storedForm)
        }
        return error.at(Position(commit: transaction.commit, ordinal: ordinal))
    }
}

extension TableMapping {
    /// Whether the mapping is for this source table. A mapping without a schema takes the table from any.
    func names(_ table: TableName) -> Bool {
        source == table || (source.schema == nil && source.name == table.name)
    }
}
