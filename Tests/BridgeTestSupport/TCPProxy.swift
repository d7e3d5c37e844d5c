#if canImport(Glibc)
import Glibc
#else
import Musl
#endif
import Synchronization

/// Stands between a client and a server on 127.0.0.1, and fails as networks do: it cuts connections, keeps bytes back, or
/// loses them, in either direction. What it keeps back or loses it has acknowledged, so neither end's TCP notices.
///
/// Has a thread of its own.
package final class TCPProxy: Sendable {
    /// What becomes of the bytes of a direction.
    package enum Flow: Sendable {
        case passing
        /// They are kept back, and go on later.
        case stalled
        /// They are taken and lost. Later ones are of no use to anybody either.
        case losing
    }

    private struct State {
        var upstream: UInt16
        var toServer = Flow.passing
        var toClient = Flow.passing
        /// New connections are closed at once.
        var isRefusing = false
        var isCutting = false
        var isEnding = false
        /// Connections that were made later are let pass.
        var lastAffected = Int.max
        var accepted = 0
        var open = 0
        /// How often the settings were set, and how many of those the thread goes by.
        var version = 0
        var adopted = 0
    }

    /// Where clients connect to.
    package let port: UInt16
    private let state: Mutex<State>

    package init(to upstream: UInt16) throws {
        let (listener, port) = try Self.listener()
        self.port = port
        state = Mutex(State(upstream: upstream))
        let loop = Loop(listener: listener) { [weak self] body in
            guard let self else { return false }
            return self.state.withLock { state in
                body(&state.accepted, &state.open)
                return !state.isEnding
            }
        } settings: { [weak self] in
            guard let self else { return nil }
            return self.state.withLock { state in
                defer { state.isCutting = false }
                state.adopted = state.version
                return Loop.Settings(
                    upstream: state.upstream, toServer: state.toServer, toClient: state.toClient,
                    isRefusing: state.isRefusing, isCutting: state.isCutting, lastAffected: state.lastAffected)
            }
        }
        var thread = pthread_t()
        let context = Unmanaged.passRetained(loop).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<Loop>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context)
        guard result == 0 else { throw ChildProcess.Failure("no thread for a proxy") }
        pthread_detach(thread)
    }

    deinit { state.withLock { $0.isEnding = true } }

    /// Where new connections go to.
    package func redirect(to upstream: UInt16) { state.withLock { $0.upstream = upstream } }

    /// Sets what becomes of bytes in both directions. When it returns, no byte passes as before.
    /// - Parameter sparesNew: whether that holds for the connections of now alone.
    package func set(toServer: Flow, toClient: Flow, sparesNew: Bool = false) {
        let version = state.withLock { state in
            state.lastAffected = sparesNew ? state.accepted : .max
            state.toServer = toServer
            state.toClient = toClient
            state.version += 1
            return state.version
        }
        while state.withLock({ $0.adopted < version }) { usleep(1_000) }
    }

    /// Closes all connections; new ones are refused until ``restore()``.
    package func cut() {
        state.withLock { state in
            state.isCutting = true
            state.isRefusing = true
        }
    }

    /// Closes all connections; new ones are welcome. When it returns, whoever connects is new.
    package func drop() {
        state.withLock { $0.isCutting = true }
        while state.withLock({ $0.isCutting }) { usleep(1_000) }
    }

    /// Everything passes again.
    package func restore() {
        state.withLock { state in
            state.isRefusing = false
            state.toServer = .passing
            state.toClient = .passing
        }
    }

    /// Connections that were made so far.
    package var accepted: Int { state.withLock { $0.accepted } }
    /// Connections that are open now.
    package var open: Int { state.withLock { $0.open } }

    // MARK: Sockets

    /// A port of 127.0.0.1 that is free now.
    package static func freePort() throws -> UInt16 {
        let (descriptor, port) = try listener()
        close(descriptor)
        return port
    }

    private static func listener() throws -> (Int32, UInt16) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw ChildProcess.Failure("no socket") }
        var address = Self.address(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0 }
        }
        guard isBound, listen(descriptor, 64) == 0 else {
            close(descriptor)
            throw ChildProcess.Failure("no port")
        }
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    fileprivate static func address(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }
}

/// A child that was started at the wrong moment may hold a copy; the connection ends all the same.
private func closeDescriptor(_ descriptor: Int32) {
    shutdown(descriptor, Int32(SHUT_RDWR))
    close(descriptor)
}

private func takeConnection(_ listener: Int32) -> Int32 { accept(listener, nil, nil) }

private let noSignal = Int32(0x4000)

/// The thread's own state: nobody else touches it.
private final class Loop {
    struct Settings {
        var upstream: UInt16
        var toServer: TCPProxy.Flow
        var toClient: TCPProxy.Flow
        var isRefusing: Bool
        var isCutting: Bool
        var lastAffected: Int

        /// What becomes of a connection's bytes, by its number.
        func flow(_ flow: TCPProxy.Flow, _ number: Int) -> TCPProxy.Flow { number > lastAffected ? .passing : flow }
    }

    /// One direction of a connection.
    private struct Pipe {
        var from: Int32
        var to: Int32
        var kept: [UInt8] = []
        var hasEnded = false
    }

    private let listener: Int32
    private let report: @Sendable ((inout Int, inout Int) -> Void) -> Bool
    private let settings: @Sendable () -> Settings?
    private var pairs: [(number: Int, up: Pipe, down: Pipe)] = []
    private var accepted = 0

    init(
        listener: Int32, report: @escaping @Sendable ((inout Int, inout Int) -> Void) -> Bool,
        settings: @escaping @Sendable () -> Settings?
    ) {
        self.listener = listener
        self.report = report
        self.settings = settings
    }

    func run() {
        while let settings = settings() {
            if settings.isCutting { closeAll() }
            wait(settings)
            accept(settings)
            for index in pairs.indices {
                Self.move(&pairs[index].up, settings.flow(settings.toServer, pairs[index].number))
                Self.move(&pairs[index].down, settings.flow(settings.toClient, pairs[index].number))
            }
            pairs.removeAll { pair in
                guard pair.up.hasEnded || pair.down.hasEnded else { return false }
                Self.close(pair.up)
                return true
            }
            let open = pairs.count
            guard report({ $1 = open }) else { break }
        }
        closeAll()
        closeDescriptor(listener)
    }

    private func closeAll() {
        for pair in pairs { Self.close(pair.up) }
        pairs = []
    }

    private static func close(_ pipe: Pipe) {
        closeDescriptor(pipe.from)
        closeDescriptor(pipe.to)
    }

    /// Until something is there to do, and never for long, since the settings may change.
    private func wait(_ settings: Settings) {
        var entries = [pollfd(fd: listener, events: Int16(POLLIN), revents: 0)]
        for pair in pairs {
            for (pipe, flow) in [(pair.up, settings.toServer), (pair.down, settings.toClient)] {
                if settings.flow(flow, pair.number) == .stalled { continue }
                entries.append(
                    pipe.kept.isEmpty
                        ? pollfd(fd: pipe.from, events: Int16(POLLIN), revents: 0)
                        : pollfd(fd: pipe.to, events: Int16(POLLOUT), revents: 0))
            }
        }
        _ = poll(&entries, nfds_t(entries.count), 10)
    }

    private func accept(_ settings: Settings) {
        var entry = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, 0) == 1 else { return }
        let client = takeConnection(listener)
        guard client >= 0 else { return }
        _ = fcntl(client, F_SETFD, FD_CLOEXEC)
        _ = fcntl(client, F_SETFL, O_NONBLOCK)
        let server = settings.isRefusing ? -1 : socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = TCPProxy.address(settings.upstream)
        let isConnected = server >= 0
            && withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                }
            }
        guard isConnected else {
            if server >= 0 { closeDescriptor(server) }
            closeDescriptor(client)
            return
        }
        _ = fcntl(server, F_SETFL, O_NONBLOCK)
        var on: Int32 = 1
        for descriptor in [client, server] { setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4) }
        accepted += 1
        pairs.append((accepted, Pipe(from: client, to: server), Pipe(from: server, to: client)))
        _ = report { accepted, _ in accepted += 1 }
    }

    private static func move(_ pipe: inout Pipe, _ flow: TCPProxy.Flow) {
        guard flow != .stalled else { return }
        if pipe.kept.isEmpty {
            var chunk = [UInt8](repeating: 0, count: 64 << 10)
            let count = read(pipe.from, &chunk, chunk.count)
            if count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR) { pipe.hasEnded = true }
            guard count > 0, flow == .passing else { return }
            pipe.kept = Array(chunk[..<count])
        }
        let sent = send(pipe.to, pipe.kept, pipe.kept.count, noSignal)
        if sent > 0 { pipe.kept.removeFirst(sent) } else if errno != EAGAIN && errno != EINTR { pipe.hasEnded = true }
    }
}
