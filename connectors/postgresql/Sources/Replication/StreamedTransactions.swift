import BridgeCore

/// The commit of a transaction that was streamed while it ran.
struct StreamCommit: Equatable, Sendable {
    var transaction: UInt32
    /// The commit record's first byte, and the first byte behind it.
    var position: UInt64
    var end: UInt64
    /// In microseconds, as the server counts them.
    var time: Int64
    /// Whether its changes are not for this link.
    var isPassedOver: Bool
    /// How many bytes of it were kept.
    var length: UInt64
    /// Relation messages that hold from its commit on and do not stand in what was kept. They follow its last change.
    var descriptions: [[UInt8]]
}

/// Sorts pgoutput messages of protocol version 2: those of transactions that are still running are kept apart, one
/// transaction from another, until their commit, and are then given to ``PgOutputDecoder`` as if they came only then.
/// A pure state machine: which bytes are kept, cut off and read back is said here, and done by ``TransactionSpill``.
///
/// What is kept are the messages themselves, without the transaction's number: a 32-bit length, then the message in the
/// form of version 1. So a streamed transaction is decoded at its commit, by the same code and with the same catalog as
/// one that was not streamed; a type that it made itself can be looked up by then.
///
/// Relation messages inside a streamed transaction are its own until it commits. The server sends them in every such
/// transaction anew, and at the commit counts them as sent for all that follows, unless the relation has changed
/// meanwhile. Of two descriptions of a relation the one that was sent later is therefore the one that the server goes by,
/// whichever transaction it came in. Here a description is kept where a change first uses it, and again where an aborted
/// subtransaction took away the place where it stood.
struct StreamedTransactions {
    enum Step: Equatable, Sendable {
        /// Not of a streamed transaction: for the decoder.
        case plain
        /// Nothing is to be done, but perhaps bytes of the open block were appended.
        case taken
        /// The open block is over; what was appended belongs to this transaction.
        case blockEnded(UInt32)
        /// What is kept of a transaction ends here.
        case cut(UInt32, to: UInt64)
        /// Nothing of a transaction is needed any more.
        case discard(UInt32)
        case commit(StreamCommit)
    }

    /// A relation message in the form of version 1.
    private struct Description {
        var bytes: [UInt8]
        /// Counts the relation messages of the session.
        var order: UInt64
        /// Where it stands in what is kept of the transaction; nil if it does not.
        var place: UInt64?
    }

    private struct Transaction {
        var isPassedOver = false
        /// Whether nothing of it was received yet.
        var isNew = true
        var length: UInt64 = 0
        var subtransactions = SubtransactionStack()
        var descriptions: [UInt32: Description] = [:]
        /// Where the first message stands, and where the last one ends.
        var firstMessage: UInt64?
        var lastMessageEnd: UInt64?
        /// A relation whose description stands in what is kept.
        var lastRelation: UInt32?

        mutating func cut(to place: UInt64) {
            length = place
            lastRelation = nil
            if firstMessage.map({ $0 >= place }) == true { firstMessage = nil }
            lastMessageEnd = nil
            for (relation, description) in descriptions where description.place.map({ $0 >= place }) == true {
                descriptions[relation]?.place = nil
            }
        }
    }

    private let passedOverOrigin: String?
    private var transactions: [UInt32: Transaction] = [:]
    /// The transaction of the open block; it is not among ``transactions`` meanwhile.
    private var open = Transaction()
    private var openNumber: UInt32 = 0
    /// Whether a block of a streamed transaction is open.
    private(set) var isInsideBlock = false
    private var isInsidePlain = false
    /// The descriptions that hold outside of streamed transactions.
    private var descriptions: [UInt32: Description] = [:]
    private var order: UInt64 = 0
    /// Subtransactions of all transactions but the open one.
    private var closedSubtransactions = 0

    init(link: LinkDescription? = nil) { passedOverOrigin = link?.opposite.identifier }

    /// The transaction of the open block.
    var blockTransaction: UInt32? { isInsideBlock ? openNumber : nil }
    /// How many transactions are running that were streamed in part.
    var count: Int { transactions.count + (isInsideBlock ? 1 : 0) }
    /// How many subtransactions are remembered; each takes 12 bytes.
    var subtransactionCount: Int { closedSubtransactions + (isInsideBlock ? open.subtransactions.count : 0) }

    /// Takes one message.
    /// - Parameter block: what is kept of the open block's transaction is appended here.
    /// - Throws: `streamMalformed`; nothing has been appended then.
    mutating func take(
        _ message: UnsafeRawBufferPointer, into block: RecordBuffer
    ) throws(BridgeError) -> Step {
        guard let kind = message.first else { throw BridgeError.malformedStream("an empty message") }
        if isInsideBlock {
            guard kind != UInt8(ascii: "E") else {
                guard message.count == 1 else { throw BridgeError.malformedStream("a message has surplus bytes") }
                return endBlock()
            }
            try keep(kind, message, block)
            return .taken
        }
        switch kind {
        case UInt8(ascii: "S"), UInt8(ascii: "c"), UInt8(ascii: "A"), UInt8(ascii: "E"): break
        default:
            try notePlain(kind, message)
            return .plain
        }
        var reader = MessageReader(UnsafeRawBufferPointer(rebasing: message[1...]))
        let step: Step
        switch kind {
        case UInt8(ascii: "S"): step = try beginBlock(&reader)
        case UInt8(ascii: "c"): step = try commit(&reader)
        case UInt8(ascii: "A"): step = try abort(&reader)
        default: throw BridgeError.malformedStream("a block of a transaction ends that did not begin")
        }
        guard reader.isAtEnd else { throw BridgeError.malformedStream("a message has surplus bytes") }
        return step
    }

    /// What the decoder is given as well, as far as it matters here.
    private mutating func notePlain(_ kind: UInt8, _ message: UnsafeRawBufferPointer) throws(BridgeError) {
        switch kind {
        case UInt8(ascii: "B"): isInsidePlain = true
        case UInt8(ascii: "C"): isInsidePlain = false
        case UInt8(ascii: "R"):
            var reader = MessageReader(UnsafeRawBufferPointer(rebasing: message[1...]))
            let relation = try reader.integer(UInt32.self)
            order += 1
            descriptions[relation] = Description(bytes: Array(message), order: order, place: nil)
        default: break
        }
    }

    // MARK: Blocks

    private mutating func beginBlock(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        let number = try reader.integer(UInt32.self)
        let isFirst = try reader.byte() == 1
        guard !isInsidePlain else { throw BridgeError.malformedStream("a block of another transaction inside a transaction") }
        guard isFirst == (transactions[number] == nil), reader.isAtEnd else {
            throw BridgeError.malformedStream("a transaction's first block is missing, or comes twice")
        }
        open = transactions.removeValue(forKey: number) ?? Transaction()
        openNumber = number
        isInsideBlock = true
        closedSubtransactions -= open.subtransactions.count
        return .taken
    }

    private mutating func endBlock() -> Step {
        open.isNew = false
        closedSubtransactions += open.subtransactions.count
        transactions[openNumber] = open
        // So that only one holds its storage.
        open = Transaction()
        isInsideBlock = false
        return .blockEnded(openNumber)
    }

    /// Takes a message of the open block.
    @inline(__always)
    private mutating func keep(
        _ kind: UInt8, _ message: UnsafeRawBufferPointer, _ block: RecordBuffer
    ) throws(BridgeError) {
        switch kind {
        case UInt8(ascii: "I"), UInt8(ascii: "U"), UInt8(ascii: "D"):
            guard message.count >= 9 else { throw BridgeError.malformedStream("a message ends early") }
            let relation = UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 5, as: UInt32.self))
            guard try note(message) else { return }
            if open.lastRelation != relation { try describe(relation, block) }
            append(kind, message, block)
        case UInt8(ascii: "R"): try describe(message)
        case UInt8(ascii: "T"): try keepTruncate(message, block)
        case UInt8(ascii: "M"): try keepMessage(message, block)
        // The catalog is asked for types; see the decoder.
        case UInt8(ascii: "Y"): _ = try number(message)
        case UInt8(ascii: "O"): try origin(message)
        default: throw BridgeError.malformedStream("a message of an unknown kind inside a streamed transaction")
        }
    }

    @inline(__always)
    private func number(_ message: UnsafeRawBufferPointer) throws(BridgeError) -> UInt32 {
        guard message.count >= 5 else { throw BridgeError.malformedStream("a message ends early") }
        return UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 1, as: UInt32.self))
    }

    /// Notes whose change a message is. False if the transaction is passed over.
    @inline(__always)
    private mutating func note(_ message: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        let number = try number(message)
        guard !open.isPassedOver else { return false }
        open.subtransactions.note(number, of: openNumber, at: open.length, isBehindMessage: open.lastMessageEnd == open.length)
        return true
    }

    /// Keeps a message. The server names the transaction as its writer, whichever subtransaction wrote it; so nothing
    /// follows from it for subtransactions, and an aborted one may leave it in doubt.
    private mutating func keepMessage(_ message: UnsafeRawBufferPointer, _ block: RecordBuffer) throws(BridgeError) {
        _ = try number(message)
        guard !open.isPassedOver else { return }
        if open.firstMessage == nil { open.firstMessage = open.length }
        append(UInt8(ascii: "M"), message, block)
        open.lastMessageEnd = open.length
    }

    /// Keeps a message without the transaction's number.
    @inline(__always)
    private mutating func append(_ kind: UInt8, _ message: UnsafeRawBufferPointer, _ block: RecordBuffer) {
        block.append(bigEndian: UInt32(truncatingIfNeeded: message.count - 4))
        block.append(kind)
        block.append(UnsafeRawBufferPointer(rebasing: message[5...]))
        open.length += UInt64(message.count)
    }

    private mutating func keepTruncate(_ message: UnsafeRawBufferPointer, _ block: RecordBuffer) throws(BridgeError) {
        guard message.count >= 10 else { throw BridgeError.malformedStream("a message ends early") }
        let count = Int(UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 5, as: UInt32.self)))
        guard count == (message.count - 10) / 4, message.count == 10 + 4 * count else {
            throw BridgeError.malformedStream("a truncate has another number of tables than it says")
        }
        var relations: [UInt32] = []
        for index in 0..<count {
            relations.append(UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 10 + 4 * index, as: UInt32.self)))
        }
        // All of them before anything is appended.
        for relation in relations where !open.isPassedOver && open.descriptions[relation] == nil { throw Self.undescribed }
        guard try note(message) else { return }
        for relation in relations { try describe(relation, block) }
        append(UInt8(ascii: "T"), message, block)
    }

    /// Where a replicated transaction came from: told once, at the beginning of its first block.
    private mutating func origin(_ message: UnsafeRawBufferPointer) throws(BridgeError) {
        var reader = MessageReader(UnsafeRawBufferPointer(rebasing: message[1...]))
        _ = try reader.integer(UInt64.self)
        let name = try reader.name()
        guard reader.isAtEnd else { throw BridgeError.malformedStream("a message has surplus bytes") }
        guard name == passedOverOrigin else { return }
        guard open.isNew, open.length == 0 else {
            throw BridgeError.malformedStream("a transaction's origin is told behind its changes, or outside of any")
        }
        open.isPassedOver = true
    }

    // MARK: Relations

    private static var undescribed: BridgeError { .malformedStream("a change of a table that was not described") }

    /// Takes a relation message of the open block.
    private mutating func describe(_ message: UnsafeRawBufferPointer) throws(BridgeError) {
        guard message.count >= 9 else { throw BridgeError.malformedStream("a message ends early") }
        let relation = UInt32(bigEndian: message.loadUnaligned(fromByteOffset: 5, as: UInt32.self))
        let body = UnsafeRawBufferPointer(rebasing: message[5...])
        order += 1
        if let known = open.descriptions[relation], Self.holds(known.bytes, body) {
            open.descriptions[relation]?.order = order
            return
        }
        // Many transactions describe the same tables: they share the bytes.
        let shared = descriptions[relation].flatMap { Self.holds($0.bytes, body) ? $0.bytes : nil }
        open.descriptions[relation] = Description(bytes: shared ?? [UInt8(ascii: "R")] + Array(body), order: order, place: nil)
        open.lastRelation = nil
    }

    private static func holds(_ bytes: [UInt8], _ body: UnsafeRawBufferPointer) -> Bool {
        bytes.count == body.count + 1 && bytes[1...].elementsEqual(body)
    }

    /// Keeps a relation's description, unless it stands there.
    private mutating func describe(_ relation: UInt32, _ block: RecordBuffer) throws(BridgeError) {
        guard let description = open.descriptions[relation] else { throw Self.undescribed }
        if description.place == nil {
            block.append(bigEndian: UInt32(truncatingIfNeeded: description.bytes.count))
            description.bytes.withUnsafeBytes { block.append($0) }
            open.descriptions[relation]?.place = open.length
            open.length += UInt64(description.bytes.count) + 4
        }
        open.lastRelation = relation
    }

    // MARK: Ends

    private mutating func commit(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        let number = try reader.integer(UInt32.self)
        _ = try reader.byte()
        let position = try reader.integer(UInt64.self)
        let end = try reader.integer(UInt64.self)
        let time = try reader.integer(Int64.self)
        guard !isInsidePlain, end > position, reader.isAtEnd, let transaction = transactions[number] else {
            throw BridgeError.malformedStream("a streamed transaction's commit does not fit")
        }
        forget(number)
        var later: [[UInt8]] = []
        for (relation, description) in transaction.descriptions.sorted(by: { $0.value.order < $1.value.order }) {
            if let other = descriptions[relation], other.order > description.order {
                // The server described it anew to others meanwhile, and goes by that.
                if other.bytes != description.bytes { later.append(other.bytes) }
                continue
            }
            if description.place == nil { later.append(description.bytes) }
            descriptions[relation] = Description(bytes: description.bytes, order: description.order, place: nil)
        }
        return .commit(
            StreamCommit(
                transaction: number, position: position, end: end, time: time, isPassedOver: transaction.isPassedOver,
                length: transaction.length, descriptions: later))
    }

    private mutating func abort(_ reader: inout MessageReader) throws(BridgeError) -> Step {
        let number = try reader.integer(UInt32.self)
        let part = try reader.integer(UInt32.self)
        guard !isInsidePlain, reader.isAtEnd, transactions[number] != nil else {
            throw BridgeError.malformedStream("a streamed transaction's abort does not fit")
        }
        guard part != number else {
            forget(number)
            return .discard(number)
        }
        let before = transactions[number]?.subtransactions.count ?? 0
        guard let (place, isBehindMessage) = transactions[number]?.subtransactions.abort(part) else {
            // It changed nothing that is kept, or is part of another that goes next; or all it did was to write a message.
            guard transactions[number]?.firstMessage == nil else { throw Self.messageInDoubt }
            return .taken
        }
        // The message before its first change may have been its first act.
        guard !isBehindMessage else { throw Self.messageInDoubt }
        closedSubtransactions -= before - (transactions[number]?.subtransactions.count ?? 0)
        transactions[number]?.cut(to: place)
        return .cut(number, to: place)
    }

    private static var messageInDoubt: BridgeError {
        BridgeError(
            .streamingRefused,
            "a running transaction wrote messages and rolled a part back, and the server does not tell which messages were in that part; from now on it holds large transactions until they commit",
            hint: "none is needed")
    }

    private mutating func forget(_ number: UInt32) {
        guard let transaction = transactions.removeValue(forKey: number) else { return }
        closedSubtransactions -= transaction.subtransactions.count
    }
}
