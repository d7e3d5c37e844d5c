import BridgeCore
import BridgeReplication
import BridgeCutover
import Foundation

extension CutoverStage: TeardownParts {
    /// The ledger as it was when the migration ended.
    static func archivePath(_ configuration: Configuration) -> String { "\(configuration.dataDirectory)/cutover.json" }

    func archive(_ entries: [LedgerEntry], completed: Bool) async throws(BridgeError) {
        // A second run finds the ledger removed, and the file complete.
        guard !entries.isEmpty || !FileManager.default.fileExists(atPath: Self.archivePath(configuration)) else { return }
        let document: JSONValue = [
            "format_version": 1, "migration": .string(configuration.migration), "completed": .bool(completed),
            "ended_at": .string(Timestamp.now.rfc3339),
            "ledger": .array(
                entries.map {
                    [
                        "number": .integer($0.number), "written_at": .string($0.writtenAt.rfc3339), "attempt": .string($0.attempt),
                        "kind": .string($0.kind), "content": .string($0.content), "checksum": .string($0.checksum),
                    ]
                }),
        ]
        let file = WholeFile(path: Self.archivePath(configuration), what: "the ledger's archive", permissions: 0o600)
        try await BlockingWork().run { () throws(BridgeError) in try file.write(document.pretty + "\n") }
    }

    func removeLink(_ direction: LinkDescription.Direction) async throws(BridgeError) {
        try await directions.target(direction).removeLink(directions.link(direction))
    }

    func removeCapture(_ direction: LinkDescription.Direction) async throws(BridgeError) {
        try await directions.source(direction).removeCapture(directions.link(direction))
    }

    func removeFiles() async throws(BridgeError) { try await migration.directory.removeLinks(patience: setup.limits.timeout) }
}

extension DataDirectory {
    /// Removes journals and what checks keep; the reports of checks stay, and the changes that were passed over: nothing else
    /// has them.
    /// - Throws: `serverBusy` if another process still uses them after `patience`.
    func removeLinks(patience: Duration) async throws(BridgeError) {
        // Whoever keeps the links at work sees that their records are gone, and ends.
        let deadline = ContinuousClock.now + patience
        while DirectoryLock.holder(of: self) != nil {
            guard ContinuousClock.now < deadline else {
                throw BridgeError(
                    .serverBusy, "another bridge process still uses the data directory", context: [.init(.file, lockFile)],
                    hint: "stop it, then run the command again")
            }
            try? await Task.sleep(for: .milliseconds(50))
        }
        try await BlockingWork().run { () throws(BridgeError) in
            for direction in [LinkDescription.Direction.forward, .reverse] {
                if let letters = deadLetterFile(direction) {
                    try clear(linkDirectory(direction), except: conflictDirectory(direction))
                    try clear(conflictDirectory(direction), except: letters)
                } else {
                    try remove(linkDirectory(direction))
                }
            }
            try remove(statusFile)
        }
    }

    /// Removes what is in a folder, but for one path.
    private func clear(_ folder: String, except kept: String) throws(BridgeError) {
        let names: [String]
        do { names = try FileManager.default.contentsOfDirectory(atPath: folder) } catch { throw notRemoved(folder) }
        for name in names where "\(folder)/\(name)" != kept { try remove("\(folder)/\(name)") }
    }

    private func remove(_ path: String) throws(BridgeError) {
        guard FileManager.default.fileExists(atPath: path) else { return }
        do { try FileManager.default.removeItem(atPath: path) } catch { throw notRemoved(path) }
    }

    private func notRemoved(_ path: String) -> BridgeError {
        BridgeError(.inputOutput, "the migration's files cannot be removed", context: [.init(.file, path)])
    }
}
