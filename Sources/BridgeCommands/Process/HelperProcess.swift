import BridgeCore
import Foundation
import Synchronization

/// A program that this process starts and that lives no longer than it: its standard input is a pipe which closes when
/// this process ends, in whatever way, and the program is expected to end then.
final class HelperProcess: Sendable {
    let identifier: pid_t
    private struct State {
        var input: Int32
        var status: Int32?
    }
    private let state: Mutex<State>
    /// What it writes to its standard output; nil where that goes elsewhere.
    let output: Int32?

    enum Output {
        /// Into a pipe that the caller reads.
        case pipe
        /// Standard output and standard error into a file.
        case file(String)
    }

    /// - Parameters:
    ///   - arguments: the program's path or name first.
    ///   - ownSession: whether a signal to this process's group, such as Ctrl-C, passes it by.
    /// - Throws: `inputOutput`.
    init(_ arguments: [String], output: Output, ownSession: Bool = true) throws(BridgeError) {
        let input = try Self.makePipe()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input.reading, 0)
        var outputPipe: (reading: Int32, writing: Int32)?
        switch output {
        case .pipe:
            let pipe = try Self.makePipe()
            posix_spawn_file_actions_adddup2(&actions, pipe.writing, 1)
            outputPipe = pipe
        case .file(let path):
            posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
            posix_spawn_file_actions_adddup2(&actions, 1, 2)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // POSIX_SPAWN_SETSID, which the overlay does not import.
        if ownSession { posix_spawnattr_setflags(&attributes, 0x80) }

        let argv = arguments.map { strdup($0) } + [nil]
        defer { for pointer in argv { free(pointer) } }
        let environment = ProcessInfo.processInfo.environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in environment { free(pointer) } }
        var identifier: pid_t = 0
        let result = posix_spawnp(&identifier, arguments[0], &actions, &attributes, argv, environment)
        close(input.reading)
        if let outputPipe { close(outputPipe.writing) }
        guard result == 0 else {
            close(input.writing)
            if let outputPipe { close(outputPipe.reading) }
            throw BridgeError(
                .inputOutput, "a program cannot be started",
                context: [.init(.file, arguments[0]), .init(.detail, String(cString: strerror(result)))])
        }
        self.identifier = identifier
        self.output = outputPipe?.reading
        state = Mutex(State(input: input.writing))
    }

    deinit {
        closeInput()
        if let output { close(output) }
    }

    /// Tells the program to end by closing its standard input.
    func closeInput() {
        let input = state.withLock { state in
            defer { state.input = -1 }
            return state.input
        }
        if input >= 0 { close(input) }
    }

    /// Waits for the end, on the calling thread; nil if the deadline passes first.
    /// - Returns: the exit status; negative: the signal that ended it.
    func wait(for limit: Duration) -> Int32? {
        let end = ContinuousClock.now + limit
        while true {
            let known: Int32? = state.withLock { state in
                if let status = state.status { return status }
                var status: Int32 = 0
                guard waitpid(identifier, &status, WNOHANG) == identifier else { return nil }
                state.status = status & 0x7F == 0 ? (status >> 8) & 0xFF : -(status & 0x7F)
                return state.status
            }
            if let known { return known }
            guard ContinuousClock.now < end else { return nil }
            usleep(5000)
        }
    }

    /// Runs a program to its end; gives its status. Its output goes to `log`.
    static func run(_ arguments: [String], log: String, limit: Duration = .seconds(120)) throws(BridgeError) -> Int32 {
        let process = try HelperProcess(arguments, output: .file(log), ownSession: false)
        process.closeInput()
        guard let status = process.wait(for: limit) else {
            kill(process.identifier, SIGKILL)
            throw BridgeError(.serverBusy, "a program did not end in time", context: [.init(.file, arguments[0])])
        }
        return status
    }

    private static func makePipe() throws(BridgeError) -> (reading: Int32, writing: Int32) {
        var descriptors: [Int32] = [-1, -1]
        guard pipe(&descriptors) == 0 else {
            throw BridgeError(
                .inputOutput, "a pipe cannot be made", context: [.init(.detail, String(cString: strerror(errno)))])
        }
        for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        return (descriptors[0], descriptors[1])
    }
}
