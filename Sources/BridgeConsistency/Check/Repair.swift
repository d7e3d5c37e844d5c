package import BridgeCore

/// Lets a piece of work use the link's applier between two transactions; nil if the link ended before.
package typealias ApplierAccess =
    @Sendable (
        _ body: @escaping @Sendable (any ChangeApplier, Checkpoint) async -> Result<Int, BridgeError>
    ) async -> Result<Int, BridgeError>?

extension CheckSession {
    /// How many rows a batch has, and what they may take, a row more at most: they are held several times on their way.
    static var repairSize: FindSize { FindSize(most: 500, bytes: 8 << 20) }

    /// Writes the source's rows over those of the target that are known to differ.
    ///
    /// The applier stands still between two transactions meanwhile, and only rows are taken that no transaction touches
    /// which is not on the target yet: the source's row is then what the target should have at its checkpoint, and the
    /// journal goes on from there as if it had been so all along.
    func repair() async throws(BridgeError) {
        guard let access else {
            throw BridgeError(
                .alreadyRunning, "rows cannot be repaired while another process applies changes",
                hint: "stop bridge run, run bridge check --repair, then start bridge run again")
        }
        for index in wanted {
            let keys = suspects.differing(of: index)
            var start = 0
            while start < keys.count {
                try board.goOn()
                let batch = Array(keys[start..<min(keys.count, start + repairSize.keys)])
                repairedKeys = batch.count
                let outcome = await access { applier, checkpoint in
                    do throws(BridgeError) {
                        return .success(try await self.rewrite(batch, of: index, applier, checkpoint))
                    } catch { return .failure(error) }
                }
                guard let outcome else {
                    throw BridgeError(.interrupted, "the link ended before its rows were repaired")
                }
                let rows = try outcome.get()
                start += repairedKeys
                state.tables[index].report.repaired += Int64(rows)
                logger.notice("rows repaired", metadata: ["table": "\(pairs[index].mapping.target)", "rows": "\(rows)"])
            }
        }
    }

    private func rewrite(
        _ keys: [KeyImage], of index: Int, _ applier: any ChangeApplier, _ checkpoint: Checkpoint
    ) async throws(BridgeError) -> Int {
        let views = try await openViews()
        do throws(BridgeError) {
            let rows = try await rewrite(keys, of: index, applier, checkpoint, views)
            await views.close()
            return rows
        } catch {
            await views.close()
            throw error
        }
    }

    private func rewrite(
        _ keys: [KeyImage], of index: Int, _ applier: any ChangeApplier, _ checkpoint: Checkpoint, _ views: AlignedViews
    ) async throws(BridgeError) -> Int {
        let pair = pairs[index]
        guard !views.dispute.unsettledTables.contains(index), pair.source.columns.contains(where: \.isKey) else {
            return 0
        }
        let inDispute = try await canonicalExcluded(index, views)
        let found = RecordBuffer()
        let request = ComparisonRequest(layout: pair.source, rowFilter: pair.mapping.rowFilter)
        var clear = try inDispute.leaving(keys)
        while try await views.source.findRows(request, keys: clear, into: found, limit: repairSize.bytes) == nil {
            repairSize.shrink()
            repairedKeys = min(keys.count, repairSize.keys)
            clear = try inDispute.leaving(keys.prefix(repairedKeys))
        }
        repairSize.grow(keys: clear.count, took: found.count)
        // A reader of the target would hold up an engine with one writer.
        await views.target.close()
        let relation = Relation(
            id: .max - UInt32(index), engine: source.engine, form: .canonical, name: pair.mapping.source, identity: .key,
            columns: pair.source.columns)
        let records = RecordBuffer()
        records.appendRelation(relation)
        // Not where the last transaction stands: an applier passes over what was applied before it began.
        records.appendBegin(
            TransactionStart(transaction: 0, position: checkpoint.frontier, commitTime: checkpoint.commitTime))
        let gone = Set(clear).subtracting(try Self.rowKeys(found, pair.source))
        // Where the sides may spell one key in two ways, a key that the source does not find may be a row's other
        // spelling: such a row is left for a person to remove.
        let removed = pair.hasExactKey ? gone : []
        // First, since to the target a key that goes and one that comes may be equal ('A' and 'a').
        for key in removed { appendRemove(key, relation, to: records) }
        try appendUpserts(found, relation, to: records)
        records.appendCommit(
            TransactionEnd(
                position: checkpoint.position, end: checkpoint.position.commit, commitTime: checkpoint.commitTime,
                changes: UInt64(clear.count - gone.count + removed.count)))
        let rows = clear.count - gone.count + removed.count
        guard rows > 0 else { return 0 }
        try await applier.apply(
            ChangeBatch(records: records, relations: [:], checkpoint: checkpoint, rows: rows, transactions: 1))
        return rows
    }

    private func appendUpserts(_ rows: RecordBuffer, _ relation: Relation, to records: RecordBuffer) throws(BridgeError) {
        try forEachRow(in: rows) { image throws(BridgeError) in
            let start = records.beginRow(.upsert, relation: relation.id)
            records.append(image)
            records.endRecord(start)
        }
    }

    private func appendRemove(_ key: KeyImage, _ relation: Relation, to records: RecordBuffer) {
        let start = records.beginRow(.remove, relation: relation.id)
        records.beginRowImage(columns: relation.columns.count)
        key.bytes.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            var cells = (try? RowImage(&reader))?.cells
            for column in relation.columns {
                guard column.isKey, let cell = (try? cells?.next()) ?? nil else {
                    records.appendCell(.absent)
                    continue
                }
                if cell.tag.hasBytes { records.appendCell(cell.tag, cell.bytes) } else { records.appendCell(cell.tag) }
            }
        }
        records.endRecord(start)
    }
}
