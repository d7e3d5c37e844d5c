import BridgeCore
import Foundation

/// Runs one of the operator's commands, by `/bin/sh -c`, with a limit on its time. What it prints goes to standard error.
struct HookCommand: Sendable {
    var command: String
    var timeout: Duration
    /// Beside those of this process.
    var environment: [String: String]

    /// Runs it to its end. Blocks. Whatever it started and left in its session ends with it if it is too slow.
    /// - Throws: `hookFailed`.
    func run() throws(BridgeError) {
        let process = try start()
        let deadline = ContinuousClock.now + timeout
        var status: Int32 = 0
        var pause: UInt32 = 200
        while true {
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process { break }
            if ended < 0, errno != EINTR { throw failure("its end cannot be waited for") }
            guard ContinuousClock.now < deadline else {
                end(process)
                throw failure("it was not done in time, and was ended")
            }
            usleep(pause)
            pause = min(pause * 2, 10_000)
        }
        // As in the macros of <sys/wait.h>, which are not imported.
        let signal = status & 0x7F
        guard signal == 0 else { throw failure("it was ended by signal \(signal)") }
        let code = (status >> 8) & 0xFF
        guard code == 0 else { throw failure("its exit status was \(code)") }
    }

    /// Asks it to end, so that it can undo what it has begun, and ends it two seconds later.
    private func end(_ process: pid_t) {
        var status: Int32 = 0
        kill(-process, SIGTERM)
        let deadline = ContinuousClock.now + .seconds(2)
        while waitpid(process, &status, WNOHANG) == 0 {
            guard ContinuousClock.now < deadline else {
                kill(-process, SIGKILL)
                while waitpid(process, &status, 0) < 0, errno == EINTR {}
                return
            }
            usleep(10_000)
        }
        // What it has started and not waited for.
        kill(-process, SIGKILL)
    }

    private func start() throws(BridgeError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, 2, 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // Signals that this process ignores or blocks are heard by the hook.
        var signals = sigset_t()
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        // POSIX_SPAWN_SETSID, SETSIGMASK and SETSIGDEF, of which the overlay does not import the first.
        posix_spawnattr_setflags(&attributes, 0x80 | 0x08 | 0x04)
        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let words: [String] = ["/bin/sh", "-c", command]
        let settings: [String] = variables.map { "\($0.key)=\($0.value)" }
        let arguments = words.map { strdup($0) } + [nil]
        let names = settings.map { strdup($0) } + [nil]
        defer { for pointer in arguments + names { free(pointer) } }
        var process: pid_t = 0
        let result = posix_spawn(&process, "/bin/sh", &actions, &attributes, arguments, names)
        guard result == 0 else { throw failure(String(cString: strerror(result))) }
        return process
    }

    private func failure(_ what: String) -> BridgeError {
        BridgeError(.hookFailed, "a hook failed: \(what)", context: [.init(.detail, environment["BRIDGE_STEP"] ?? "")])
    }
}
