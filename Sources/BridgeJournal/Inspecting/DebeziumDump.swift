import BridgeCore

/// Which transactions of a journal never happened: those that were abandoned, and the one that is still open at the
/// end. By their place among all begin records.
struct VoidTransactions {
    private var void: Set<UInt64> = []
    private var begins: UInt64 = 0
    private var isOpen = false

    mutating func see(_ record: RecordView) {
        switch record.kind {
        case .begin:
            begins += 1
            isOpen = true
        case .commit: isOpen = false
        case .abandon:
            void.insert(begins)
            isOpen = false
        default: break
        }
    }

    /// Ends the looking through: what is open now is not committed.
    mutating func finish() { if isOpen { void.insert(begins) } }

    func contains(_ begin: UInt64) -> Bool { void.contains(begin) }
}

/// Prints committed changes as Debezium's change events do it without schemas: `before`, `after`, `source`, `op`,
/// `ts_ms`, `transaction`.
struct DebeziumDump {
    private let link: String
    private var relations: [UInt32: Relation]
    private let void: VoidTransactions
    private var line = JSONLine()
    private var begins: UInt64 = 0
    /// The transaction that is open and was committed.
    private var transaction: TransactionStart?
    private var isInsideVoid = false
    private var order: UInt64 = 0
    private var orderInTable: [UInt32: UInt64] = [:]

    init(link: String, relations: [UInt32: Relation], void: VoidTransactions) {
        self.link = link
        self.relations = relations
        self.void = void
    }

    /// Emits the events that a record stands for: none, one, or for a truncate one a table.
    mutating func lines(
        _ record: RecordView, _ emit: (String) throws(BridgeError) -> Void
    ) throws(BridgeError) {
        switch record.kind {
        case .relation:
            let relation = try Relation(payload: record.payload)
            relations[relation.id] = relation
        case .begin:
            begins += 1
            isInsideVoid = void.contains(begins)
            transaction = isInsideVoid ? nil : try record.transactionStart()
            order = 0
            orderInTable.removeAll(keepingCapacity: true)
        case .commit, .abandon:
            transaction = nil
            isInsideVoid = false
        case .frontier: break
        case .message: try message(record, emit)
        case .insert, .update, .delete, .upsert, .remove:
            guard transaction != nil else { return }
            let change = try RowChange(record)
            let relation = relations[change.relation]
            begin()
            try image("before", change.old, relation)
            try image("after", change.new, relation)
            try finish(Self.operation(change.kind), change.relation, emit)
        case .truncate:
            guard transaction != nil else { return }
            for relation in try record.truncation().relations {
                begin()
                try image("before", nil, nil)
                try image("after", nil, nil)
                try finish("t", relation, emit)
            }
        }
    }

    private static func operation(_ kind: RecordKind) -> String {
        switch kind {
        case .insert: "c"
        case .delete, .remove: "d"
        default: "u"
        }
    }

    private mutating func begin() {
        line.removeAll()
        line.beginObject()
    }

    private mutating func image(_ key: String, _ image: RowImage?, _ relation: Relation?) throws(BridgeError) {
        line.key(key)
        guard let image else {
            line.null()
            return
        }
        try line.row(image, relation) { line, column, cell in
            if cell.tag == .absent { return }
            line.key(column)
            if cell.tag == .unchanged { line.string("__debezium_unavailable_value") } else { line.value(cell) }
        }
    }

    private mutating func finish(
        _ operation: String, _ relation: UInt32, _ emit: (String) throws(BridgeError) -> Void
    ) throws(BridgeError) {
        order += 1
        orderInTable[relation, default: 0] += 1
        source(relations[relation])
        line.key("op")
        line.string(operation)
        let time = transaction?.commitTime ?? Timestamp(microseconds: 0)
        line.key("ts_ms")
        line.integer(time.microseconds / 1000)
        line.key("transaction")
        if let transaction {
            line.beginObject()
            line.key("id")
            line.string("\(transaction.transaction):\(transaction.position.storedForm)")
            line.key("total_order")
            line.integer(order)
            line.key("data_collection_order")
            line.integer(orderInTable[relation] ?? 1)
            line.endObject()
        } else {
            line.null()
        }
        line.endObject()
        try emit(line.text)
    }

    private mutating func source(_ relation: Relation?) {
        line.key("source")
        line.beginObject()
        line.key("version")
        line.string("bridge")
        line.key("connector")
        line.string(relation?.engine.rawValue ?? "")
        line.key("name")
        line.string(link)
        line.key("ts_ms")
        line.integer((transaction?.commitTime.microseconds ?? 0) / 1000)
        line.key("snapshot")
        line.string("false")
        line.key("db")
        line.string("")
        line.key("schema")
        line.string(relation?.name.schema ?? "")
        line.key("table")
        line.string(relation?.name.name ?? "")
        line.key("txId")
        line.integer(transaction?.transaction ?? 0)
        line.key("lsn")
        line.integer(transaction?.position.commit ?? 0)
        line.endObject()
    }

    /// A message outside a transaction stands for itself; one inside shares the transaction's fate.
    private mutating func message(
        _ record: RecordView, _ emit: (String) throws(BridgeError) -> Void
    ) throws(BridgeError) {
        if isInsideVoid { return }
        let (prefix, content) = try record.message()
        begin()
        line.key("op")
        line.string("m")
        line.key("ts_ms")
        line.integer((transaction?.commitTime.microseconds ?? 0) / 1000)
        source(nil)
        line.key("message")
        line.beginObject()
        line.key("prefix")
        line.string(prefix)
        line.key("content")
        line.base64(content)
        line.endObject()
        line.endObject()
        try emit(line.text)
    }
}
