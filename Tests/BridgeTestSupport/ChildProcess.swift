import BridgeCore
import Synchronization

#if canImport(Glibc)
package import Glibc
#else
package import Musl
#endif

/// A program that a test starts: the independent tool, a database server, or bridge itself.
///
/// Output goes to files in a temporary folder, so that a talkative program never waits for its reader.
package final class ChildProcess: Sendable {
    /// What a finished program left behind.
    package struct Outcome: Sendable {
        /// The exit status; the negated signal number if a signal ended it.
        package let status: Int32
        package let output: String
        package let errors: String
    }

    /// A program could not be started, or ended with a status other than 0 where 0 was asked for.
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
        package init(_ description: String) { self.description = description }
    }

    package let processIdentifier: pid_t
    private let folder: TemporaryDirectory
    private let outlivesItsHandle: Bool
    /// Its number may be another process's by then.
    private let isReaped = Atomic<Bool>(false)

    /// Starts a program.
    /// - Parameters:
    ///   - arguments: the program, looked up in PATH, and its arguments.
    ///   - environment: added to this process's own, without its PG* variables; nil removes a variable.
    ///   - input: what the program reads from its standard input.
    ///   - inputDescriptor: an open file that becomes its standard input instead.
    ///   - newSession: whether it leaves this process's session and group, and so survives a signal to the group.
    package init(
        _ arguments: [String], environment: [String: String?] = [:], input: String = "",
        inputDescriptor: Int32? = nil, newSession: Bool = false
    ) throws {
        guard let program = arguments.first else { throw Failure( "no program named") }
        folder = try TemporaryDirectory(prefix: "child")
        outlivesItsHandle = newSession
        try folder.write("input", input)

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let inputDescriptor {
            posix_spawn_file_actions_adddup2(&actions, inputDescriptor, 0)
        } else {
            posix_spawn_file_actions_addopen(&actions, 0, folder.path("input"), O_RDONLY, 0)
        }
        posix_spawn_file_actions_addopen(&actions, 1, folder.path("output"), O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, folder.path("errors"), O_WRONLY | O_CREAT | O_TRUNC, 0o600)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The threads of the cooperative pool block all signals, and a child inherits that: it would hear of no SIGTERM
        // and no alarm of its own.
        var noSignals = sigset_t()
        sigemptyset(&noSignals)
        posix_spawnattr_setsigmask(&attributes, &noSignals)
        // POSIX_SPAWN_SETSIGMASK and POSIX_SPAWN_SETSID; the overlay does not import the latter.
        posix_spawnattr_setflags(&attributes, newSession ? 0x88 : 0x08)

        let argv = arguments.map { strdup($0) } + [nil]
        let envp = Self.environment(adding: environment).map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var identifier: pid_t = 0
        let result = posix_spawnp(&identifier, program, &actions, &attributes, argv, envp)
        guard result == 0 else {
            throw Failure( "\(program) cannot be started: \(String(cString: strerror(result)))")
        }
        processIdentifier = identifier
    }

    /// Sends a signal to this one process.
    package func send(signal: Int32) {
        if !isReaped.load(ordering: .acquiring) { kill(processIdentifier, signal) }
    }

    /// A test that failed half-way leaves nothing behind that would disturb the next one.
    deinit {
        guard !outlivesItsHandle, !isReaped.load(ordering: .acquiring) else { return }
        kill(processIdentifier, SIGKILL)
        var status: Int32 = 0
        while waitpid(processIdentifier, &status, 0) < 0 && errno == EINTR {}
    }

    /// What it has written to its standard output so far.
    package var outputSoFar: String { (try? folder.read("output")) ?? "" }
    package var errorsSoFar: String { (try? folder.read("errors")) ?? "" }

    /// Waits for the end without holding a thread of the cooperative pool.
    package func wait() async -> Outcome {
        await BlockingWork().run { self.waitBlocking() }
    }

    /// Waits for the end on the calling thread.
    package func waitBlocking() -> Outcome {
        var status: Int32 = 0
        while waitpid(processIdentifier, &status, 0) < 0 && errno == EINTR {}
        isReaped.store(true, ordering: .releasing)
        let signal = status & 0x7F
        return Outcome(
            status: signal == 0 ? (status >> 8) & 0xFF : -signal, output: outputSoFar, errors: errorsSoFar)
    }

    /// Runs a program to its end and gives its output.
    /// - Throws: ``Failure`` with what it wrote to its standard error unless it ends with 0.
    @discardableResult
    package static func run(
        _ arguments: [String], environment: [String: String?] = [:], input: String = ""
    ) async throws -> String {
        let outcome = await (try ChildProcess(arguments, environment: environment, input: input)).wait()
        return try outcome.checked(arguments)
    }

    /// The same on the calling thread.
    @discardableResult
    package static func runBlocking(
        _ arguments: [String], environment: [String: String?] = [:], input: String = ""
    ) throws -> String {
        try (try ChildProcess(arguments, environment: environment, input: input)).waitBlocking().checked(arguments)
    }

    private static func environment(adding extra: [String: String?]) -> [String: String] {
        var result: [String: String] = [:]
        // The environment as the kernel handed it over: the C variable `environ` is not safe to read from Swift.
        for entry in (try? TemporaryDirectory.readFile("/proc/self/environ"))?.split(separator: "\0") ?? [] {
            let sides = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            // A PGHOST or PGPASSWORD of whoever runs the tests must not decide what they find.
            if sides.count == 2, !sides[0].hasPrefix("PG") { result[String(sides[0])] = String(sides[1]) }
        }
        for (key, value) in extra { result[key] = value }
        return result
    }
}

extension ChildProcess.Outcome {
    /// What was written to the standard output.
    /// - Parameter arguments: what was run, for the message.
    /// - Throws: ``ChildProcess/Failure`` with what it wrote unless it ended with 0.
    @discardableResult
    package func checked(_ arguments: [String]) throws -> String {
        guard status == 0 else {
            throw ChildProcess.Failure(
                "\(arguments.joined(separator: " ")): status \(status): \(errors)\(output)")
        }
        return output
    }
}

/// Runs blocking work on a thread of its own.
package actor BlockingWork {
    private nonisolated let executor = ThreadExecutor(name: "test-blocking")
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    package init() {}

    package func run<Result: Sendable, Failure: Error>(
        _ body: @Sendable () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body()
    }
}

/// A variable of this process's environment.
package func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
