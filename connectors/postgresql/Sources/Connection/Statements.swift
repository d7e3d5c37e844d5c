package import BridgeCore
import CLibPQ

extension PostgresConnection {
    /// Runs one or more statements by the simple protocol, without looking at their rows.
    package func execute(_ sql: String, during action: String? = nil) throws(BridgeError) {
        _ = try simpleQuery(sql, during: action)
    }

    /// Runs statements by the simple protocol, the only one that a replication session has; gives the last result.
    package func simpleQuery(_ sql: String, during action: String? = nil) throws(BridgeError) -> PGResult {
        try checkInterrupt()
        guard PQsendQuery(raw, sql) == 1 else { throw connectionError(during: action) }
        return try finishStatement(during: action)
    }

    /// Runs a command that may have to wait for others on the server. When the deadline has passed it calls `onTimeout`,
    /// while the server is still waiting, and then cancels the command, which fails.
    package func simpleQuery(
        _ sql: String, deadline: ContinuousClock.Instant, during action: String? = nil,
        onTimeout: () throws(BridgeError) -> Void
    ) throws(BridgeError) -> PGResult {
        try checkInterrupt()
        guard PQsendQuery(raw, sql) == 1 else { throw connectionError(during: action) }
        try flush()
        while PQisBusy(raw) != 0 {
            switch wait(.read, until: deadline) {
            case .ready: try consumeInput()
            // finishStatement cancels for an interrupt, and waits for the answer.
            case .interrupted: return try finishStatement(during: action)
            case .timedOut:
                var failure: BridgeError?
                do throws(BridgeError) { try onTimeout() } catch { failure = error }
                cancel()
                let result = try finishStatement(during: action)
                if let failure { throw failure }
                return result
            }
        }
        return try finishStatement(during: action)
    }

    /// Waits without doing anything.
    /// - Throws: `interrupted`.
    package func pause(_ duration: Duration) throws(BridgeError) {
        let end = ContinuousClock.now + duration
        // Nothing is asked of the server, but a closed connection ends the wait, which the next call then reports.
        if case .interrupted = wait([], until: end) { throw BridgeError(.interrupted, "interrupted") }
    }

    /// Runs one statement with text parameters.
    /// - Parameter binary: whether the columns of the result come in binary format.
    package func query(
        _ sql: String, _ parameters: [String?] = [], binary: Bool = false, during action: String? = nil
    ) throws(BridgeError) -> PGResult {
        try checkInterrupt()
        let sent = withCStrings(parameters) { values in
            PQsendQueryParams(raw, sql, Int32(clamping: parameters.count), nil, values, nil, nil, binary ? 1 : 0)
        }
        guard sent == 1 else { throw connectionError(during: action) }
        return try finishStatement(during: action)
    }

    /// Runs one statement and gives its rows as text. For the catalog and for settings, not for row data.
    package func rows(
        _ sql: String, _ parameters: [String?] = [], during action: String? = nil
    ) throws(BridgeError) -> [[String?]] {
        try query(sql, parameters, during: action).allText()
    }

    /// Prepares a statement under a name.
    package func prepare(
        _ name: String, _ sql: String, types: [UInt32] = [], during action: String? = nil
    ) throws(BridgeError) {
        try checkInterrupt()
        guard PQsendPrepare(raw, name, sql, Int32(clamping: types.count), types) == 1 else {
            throw connectionError(during: action)
        }
        _ = try finishStatement(during: action)
    }

    /// Runs a prepared statement with text parameters.
    package func executePrepared(
        _ name: String, _ parameters: [String?] = [], binary: Bool = false, during action: String? = nil
    ) throws(BridgeError) -> PGResult {
        try checkInterrupt()
        let sent = withCStrings(parameters) { values in
            PQsendQueryPrepared(raw, name, Int32(clamping: parameters.count), values, nil, nil, binary ? 1 : 0)
        }
        guard sent == 1 else { throw connectionError(during: action) }
        return try finishStatement(during: action)
    }

    /// Runs `body` in a transaction: commits when it returns, rolls back when it throws.
    /// - Parameter begin: `BEGIN` with its options.
    package func inTransaction<Result>(
        _ begin: String = "BEGIN", _ body: () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        try execute(begin)
        do throws(BridgeError) {
            let result = try body()
            try execute("COMMIT")
            return result
        } catch {
            if !isBroken { try? execute("ROLLBACK") }
            throw error
        }
    }

    // MARK: Plumbing

    func checkInterrupt() throws(BridgeError) {
        if interrupter.isSignalled { throw BridgeError(.interrupted, "interrupted") }
    }

    /// Sends what libpq has buffered, taking in what the server sends meanwhile, so that neither waits for the other.
    /// - Throws: `connectionLost`, also when the deadline passes, or without one when a silent server turns out not to be
    ///   at work; `interrupted`.
    package func flush(
        until deadline: ContinuousClock.Instant? = nil, ignoringInterrupts: Bool = false
    ) throws(BridgeError) {
        while true {
            let result = PQflush(raw)
            if result == 0 { return }
            guard result > 0 else { throw connectionError() }
            switch wait([.read, .write], until: deadline ?? .now + silenceLimit, ignoringInterrupts: ignoringInterrupts) {
            case .ready(let events):
                if events.contains(.read), PQconsumeInput(raw) == 0 { throw connectionError() }
            case .interrupted: throw BridgeError(.interrupted, "interrupted")
            case .timedOut where deadline == nil: try examineSilence([.read, .write])
            case .timedOut:
                throw BridgeError(
                    .connectionLost, "the server does not take what is sent to it", context: [.init(.server, displayName)])
            }
        }
    }

    /// Waits for a sent statement's results and gives the last one, or throws the first error.
    private func finishStatement(during action: String?) throws(BridgeError) -> PGResult {
        var last: PGResult?
        var failure: BridgeError?
        var cancelledAt: ContinuousClock.Instant?
        while let result = try nextResult(&cancelledAt, during: action) {
            let status = result.status
            switch status {
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: last = consume result
            case PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH:
                // The stream begins; its end brings the remaining results.
                copyState = status == PGRES_COPY_OUT ? .out : status == PGRES_COPY_IN ? .in : .both
                return result
            default:
                failure = failure ?? error(in: result, wasCancelled: cancelledAt != nil, during: action)
            }
        }
        if let failure { throw failure }
        guard let result = last.take() else { throw connectionError(during: action) }
        return result
    }

    /// The next result of what was sent; nil behind the last.
    /// - Parameter cancelledAt: set once the interrupter has made us cancel the statement.
    func nextResult(
        _ cancelledAt: inout ContinuousClock.Instant?, during action: String?
    ) throws(BridgeError) -> PGResult? {
        while true {
            let flushed = PQflush(raw)
            guard flushed >= 0 else { throw connectionError(during: action) }
            if flushed == 0, PQisBusy(raw) == 0 { break }
            // A server that does not answer a cancellation within this time is taken for gone.
            let deadline = cancelledAt.map { $0 + .seconds(10) } ?? .now + silenceLimit
            let wanted: WaitEvents = flushed > 0 ? [.read, .write] : .read
            switch wait(wanted, until: deadline, ignoringInterrupts: cancelledAt != nil) {
            case .ready(let events):
                if events.contains(.read), PQconsumeInput(raw) == 0 { throw connectionError(during: action) }
            case .interrupted:
                cancel()
                cancelledAt = .now
            case .timedOut where cancelledAt == nil: try examineSilence(wanted, during: action)
            case .timedOut: throw BridgeError(.interrupted, "interrupted; the server did not answer")
            }
        }
        guard let pointer = PQgetResult(raw) else { return nil }
        return PGResult(owning: pointer)
    }

    /// Translates an error result.
    func error(in result: borrowing PGResult, wasCancelled: Bool, during action: String?) -> BridgeError {
        let report = ServerError(result)
        if report.sqlState == "57014" && wasCancelled { return BridgeError(.interrupted, "interrupted") }
        // Without a SQLSTATE the error was made by libpq: the connection is gone.
        if report.sqlState.isEmpty { return connectionError(during: action) }
        return report.bridgeError(during: action)
    }
}
