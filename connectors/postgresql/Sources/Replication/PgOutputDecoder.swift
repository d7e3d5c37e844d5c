package import BridgeCore

/// Turns pgoutput messages (protocol version 1, PostgreSQL's manual, "Logical Replication Message Formats") into journal
/// records. A pure state machine: bytes in, records and a step out; it neither waits nor looks anything up. What version 2
/// adds, ``StreamedTransactions`` takes care of before.
///
/// Rules that readers of the records rely on:
/// - A begin record is written with the transaction's first change, so transactions without one leave no records.
/// - A relation record is written before the relation's first use in this decoder's life and after each change of it,
///   also in the middle of a transaction.
/// - ``TransactionEnd/changes`` counts the insert, update, delete, truncate and message records between begin and
///   commit, each as 1; relation records count 0.
/// - Transactions that commit before `durable` are passed over; the server may send again what the journal has.
/// - So are those that the applier of the link's other direction wrote: they came from where they would go. It marks them
///   with its replication origin, whose name follows the begin. Whatever others replicate into the source is captured,
///   the work of another migration's applier too: two migrations in a row would lose it else. (The server's own option
///   `origin = none`, from version 16 on, leaves out all of it, and is not used.)
package struct PgOutputDecoder {
    /// What came of a message.
    package enum Step: Equatable, Sendable {
        case nothing
        /// A change was appended.
        case change
        /// A transaction was closed; its records, if it had changes, are whole.
        case committed(TransactionEnd, hasRecords: Bool)
        /// Somebody of bridge wrote a mark into the log and waits for capture to pass it; see ``LogMark``.
        case mark
        /// The message was not taken: call ``provide(_:for:)`` for each of these and give it again.
        case needsTypes([TypeReference])
    }

    private struct OpenTransaction {
        var start: TransactionStart
        var isPassedOver: Bool
        var changes: UInt64 = 0
    }

    private let form: ValueForm
    private let link: LinkDescription?
    /// The replication origin of what is passed over.
    private let passedOverOrigin: String?
    private let durable: Position
    private var numbers: TransactionNumbers
    private var relations = StreamRelations()
    private var configuredNames: [UInt32: TableName] = [:]
    private var types: [TypeReference: ResolvedType] = [:]
    private var open: OpenTransaction?
    private var lastEnd: UInt64 = 0
    /// The transaction of the last TRUNCATE of each table that the stream named.
    private var truncations: [UInt32: UInt64] = [:]

    /// - Parameters:
    ///   - durable: everything that commits before it is in the journal.
    ///   - nextTransaction: the server's next transaction number, 64 bits wide, read a short while ago.
    ///   - link: whose other direction's writes are passed over, and whose markers are told from others'.
    package init(form: ValueForm, durable: Position, nextTransaction: UInt64, link: LinkDescription? = nil) {
        self.form = form
        self.link = link
        passedOverOrigin = link?.opposite.identifier
        self.durable = durable
        numbers = TransactionNumbers(reference: nextTransaction)
    }

    /// Whether a transaction of the stream is open, with or without records so far.
    package var isInsideTransaction: Bool { open != nil }

    /// The commit position of the open transaction, if it has records.
    package var openPosition: Position? {
        guard let open, open.changes > 0 else { return nil }
        return open.start.position
    }

    /// Says what a type is called that ``Step/needsTypes(_:)`` asked for.
    package mutating func provide(_ type: ResolvedType, for reference: TypeReference) { types[reference] = type }

    /// Says under which name a table is journaled, whatever the stream calls it: while it was renamed it was the same.
    package mutating func name(_ relation: UInt32, as name: TableName) { configuredNames[relation] = name }

    /// Brings the knowledge of the server's transaction numbers up to date.
    package mutating func observe(nextTransaction: UInt64) { numbers.observe(nextTransaction) }

    /// The transactions of the last TRUNCATEs that were decoded since the last call, by table.
    mutating func takeTruncations() -> [UInt32: UInt64] {
        defer { if !truncations.isEmpty { truncations = [:] } }
        return truncations
    }

    /// Takes one message.
    /// - Throws: `streamMalformed`; nothing of the message has then been appended.
    package mutating func decode(
        _ message: UnsafeRawBufferPointer, into buffer: RecordBuffer
    ) throws(BridgeError) -> Step {
        let before = buffer.count
        do throws(BridgeError) {
            var reader = MessageReader(message)
            let step = try decode(&reader, into: buffer)
            if case .needsTypes = step { return step }
            guard reader.isAtEnd else { throw BridgeError.malformedStream("a message has surplus bytes") }
            return step
        } catch {
            buffer.truncate(to: before)
            throw error
        }
    }

    @inline(__always)
    private mutating func decode(
        _ reader: inout MessageReader, into buffer: RecordBuffer
    ) throws(BridgeError) -> Step {
        switch try reader.byte() {
        case UInt8(ascii: "I"): return try insert(&reader, into: buffer)
        case UInt8(ascii: "U"): return try update(&reader, into: buffer)
        case UInt8(ascii: "D"): return try delete(&reader, into: buffer)
        case UInt8(ascii: "B"): return try begin(&reader)
        case UInt8(ascii: "C"): return try commit(&reader, into: buffer)
        case UInt8(ascii: "R"): return try relation(&reader)
        case UInt8(ascii: "T"): return try truncate(&reader, into: buffer)
        case UInt8(ascii: "M"): return try message(&reader, into: buffer)
        // The OID, schema and name of a type, sent ahead of a relation. The catalog is asked for it instead, because
        // only it knows what a domain is made of.
        case UInt8(ascii: "Y"):
            _ = try reader.integer(UInt32.self)
            _ = try reader.name()
            _ = try reader.name()
            return .nothing
        case UInt8(ascii: "O"): return try origin(&reader)
        default: throw BridgeError.malformedStream("an unknown kind of message from the plugin")
        }
    }

    // MARK: Transactions

    private mutating func begin(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        let position = try reader.integer(UInt64.self)
        let time = try reader.integer(Int64.self)
        let number = try reader.integer(UInt32.self)
        try begin(number, position, time, isPassedOver: false)
        return .nothing
    }

    private mutating func begin(
        _ number: UInt32, _ position: UInt64, _ time: Int64, isPassedOver: Bool
    ) throws(BridgeError) {
        guard open == nil else { throw BridgeError.malformedStream("a transaction begins inside another") }
        guard position >= lastEnd else { throw BridgeError.malformedStream("commits come out of order") }
        let start = TransactionStart(
            transaction: numbers.widen(number), position: Position(commit: position),
            commitTime: PostgresEpoch.timestamp(time))
        open = OpenTransaction(start: start, isPassedOver: isPassedOver || start.position < durable)
    }

    /// Opens a transaction that was streamed while it ran: ``decode(_:into:)`` is given its messages next, and then
    /// ``end(_:into:)`` closes it.
    mutating func begin(_ commit: StreamCommit) throws(BridgeError) {
        try begin(commit.transaction, commit.position, commit.time, isPassedOver: commit.isPassedOver)
    }

    /// Closes what ``begin(_:)`` opened.
    mutating func end(_ commit: StreamCommit, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        try end(position: commit.position, end: commit.end, time: commit.time, into: buffer)
    }

    /// Where a replicated transaction came from: told behind its begin.
    private mutating func origin(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        _ = try reader.integer(UInt64.self)
        let name = try reader.name()
        guard name == passedOverOrigin else { return .nothing }
        guard let open, open.changes == 0 else {
            throw BridgeError.malformedStream("a transaction's origin is told behind its changes, or outside of any")
        }
        self.open?.isPassedOver = true
        return .nothing
    }

    private mutating func commit(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        _ = try reader.byte()
        let position = try reader.integer(UInt64.self)
        let end = try reader.integer(UInt64.self)
        let time = try reader.integer(Int64.self)
        return try self.end(position: position, end: end, time: time, into: buffer)
    }

    private mutating func end(
        position: UInt64, end: UInt64, time: Int64, into buffer: RecordBuffer
    ) throws(BridgeError) -> Step {
        guard let open, open.start.position.commit == position, end > position else {
            throw BridgeError.malformedStream("a commit does not fit its begin")
        }
        let transaction = TransactionEnd(
            position: open.start.position, end: end, commitTime: PostgresEpoch.timestamp(time), changes: open.changes)
        let hasRecords = open.changes > 0
        if hasRecords { buffer.appendCommit(transaction) }
        self.open = nil
        lastEnd = end
        return .committed(transaction, hasRecords: hasRecords)
    }

    /// Makes ready for a change: writes the begin record before the first one. False if the transaction is passed over.
    @inline(__always)
    private mutating func beginChange(into buffer: RecordBuffer) throws(BridgeError) -> Bool {
        guard let transaction = open else { throw BridgeError.malformedStream("a change outside a transaction") }
        guard !transaction.isPassedOver else { return false }
        if transaction.changes == 0 { buffer.appendBegin(transaction.start) }
        return true
    }

    @inline(__always)
    private mutating func endChange() -> Step {
        open?.changes &+= 1
        return .change
    }

    // MARK: Relations

    private mutating func relation(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        let identifier = try reader.integer(UInt32.self)
        let schema = try reader.name()
        let name = try reader.name()
        let identity = try reader.byte()
        let count = Int(try reader.integer(UInt16.self))
        var columns: [Relation.Column] = []
        var unknown: [TypeReference] = []
        for _ in 0..<count {
            let flags = try reader.byte()
            let column = try reader.name()
            let reference = TypeReference(oid: try reader.integer(), modifier: try reader.integer())
            if let type = resolve(reference) {
                columns.append(
                    Relation.Column(name: column, isKey: flags & 1 == 1, typeName: type.name, type: type.logical))
            } else if !unknown.contains(reference) {
                unknown.append(reference)
            }
        }
        guard unknown.isEmpty else { return .needsTypes(unknown) }
        let kind: Relation.IdentityKind
        switch identity {
        case UInt8(ascii: "f"): kind = .full
        case UInt8(ascii: "d"), UInt8(ascii: "i"): kind = columns.contains(where: \.isKey) ? .key : .nothing
        case UInt8(ascii: "n"): kind = .nothing
        default: throw BridgeError.malformedStream("an unknown replica identity")
        }
        relations.update(
            Relation(
                id: identifier, engine: .postgresql, form: form,
                // The server leaves out the name of pg_catalog.
                name: configuredNames[identifier]
                    ?? TableName(schema: schema.isEmpty ? "pg_catalog" : schema, name: name), identity: kind,
                columns: columns))
        return .nothing
    }

    private func resolve(_ reference: TypeReference) -> ResolvedType? {
        if let name = PostgresTypes.builtInName(reference.oid, modifier: reference.modifier) {
            return ResolvedType(name: name, logical: LogicalType(name: name))
        }
        return types[reference]
    }

    /// The relation of a change, with its record in the journal.
    @inline(__always)
    private mutating func use(_ identifier: UInt32, _ buffer: RecordBuffer) throws(BridgeError) -> Int {
        guard let place = relations.place(of: identifier) else {
            throw BridgeError.malformedStream("a change of a table that was not described")
        }
        if !relations.entries[place].isJournaled { journal(place, buffer) }
        return place
    }

    @inline(never)
    private mutating func journal(_ place: Int, _ buffer: RecordBuffer) {
        buffer.appendRelation(relations.entries[place].relation)
        relations.markJournaled(place)
    }

    // MARK: Changes

    private mutating func insert(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        let identifier = try reader.integer(UInt32.self)
        guard try reader.byte() == UInt8(ascii: "N") else { throw BridgeError.malformedStream("an insert without a row") }
        guard try beginChange(into: buffer) else { return try passOver(&reader) }
        let place = try use(identifier, buffer)
        let row = try reader.tuple(columns: relations.entries[place].columnCount)
        let start = buffer.beginRow(.insert, relation: identifier)
        try append(row, place, to: buffer)
        buffer.endRecord(start)
        return endChange()
    }

    private mutating func update(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        let identifier = try reader.integer(UInt32.self)
        guard try beginChange(into: buffer) else { return try passOver(&reader) }
        let place = try use(identifier, buffer)
        var kind = try reader.byte()
        let old = try Self.oldRow(kind)
        let start = buffer.beginRow(.update, relation: identifier, old: old)
        if old != .none {
            let row = try reader.tuple(columns: relations.entries[place].columnCount)
            try append(row, place, old: old, to: buffer)
            kind = try reader.byte()
        }
        guard kind == UInt8(ascii: "N") else { throw BridgeError.malformedStream("an update without a row") }
        let row = try reader.tuple(columns: relations.entries[place].columnCount)
        try append(row, place, to: buffer)
        buffer.endRecord(start)
        return endChange()
    }

    private mutating func delete(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        let identifier = try reader.integer(UInt32.self)
        guard try beginChange(into: buffer) else { return try passOver(&reader) }
        let place = try use(identifier, buffer)
        let old = try Self.oldRow(try reader.byte())
        guard old != .none else { throw BridgeError.malformedStream("a delete without a key") }
        let row = try reader.tuple(columns: relations.entries[place].columnCount)
        let start = buffer.beginRow(.delete, relation: identifier, old: old)
        try append(row, place, old: old, to: buffer)
        buffer.endRecord(start)
        return endChange()
    }

    private static func oldRow(_ kind: UInt8) throws(BridgeError) -> OldRowKind {
        switch kind {
        case UInt8(ascii: "N"): .none
        case UInt8(ascii: "K"): .key
        case UInt8(ascii: "O"): .full
        default: throw BridgeError.malformedStream("an unknown kind of row")
        }
    }

    private mutating func truncate(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        let count = Int(try reader.integer(UInt32.self))
        let options = TruncateOptions(rawValue: try reader.byte())
        // The record counts them in 16 bits, and a count that the message has no room for is not believed.
        guard count <= Int(UInt16.max) else { throw BridgeError.malformedStream("a truncate of too many tables") }
        var identifiers: [UInt32] = []
        for _ in 0..<count { identifiers.append(try reader.integer()) }
        if let open { for identifier in identifiers { truncations[identifier] = open.start.transaction } }
        guard try beginChange(into: buffer) else { return .nothing }
        for identifier in identifiers { _ = try use(identifier, buffer) }
        buffer.appendTruncate(identifiers, options: options)
        return endChange()
    }

    private mutating func message(_ reader: inout MessageReader, into buffer: RecordBuffer) throws(BridgeError) -> Step {
        let isTransactional = try reader.byte() & 1 == 1
        _ = try reader.integer(UInt64.self)
        let prefix = try reader.name()
        var content = try reader.bytes(Int(try reader.integer(UInt32.self)))
        // One that stands outside transactions would come again after a restart: it has no place in the order.
        guard isTransactional else { return prefix == LogMark.prefix ? .mark : .nothing }
        if prefix == Marker.prefix, let link {
            guard let marker = StreamMarker.text(content, link: link) else { return .nothing }
            content = marker
        }
        guard try beginChange(into: buffer) else { return .nothing }
        buffer.appendMessage(prefix: prefix, content: content)
        return endChange()
    }

    /// Skips the rest of a change that the journal has already.
    private mutating func passOver(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        reader.skipRest()
        return .nothing
    }

    // MARK: Rows

    /// Appends a tuple of the stream as a row image.
    @inline(__always)
    private func append(
        _ tuple: UnsafeRawBufferPointer, _ place: Int, old: OldRowKind = .none, to buffer: RecordBuffer
    ) throws(BridgeError) {
        if form == .native && old != .key {
            buffer.append(tuple)
        } else {
            try relations.entries[place].appendConverted(tuple, form: form, isKeyOnly: old == .key, to: buffer)
        }
    }
}

extension StreamRelation {
    /// Appends a checked tuple cell by cell: in canonical form, or native with what a key lacks marked as absent.
    ///
    /// In a key tuple the server writes `n` for every column that is not part of the key. That is not NULL: nothing is
    /// known of those columns.
    fileprivate func appendConverted(
        _ tuple: UnsafeRawBufferPointer, form: ValueForm, isKeyOnly: Bool, to buffer: RecordBuffer
    ) throws(BridgeError) {
        var reader = MessageReader(tuple)
        let count = Int(try reader.integer(UInt16.self))
        guard count == columnCount else { throw BridgeError.malformedStream("a row of another table") }
        buffer.beginRowImage(columns: count)
        for column in 0..<count {
            let tag = try reader.byte()
            switch tag {
            case CellTag.text.rawValue:
                let text = try reader.bytes(Int(try reader.integer(UInt32.self)))
                if form == .native {
                    buffer.appendCell(.text, text)
                } else {
                    try appendCanonicalCell(text, kinds[column], to: buffer)
                }
            case CellTag.null.rawValue: buffer.appendCell(isKeyOnly && !isKey[column] ? .absent : .null)
            default: buffer.appendCell(.unchanged)
            }
        }
    }
}
