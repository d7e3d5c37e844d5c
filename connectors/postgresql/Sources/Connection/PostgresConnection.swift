package import BridgeCore
import CLibPQ

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// One session with a server. Blocks the calling thread while the server works, so it belongs into an actor on a
/// ``ThreadExecutor``; it is not safe for use by two threads at a time.
///
/// Every wait is a poll(2) on the socket and on the ``interrupter``: a signal there cancels the running statement and
/// makes the call throw `interrupted`. A dead server is noticed by keepalives and `tcp_user_timeout`; one behind something
/// that keeps the connection up without passing anything on, by ``examineSilence(_:during:)``.
package final class PostgresConnection {
    /// What the session is for.
    package enum Purpose: Sendable {
        case session
        /// A walsender in a database: replication commands, and SQL by the simple protocol.
        case replication
    }

    private let handle: PGConnectionHandle
    private let canceller: PGCancelHandle?
    package let interrupter: Interrupter
    /// Host, port and database for people.
    package let displayName: String
    /// `150018` for 15.18.
    package private(set) var serverVersion: Int = 0
    /// The server process of this session.
    package private(set) var backendProcess: Int32 = 0
    /// The schemas in which the role's own search path looks, first one first; empty for replication sessions.
    package private(set) var defaultSchemas: [String] = []
    var copyState: CopyState = .none
    /// Where the server is, to ask it over another connection; nil for the connection that asks.
    let inquiries: ConnectionString?
    let silenceLimit: Duration

    /// The libpq connection, for calls that this class does not have. It is in non-blocking mode.
    package var raw: OpaquePointer { handle.pointer }

    /// Connects, with the pinned settings of ``SessionSettings``.
    /// - Parameters:
    ///   - applicationName: what `pg_stat_activity` shows.
    ///   - interrupter: to share one among several connections; its own by default.
    ///   - isInquiry: whether this is the short connection by which another one's server is asked for it.
    /// - Throws: `serverUnreachable`, `authenticationFailed`, `serverBusy`, `rightsMissing`, `configurationInvalid`,
    ///   `interrupted`.
    package init(
        _ string: ConnectionString, purpose: Purpose = .session, applicationName: String = "bridge",
        interrupter: Interrupter? = nil, isInquiry: Bool = false
    ) throws(BridgeError) {
        let interrupter = if let interrupter { interrupter } else { try Interrupter() }
        let handle = try Self.start(string, purpose: purpose, applicationName: applicationName)
        let limit = isInquiry ? min(string.silenceLimit, .seconds(10)) : string.connectTimeout
        try Self.complete(handle, string, interrupter, patience: min(limit, string.connectTimeout))
        canceller = PGCancelHandle(handle.pointer)
        self.handle = handle
        self.interrupter = interrupter
        displayName = string.displayName
        inquiries = isInquiry ? nil : string
        silenceLimit = isInquiry ? limit : string.silenceLimit
        serverVersion = Int(PQserverVersion(raw))
        backendProcess = PQbackendPID(raw)
        guard PQsetnonblocking(raw, 1) == 0 else { throw connectionError() }
        if purpose == .session {
            let known = try rows(
                """
                SELECT s.name, p.number FROM (SELECT pg_catalog.pg_backend_pid() AS number) AS p
                LEFT JOIN pg_catalog.unnest(pg_catalog.current_schemas(false)) AS s(name) ON true
                """)
            defaultSchemas = known.compactMap { $0[0] }
            // What a pooler in between says of itself is not the server's process.
            if let process = known.first?[1].flatMap({ Int32($0) }) { backendProcess = process }
            try execute("SET search_path TO pg_catalog, pg_temp")
        }
        if serverVersion >= 170_000 { try execute("SET transaction_timeout = 0") }
    }

    // MARK: Connecting

    private static func start(
        _ string: ConnectionString, purpose: Purpose, applicationName: String
    ) throws(BridgeError) -> PGConnectionHandle {
        // What stands before `dbname` are defaults that the string may override; what stands behind overrides it.
        var words: [(String, String)] = [
            ("keepalives", "1"), ("keepalives_idle", "10"), ("keepalives_interval", "5"), ("keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
            ("dbname", string.text),
            ("application_name", applicationName),
            ("client_encoding", "UTF8"),
            (
                "options",
                SessionSettings.options(adding: string.options, keepingSearchPath: purpose == .session)
            ),
        ]
        if purpose == .replication { words.append(("replication", "database")) }
        let pointer = withCStrings(words.map { $0.0 } + [nil]) { keywords in
            withCStrings(words.map { $0.1 } + [nil]) { values in PQconnectStartParams(keywords, values, 1) }
        }
        guard let pointer else { throw BridgeError(.serverBusy, "no memory for a connection") }
        let handle = PGConnectionHandle(owning: pointer)
        // So that a refusal carries its SQLSTATE: the words alone are in the server's language.
        PQsetErrorVerbosity(pointer, PQERRORS_VERBOSE)
        bridge_ignore_notices(pointer)
        return handle
    }

    private static func complete(
        _ handle: borrowing PGConnectionHandle, _ string: ConnectionString, _ interrupter: Interrupter,
        patience: Duration
    ) throws(BridgeError) {
        let deadline = ContinuousClock.now + patience
        var state = PGRES_POLLING_WRITING
        guard PQstatus(handle.pointer) != CONNECTION_BAD else { throw ConnectFailure(handle.pointer, string).error }
        while state != PGRES_POLLING_OK {
            let events: WaitEvents = state == PGRES_POLLING_READING ? .read : .write
            switch wait(PQsocket(handle.pointer), events, interrupter, until: deadline) {
            case .ready: break
            case .interrupted: throw BridgeError(.interrupted, "connecting was interrupted")
            case .timedOut:
                throw BridgeError(
                    .serverUnreachable, "the server does not answer", context: [.init(.server, string.displayName)])
            }
            state = PQconnectPoll(handle.pointer)
            if state == PGRES_POLLING_FAILED { throw ConnectFailure(handle.pointer, string).error }
        }
        PQsetErrorVerbosity(handle.pointer, PQERRORS_DEFAULT)
    }

    // MARK: Waiting

    package struct WaitEvents: OptionSet, Sendable {
        package let rawValue: Int16
        package init(rawValue: Int16) { self.rawValue = rawValue }
        package static let read = WaitEvents(rawValue: Int16(POLLIN))
        package static let write = WaitEvents(rawValue: Int16(POLLOUT))
    }

    package enum WaitOutcome: Sendable {
        /// The socket is ready (or broken, which the next call on it tells).
        case ready(WaitEvents)
        case interrupted
        case timedOut
    }

    /// Waits until the socket is ready, the interrupter is signalled, or the deadline has passed.
    /// - Parameter ignoringInterrupts: waits on although the interrupter is signalled.
    package func wait(
        _ events: WaitEvents, until deadline: ContinuousClock.Instant? = nil, ignoringInterrupts: Bool = false
    ) -> WaitOutcome {
        Self.wait(PQsocket(raw), events, ignoringInterrupts ? nil : interrupter, until: deadline)
    }

    private static func wait(
        _ socket: Int32, _ events: WaitEvents, _ interrupter: Interrupter?, until deadline: ContinuousClock.Instant?
    ) -> WaitOutcome {
        // poll(2) passes over a negative descriptor; a closed socket is reported by the libpq call that follows.
        guard socket >= 0 else { return .ready(events) }
        while true {
            var timeout: Int32 = -1
            if let deadline {
                let left = ContinuousClock.now.duration(to: deadline)
                // The socket is looked at once even behind the deadline.
                let milliseconds = left.components.seconds * 1_000 + left.components.attoseconds / 1_000_000_000_000_000
                timeout = left > .zero ? Int32(clamping: milliseconds + 1) : 0
            }
            var entries = (
                pollfd(fd: socket, events: events.rawValue, revents: 0),
                pollfd(fd: interrupter?.descriptor ?? -1, events: Int16(POLLIN), revents: 0)
            )
            let count = withUnsafeMutableBytes(of: &entries) { bytes in
                poll(bytes.baseAddress?.assumingMemoryBound(to: pollfd.self), 2, timeout)
            }
            if count < 0 {
                guard errno == EINTR else { return .ready(events) }
                continue
            }
            if count == 0, timeout == 0 { return .timedOut }
            if entries.1.revents != 0 { return .interrupted }
            if entries.0.revents != 0 {
                var ready = WaitEvents(rawValue: entries.0.revents).intersection([.read, .write])
                // Hang-up and error show themselves when the socket is read.
                if ready.isEmpty { ready = .read }
                return .ready(ready)
            }
        }
    }

    // MARK: State

    /// Whether the session is gone for good.
    package var isBroken: Bool { PQstatus(raw) != CONNECTION_OK }

    /// Whether an idle session still has its server, as far as the socket tells without asking: a server that shut down
    /// has said so, and one that crashed has closed the socket.
    package func isAlive() -> Bool {
        // What a closing server sends is read in a few pieces, the last of which is the end.
        for _ in 0..<8 {
            guard !isBroken else { return false }
            guard case .ready = wait(.read, until: .now, ignoringInterrupts: true) else { return true }
            guard PQconsumeInput(raw) == 1 else { return false }
        }
        return !isBroken
    }

    package var isInTransaction: Bool {
        let status = PQtransactionStatus(raw)
        return status == PQTRANS_INTRANS || status == PQTRANS_INERROR
    }

    /// Whether a session that was used before can be used again. A cancelled call can leave its transaction behind, whose end
    /// was not waited for.
    var isReusable: Bool { isAlive() && !isInTransaction }

    /// - Throws: `sourceUnsupported` for a server that is too old.
    func requireSupported() throws(BridgeError) {
        guard serverVersion < 140_000 else { return }
        throw BridgeError(
            .sourceUnsupported, "the server is older than PostgreSQL 14", context: [.init(.server, displayName)],
            hint: "upgrade the server")
    }

    /// Asks the server to stop the running statement. The statement then fails with SQLSTATE 57014.
    package func cancel() { canceller?.cancel() }

    /// The error of a connection that failed underneath.
    package func connectionError(during action: String? = nil) -> BridgeError {
        // libpq's words name host and system error, never a password.
        let text = String(cString: PQerrorMessage(raw))
        var line = text.split(separator: "\n").first.map(String.init) ?? "the connection to the server was lost"
        // A severity, in the server's language, and two blanks.
        if let prefix = line.firstRange(of: ":  ") { line = String(line[prefix.upperBound...]) }
        let subject = action.map { " while \($0)" } ?? ""
        let code: ErrorCode = .connectionLost
        if let (state, message) = ConnectFailure.sqlState(in: text) {
            return ServerError(sqlState: state, message: message).bridgeError(during: action)
                .adding(.server, displayName)
        }
        return BridgeError(code, "\(line)\(subject)", context: [.init(.server, displayName)])
    }
}

/// Runs `body` with C copies of the strings.
func withCStrings<Result, Failure: Error>(
    _ strings: [String?], _ body: (UnsafePointer<UnsafePointer<CChar>?>) throws(Failure) -> Result
) throws(Failure) -> Result {
    let copies = strings.map { $0.flatMap { UnsafePointer(strdup($0)) } } + [nil]
    defer { for copy in copies { free(UnsafeMutablePointer(mutating: copy)) } }
    return try copies.withUnsafeBufferPointer { buffer throws(Failure) in
        // The list ends with nil, so it is never empty.
        guard let base = buffer.baseAddress else { preconditionFailure("an empty list of strings") }
        return try body(base)
    }
}
