package import BridgeCore
import Foundation

/// The layout of a migration's data directory.
///
/// - `lock`: held by the one process that may write here; holds its process number.
/// - `status.json`: what the last `run` wrote about itself.
/// - `checks/`: the reports of the last checks.
/// - `forward/journal/`: the journal of the forward link.
/// - `forward/check/`: what lets a check go on where the last one stopped.
package struct DataDirectory: Hashable, Sendable {
    /// Absolute.
    package let path: String

    package init(_ path: String) { self.path = path }

    package var lockFile: String { "\(path)/lock" }
    package var statusFile: String { "\(path)/status.json" }
    package var checksDirectory: String { "\(path)/checks" }

    package func linkDirectory(_ direction: LinkDescription.Direction) -> String { "\(path)/\(direction.rawValue)" }
    package func journalDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/journal"
    }
    package func checkDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/check"
    }

    /// Removes what a start that failed before it had a journal left here.
    package func removeIfUnused() {
        let files = FileManager.default
        guard let names = try? files.contentsOfDirectory(atPath: path),
            names.allSatisfy({ ["lock", "status.json"].contains($0) })
        else { return }
        try? files.removeItem(atPath: path)
    }

    /// Makes the directory, for its owner only: the journal holds the rows of the application.
    /// - Throws: `inputOutput`, `diskFull`.
    package func create() throws(BridgeError) {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw BridgeError(
                .inputOutput, "the data directory cannot be made", context: [.init(.file, path)],
                hint: "make the folder writable, or set data_dir to one that is")
        }
    }
}
