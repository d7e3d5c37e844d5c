import BridgeConsistency
package import BridgeCore
import BridgeReplication
import Foundation

/// The layout of a migration's data directory.
///
/// - `lock`: held by the one process that may write here; holds its process number.
/// - `status.json`, `reverse/status.json`: what the last `run` wrote about each direction's link.
/// - `checks/`: the reports of the last checks.
/// - `forward/journal/`, `reverse/journal/`: the journal of each direction's link.
/// - `forward/slot-dropped`: that the link's replication slot was given up at its limit.
/// - `forward/capture/`, `reverse/capture/`: transactions of the source that are still running, while `run` captures.
/// - `forward/conflicts/`, `reverse/conflicts/`: changes that could not be applied; see ``ConflictFiles``.
/// - `forward/served.json`, `reverse/served.json`: how far the application's own writes to that link's target go.
/// - `forward/check/`, `reverse/check/`: what lets a check go on where the last one stopped.
package struct DataDirectory: Hashable, Sendable {
    /// Absolute.
    package let path: String

    package init(_ path: String) { self.path = path }

    package var lockFile: String { "\(path)/lock" }
    package var statusFile: String { "\(path)/status.json" }
    package func reportFile(_ direction: LinkDescription.Direction) -> String {
        direction == .forward ? statusFile : "\(linkDirectory(direction))/status.json"
    }
    package var checksDirectory: String { "\(path)/checks" }

    package func linkDirectory(_ direction: LinkDescription.Direction) -> String { "\(path)/\(direction.rawValue)" }
    package func journalDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/journal"
    }
    /// Where it is written down that a link's replication slot was given up.
    package func slotFile(_ direction: LinkDescription.Direction) -> String { "\(linkDirectory(direction))/slot-dropped" }
    package func captureDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/capture"
    }
    package func conflictDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/conflicts"
    }
    /// The file with the changes of a link that were passed over; nil if there are none. Blocks, shortly.
    func deadLetterFile(_ direction: LinkDescription.Direction) -> String? {
        let path = "\(conflictDirectory(direction))/\(ConflictFiles.deadLetterName)"
        var status = stat()
        return stat(path, &status) == 0 && status.st_size > 0 ? path : nil
    }
    var deadLetterFiles: [String] { [LinkDescription.Direction.forward, .reverse].compactMap { deadLetterFile($0) } }
    package func checkDirectory(_ direction: LinkDescription.Direction) -> String {
        "\(linkDirectory(direction))/check"
    }

    /// How far the writes go that the application made to a link's target while it was served there.
    private func servedWritesFile(_ direction: LinkDescription.Direction) -> WholeFile {
        WholeFile(path: "\(linkDirectory(direction))/served.json", what: "the record of writes served", permissions: 0o600)
    }

    /// Blocks.
    func keep(_ served: ServedWrites, _ direction: LinkDescription.Direction) throws(BridgeError) {
        guard let text = try? JSONEncoder().encode(served) else { return }
        try servedWritesFile(direction).write(String(decoding: text, as: UTF8.self))
    }

    /// Nil if there are none, or none that can be read: then all of them count as others'. Blocks.
    func servedWrites(_ direction: LinkDescription.Direction) -> ServedWrites? {
        guard let text = FileManager.default.contents(atPath: servedWritesFile(direction).path) else { return nil }
        return try? JSONDecoder().decode(ServedWrites.self, from: text)
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
