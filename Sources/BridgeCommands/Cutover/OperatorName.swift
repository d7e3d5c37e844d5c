import Foundation

/// The name by which a process holds the operator's lease: its machine, its number, and where that number counts, so that
/// another process there can tell whether it is gone.
enum OperatorName {
    static func make() -> String {
        [ProcessInfo.processInfo.hostName, "\(getpid())", place, String(UInt32.random(in: .min ... .max), radix: 36)].joined(separator: " ")
    }

    /// Whether the process of that name has ended, for certain. Of one on another machine, or in another container, nothing
    /// is known here.
    static func isGone(_ name: String) -> Bool {
        let words = name.split(separator: " ")
        guard words.count == 4, words[2] == place, let process = pid_t(words[1]), process > 0 else { return false }
        return kill(process, 0) != 0 && errno == ESRCH
    }

    /// This start of the machine and this space of process numbers.
    private static let place: String = {
        let boot = (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)) ?? ""
        let space = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")) ?? ""
        // Without both, a place of its own: then nobody is taken for gone.
        guard boot.count > 30, !space.isEmpty else { return UUID().uuidString }
        return boot.prefix(36) + space.filter(\.isNumber)
    }()
}
