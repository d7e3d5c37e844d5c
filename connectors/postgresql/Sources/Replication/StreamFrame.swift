import BridgeCore

/// A message of the streaming replication protocol, as it comes in CopyData.
enum StreamFrame {
    /// WAL data: one message of the output plugin.
    case data(UnsafeRawBufferPointer)
    /// The server is alive. `walEnd`: everything that commits before it has been sent before this message.
    case keepalive(walEnd: UInt64, replyRequested: Bool)

    /// - Throws: `streamMalformed`.
    @inline(__always)
    init(_ bytes: UnsafeRawBufferPointer) throws(BridgeError) {
        guard let kind = bytes.first else { throw BridgeError.malformedStream("an empty message") }
        switch kind {
        case UInt8(ascii: "w"):
            // Kind, start, end, send time; both positions repeat what the plugin's messages say.
            guard bytes.count >= 25 else { throw BridgeError.malformedStream("a short data message") }
            self = .data(UnsafeRawBufferPointer(rebasing: bytes[25...]))
        case UInt8(ascii: "k"):
            guard bytes.count == 18 else { throw BridgeError.malformedStream("a keepalive of wrong length") }
            self = .keepalive(
                walEnd: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt64.self)),
                replyRequested: bytes[17] == 1)
        default: throw BridgeError.malformedStream("an unknown kind of message")
        }
    }
}

/// What we tell the server: how far we have received, synced and applied.
struct StandbyStatus {
    var written: UInt64
    /// The server may forget everything before it. 0: nothing is known.
    var flushed: UInt64
    var asksForReply: Bool

    /// The bytes of a standby status update.
    func write(into buffer: RecordBuffer) {
        buffer.removeAll()
        buffer.append(UInt8(ascii: "r"))
        buffer.append(bigEndian: written)
        buffer.append(bigEndian: flushed)
        // What the target has applied is not known here; the journal is what counts.
        buffer.append(bigEndian: flushed)
        buffer.append(bigEndian: PostgresEpoch.now)
        buffer.append(asksForReply ? 1 : 0)
    }
}

extension BridgeError {
    static func malformedStream(_ what: String) -> BridgeError {
        BridgeError(.streamMalformed, "the server's change stream cannot be read: \(what)")
    }
}
