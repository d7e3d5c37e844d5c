import BridgeCore
import Synchronization

/// What a session makes of the plugin's messages: ``StreamedTransactions`` sorts them, ``TransactionSpill`` keeps those of
/// running transactions, ``PgOutputDecoder`` turns the others, and those of a transaction that has committed, into records.
struct StreamIntake {
    /// A transaction that has committed and is being read back.
    private struct ReadingBack {
        let commit: StreamCommit
        let reader: SpillReader?
        /// How many of the commit's descriptions were given to the decoder.
        var described = 0
    }

    /// Subtransactions that are remembered, of all running transactions together: 24 MB.
    static let subtransactionLimit = 2 << 20

    var decoder: PgOutputDecoder
    private var streamed: StreamedTransactions
    private let spill: TransactionSpill?
    private var readingBack: ReadingBack?

    /// - Parameter spill: nil if the server was not asked to stream transactions.
    init(_ link: LinkDescription, durable: Position, spill: TransactionSpill?) {
        decoder = PgOutputDecoder(form: link.form, durable: durable, nextTransaction: 0, link: link)
        streamed = StreamedTransactions(link: link)
        self.spill = spill
    }

    /// Whether everything that was received has been delivered, up to transactions that are still running: then all that
    /// committed before the place that a keepalive names has been delivered. Running ones commit behind that place.
    var isBetweenTransactions: Bool { !decoder.isInsideTransaction && !streamed.isInsideBlock }

    /// Whether a transaction must be read back to its end before the next message is taken.
    var isReadingBack: Bool { readingBack != nil }

    /// Takes one message of the plugin.
    @inline(__always)
    mutating func take(
        _ message: UnsafeRawBufferPointer, into buffer: RecordBuffer
    ) throws(BridgeError) -> PgOutputDecoder.Step {
        guard let spill else { return try decoder.decode(message, into: buffer) }
        switch try streamed.take(message, into: spill.block) {
        case .plain: return try decoder.decode(message, into: buffer)
        case .taken: if let transaction = streamed.blockTransaction { try spill.write(transaction, isEnd: false) }
        case .blockEnded(let transaction):
            try spill.write(transaction, isEnd: true)
            try checkSubtransactions()
        case .cut(let transaction, let size): try spill.cut(transaction, to: size)
        case .discard(let transaction): try spill.discard(transaction)
        case .commit(let commit): try begin(commit, spill)
        }
        return .nothing
    }

    private func checkSubtransactions() throws(BridgeError) {
        guard streamed.subtransactionCount > Self.subtransactionLimit else { return }
        throw BridgeError(
            .streamingRefused,
            "running transactions have more than \(Self.subtransactionLimit) subtransactions; from now on the source holds them until they commit")
    }

    private mutating func begin(_ commit: StreamCommit, _ spill: TransactionSpill) throws(BridgeError) {
        try Failpoint.captureReadBack.hit()
        let reader = try spill.reader(commit)
        try decoder.begin(commit)
        readingBack = ReadingBack(commit: commit, reader: reader)
    }

    /// Takes the next message of the transaction that is being read back. After `needsTypes` it is taken by the next call.
    mutating func readBack(into buffer: RecordBuffer) throws(BridgeError) -> PgOutputDecoder.Step {
        guard let current = readingBack else { return .nothing }
        if let reader = current.reader, let message = try reader.next() {
            let step = try decoder.decode(message, into: buffer)
            if case .needsTypes = step { reader.stepBack(over: message) }
            return step
        }
        if current.described < current.commit.descriptions.count {
            let description = current.commit.descriptions[current.described]
            let step = try decode(description, buffer)
            if case .needsTypes = step { return step }
            readingBack?.described += 1
            return step
        }
        readingBack = nil
        try spill?.discard(current.commit.transaction)
        return try decoder.end(current.commit, into: buffer)
    }

    private mutating func decode(
        _ message: [UInt8], _ buffer: RecordBuffer
    ) throws(BridgeError) -> PgOutputDecoder.Step {
        let bytes = RecordBuffer(capacity: message.count)
        message.withUnsafeBytes { bytes.append($0) }
        defer { extendLifetime(bytes) }
        return try decoder.decode(bytes.bytes, into: buffer)
    }
}

/// Whether the server may be asked to stream transactions while they run: until there was no room for one. From then on
/// it holds them until they commit, which takes longer and is right as well.
final class StreamingConsent: Sendable {
    private let isGiven = Atomic<Bool>(true)

    var holds: Bool { isGiven.load(ordering: .acquiring) }

    func withdraw(after error: BridgeError) {
        if error.code == .streamingRefused { isGiven.store(false, ordering: .releasing) }
    }
}
