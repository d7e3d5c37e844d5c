import BridgeCore

/// Prints records as they stand, an object each, in the order of the journal.
struct RecordDump {
    private var relations: [UInt32: Relation]
    private var line = JSONLine()
    /// The transaction that is open, and the place of its next change.
    private var transaction: TransactionStart?
    private var ordinal: UInt64 = 0

    init(relations: [UInt32: Relation]) { self.relations = relations }

    /// The record as a line of JSON.
    mutating func line(_ record: RecordView) throws(BridgeError) -> String {
        line.removeAll()
        line.beginObject()
        line.key("kind")
        line.string(String(describing: record.kind))
        switch record.kind {
        case .relation: try relation(record)
        case .begin: try begin(record)
        case .commit: try commit(record)
        case .abandon: transaction = nil
        case .insert, .update, .delete, .upsert, .remove: try row(record)
        case .truncate: try truncate(record)
        case .message:
            let (prefix, content) = try record.message()
            line.key("prefix")
            line.string(prefix)
            line.key("content_base64")
            line.base64(content)
        case .frontier:
            let (position, time) = try record.frontier()
            stamp(position, time, as: "time")
        }
        line.endObject()
        return line.text
    }

    private mutating func stamp(_ position: Position, _ time: Timestamp, as key: String) {
        line.key("position")
        line.string(position.storedForm)
        line.key(key)
        line.string(time.rfc3339)
    }

    private mutating func relation(_ record: RecordView) throws(BridgeError) {
        let relation = try Relation(payload: record.payload)
        relations[relation.id] = relation
        line.key("relation")
        line.integer(relation.id)
        line.key("table")
        line.string(relation.name.description)
        line.key("engine")
        line.string(relation.engine.rawValue)
        line.key("form")
        line.string(String(describing: relation.form))
        line.key("identity")
        line.string(String(describing: relation.identity))
        line.key("columns")
        line.beginArray()
        for column in relation.columns {
            line.beginObject()
            line.key("name")
            line.string(column.name)
            line.key("key")
            line.boolean(column.isKey)
            line.key("type_name")
            line.string(column.typeName)
            line.key("type")
            line.string(column.type.name)
            line.endObject()
        }
        line.endArray()
    }

    private mutating func begin(_ record: RecordView) throws(BridgeError) {
        let start = try record.transactionStart()
        transaction = start
        ordinal = 0
        line.key("transaction")
        line.integer(start.transaction)
        stamp(start.position, start.commitTime, as: "commit_time")
    }

    private mutating func commit(_ record: RecordView) throws(BridgeError) {
        let end = try record.transactionEnd()
        transaction = nil
        stamp(end.position, end.commitTime, as: "commit_time")
        line.key("end")
        line.string(String(end.end))
        line.key("changes")
        line.integer(end.changes)
    }

    /// The change's own position; nothing for a journal that retention made begin inside a transaction.
    private mutating func changePosition() {
        guard let transaction else { return }
        line.key("position")
        line.string(Position(commit: transaction.position.commit, ordinal: ordinal).storedForm)
        ordinal += 1
    }

    /// Counts a change that nothing is said of.
    mutating func passChange() { if transaction != nil { ordinal += 1 } }

    private mutating func row(_ record: RecordView) throws(BridgeError) {
        let change = try RowChange(record)
        changePosition()
        let relation = relations[change.relation]
        line.key("relation")
        line.integer(change.relation)
        if let relation {
            line.key("table")
            line.string(relation.name.description)
        }
        if let old = change.old {
            line.key("old_kind")
            line.string(change.kind == .remove ? "key" : String(describing: change.oldKind))
            line.key("old")
            try line.row(old, relation) { line, column, cell in line.plainCell(column, cell) }
        }
        guard let new = change.new else { return }
        line.key("new")
        try line.row(new, relation) { line, column, cell in line.plainCell(column, cell) }
        var unchanged: [String] = []
        var cells = new.cells
        var index = 0
        while let cell = try cells.next() {
            if cell.tag == .unchanged { unchanged.append(relation.columnName(index)) }
            index += 1
        }
        guard !unchanged.isEmpty else { return }
        line.key("unchanged")
        line.beginArray()
        for name in unchanged { line.string(name) }
        line.endArray()
    }

    private mutating func truncate(_ record: RecordView) throws(BridgeError) {
        let (options, emptied) = try record.truncation()
        changePosition()
        line.key("relations")
        line.beginArray()
        for relation in emptied { line.integer(relation) }
        line.endArray()
        line.key("tables")
        line.beginArray()
        for relation in emptied { line.string(relations[relation]?.name.description ?? "") }
        line.endArray()
        line.key("cascade")
        line.boolean(options.contains(.cascade))
        line.key("restart_identity")
        line.boolean(options.contains(.restartIdentity))
    }
}

extension Relation? {
    /// A column's name; its number if the relation is not known or has fewer columns.
    func columnName(_ index: Int) -> String {
        guard let self, index < self.columns.count else { return "\(index)" }
        return self.columns[index].name
    }
}

extension JSONLine {
    /// A row as an object; `cell` writes key and value of one cell, or nothing.
    mutating func row(
        _ image: RowImage, _ relation: Relation?, cell write: (inout JSONLine, String, Cell) -> Void
    ) throws(BridgeError) {
        beginObject()
        var cells = image.cells
        var index = 0
        while let cell = try cells.next() {
            write(&self, relation.columnName(index), cell)
            index += 1
        }
        endObject()
    }
}
