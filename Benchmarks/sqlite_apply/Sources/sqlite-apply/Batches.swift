import BridgeCore

/// The same rows as the records that reach an applier.
struct Batches {
    let relation: Relation
    let link: LinkDescription
    let work: Work

    init(_ work: Work) {
        self.work = work
        let isNative = work != .inserts
        let columns = [
            Relation.Column(name: "id", isKey: true, typeName: isNative ? "INTEGER" : "bigint", type: .int64),
            Relation.Column(name: "customer", isKey: false, typeName: isNative ? "INTEGER" : "bigint", type: .int64),
            Relation.Column(name: "name", isKey: false, typeName: isNative ? "TEXT" : "text", type: .text),
        ]
        let name = isNative ? TableName(name: "rows") : TableName(schema: "public", name: "rows")
        relation = Relation(
            id: 7, engine: isNative ? .sqlite : EngineName(rawValue: "postgresql"), form: isNative ? .native : .canonical,
            name: name, identity: .key, columns: columns)
        link = LinkDescription(
            migration: "bench", direction: .forward, mappings: [TableMapping(source: name, target: TableName(name: "rows"))],
            form: relation.form)
    }

    static let origin = CaptureOrigin(identity: ["system": "1"], position: Position(commit: 1))

    /// One transaction a batch, each with its checkpoint.
    /// - Parameter commit: where the first one committed.
    func make(_ rows: Rows, size: Int, from commit: UInt64) -> [ChangeBatch] {
        var batches: [ChangeBatch] = []
        var position = commit
        for place in stride(from: 0, to: rows.keys.count, by: size) {
            let end = min(place + size, rows.keys.count)
            batches.append(batch(rows, place..<end, Position(commit: position)))
            position += 1
        }
        return batches
    }

    private func batch(_ rows: Rows, _ places: Range<Int>, _ position: Position) -> ChangeBatch {
        let buffer = RecordBuffer(capacity: places.count * 96)
        let time = Timestamp(microseconds: 0)
        buffer.appendBegin(TransactionStart(transaction: position.commit, position: position, commitTime: time))
        rows.names.withUnsafeBytes { names in
            for place in places {
                let start = buffer.beginRow(work == .inserts ? .insert : .upsert, relation: relation.id)
                buffer.beginRowImage(columns: 3)
                buffer.appendCell(integer: rows.keys[place])
                buffer.appendCell(integer: rows.customers[place])
                let name = place * Rows.nameLength
                buffer.appendCell(.string, UnsafeRawBufferPointer(rebasing: names[name..<name + Rows.nameLength]))
                buffer.endRecord(start)
            }
        }
        buffer.appendCommit(
            TransactionEnd(
                position: position, end: position.commit + 1, commitTime: time, changes: UInt64(places.count)))
        return ChangeBatch(
            records: buffer, relations: [relation.id: relation],
            checkpoint: Checkpoint(position: position, frontier: Position(commit: position.commit + 1), commitTime: time),
            rows: places.count, transactions: 1)
    }
}
