package import BridgeCore
import CLibPQ

/// Whether the session is inside a COPY.
enum CopyState { case none, `in`, out, both }

/// What came of asking for the next message of a COPY stream.
package enum CopyReceipt: Sendable {
    case message
    /// Nothing is there yet; wait for the socket.
    case pending
    case ended
}

extension PostgresConnection {
    // MARK: From the server

    /// Starts `COPY … TO STDOUT`.
    package func beginCopyOut(_ sql: String, during action: String? = nil) throws(BridgeError) {
        _ = try query(sql, during: action)
        guard copyState == .out else { throw BridgeError(.internalFault, "the statement does not copy out") }
    }

    /// Starts a replication stream.
    package func beginCopyBoth(_ command: String, during action: String? = nil) throws(BridgeError) {
        _ = try simpleQuery(command, during: action)
        guard copyState == .both else { throw BridgeError(.internalFault, "the command starts no stream") }
    }

    /// Takes the next message if it has arrived. Does not wait and does not read from the socket.
    @inline(__always)
    package func receiveCopy(_ data: inout PGCopyData) throws(BridgeError) -> CopyReceipt {
        switch data.receive(from: raw) {
        case 0: return .pending
        case -1:
            try endCopy()
            return .ended
        case -2: throw connectionError(during: "reading a stream")
        default: return .message
        }
    }

    /// Takes in what the socket has. Call it when ``wait(_:until:ignoringInterrupts:)`` says that it can be read.
    package func consumeInput() throws(BridgeError) {
        guard PQconsumeInput(raw) == 1 else { throw connectionError(during: "reading a stream") }
    }

    /// Waits for the next message.
    /// - Returns: whether there is one; false at the end of the stream, whose success has then been checked.
    package func nextCopy(_ data: inout PGCopyData) throws(BridgeError) -> Bool {
        while true {
            switch try receiveCopy(&data) {
            case .message: return true
            case .ended: return false
            case .pending: break
            }
            switch wait(.read, until: .now + silenceLimit) {
            case .ready: try consumeInput()
            case .interrupted: throw BridgeError(.interrupted, "interrupted")
            case .timedOut: try examineSilence(.read, during: "reading a stream")
            }
        }
    }

    // MARK: To the server

    /// Starts `COPY … FROM STDIN`.
    package func beginCopyIn(_ sql: String, during action: String? = nil) throws(BridgeError) {
        _ = try query(sql, during: action)
        guard copyState == .in else { throw BridgeError(.internalFault, "the statement does not copy in") }
    }

    /// Sends a piece of the stream, cut anywhere. When it returns libpq holds none of it any more.
    package func writeCopy(_ bytes: UnsafeRawBufferPointer) throws(BridgeError) {
        // libpq grows its buffer to hold what it is given, so it is given a bounded piece at a time.
        let piece = 1 << 20
        var offset = 0
        while offset < bytes.count {
            let count = min(piece, bytes.count - offset)
            guard let start = bytes.baseAddress else { return }
            let address = (start + offset).assumingMemoryBound(to: CChar.self)
            switch PQputCopyData(raw, address, Int32(count)) {
            case 1:
                offset += count
                try flush()
            case 0: try flush()
            default: throw failedCopy()
            }
        }
    }

    /// Ends the stream.
    /// - Returns: how many rows the server took.
    package func endCopyIn(during action: String? = nil) throws(BridgeError) -> Int64 {
        while true {
            let result = PQputCopyEnd(raw, nil)
            if result == 1 { break }
            guard result == 0 else { throw failedCopy() }
            try flush()
        }
        return try endCopy(during: action)
    }

    /// Makes the server give up the stream, and its transaction with it. The server's error is expected and dropped.
    package func failCopyIn(_ reason: String) {
        guard copyState == .in, PQputCopyEnd(raw, reason) == 1 else { return }
        _ = try? endCopy()
    }

    /// Takes the results that follow a stream.
    @discardableResult
    package func endCopy(during action: String? = nil) throws(BridgeError) -> Int64 {
        copyState = .none
        var failure: BridgeError?
        var rows: Int64 = 0
        var cancelledAt: ContinuousClock.Instant?
        while let result = try nextResult(&cancelledAt, during: action) {
            switch result.status {
            case PGRES_COMMAND_OK, PGRES_TUPLES_OK: rows = max(rows, result.affectedRows)
            // The server has ended its side of a replication stream; ours is ended for it.
            case PGRES_COPY_IN, PGRES_COPY_BOTH: _ = PQputCopyEnd(raw, nil)
            case PGRES_COPY_OUT: throw connectionError(during: action)
            default: failure = failure ?? error(in: result, wasCancelled: cancelledAt != nil, during: action)
            }
        }
        if let failure { throw failure }
        return rows
    }

    /// The reason why the server gave up a stream while we were still sending.
    private func failedCopy() -> BridgeError {
        do throws(BridgeError) {
            try endCopy()
            return connectionError()
        } catch { return error }
    }
}
