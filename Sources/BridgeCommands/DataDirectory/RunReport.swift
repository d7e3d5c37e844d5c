package import BridgeCore
import Foundation

/// What a run says about one of its links twice a second, in that link's `status.json`: rates and progress that no database knows.
package struct RunReport: Codable, Hashable, Sendable {
    package struct Table: Codable, Hashable, Sendable {
        package var name: String
        package var rowsDone: Int64
        package var rowsEstimated: Int64?
        /// `pending`, `loading` or `done`.
        package var state: String

        package init(name: String, rowsDone: Int64, rowsEstimated: Int64?, state: String) {
            self.name = name
            self.rowsDone = rowsDone
            self.rowsEstimated = rowsEstimated
            self.state = state
        }
    }

    package enum State: String, Codable, Sendable {
        case running, stopped
        /// It ended with an error. If its process is alive, the link is tried again.
        case failed
    }

    package static let currentVersion = 1

    package var formatVersion = RunReport.currentVersion
    package var migration: String
    package var direction: String
    package var process: Int32
    /// Microseconds since 1970.
    package var startedAt: Int64
    package var updatedAt: Int64
    package var state: State
    /// `preparing`, `copying` or `syncing`.
    package var phase: String
    /// What the run does now: `starting`, `copying`, `streaming`, `waiting`, `stopping` or `stopped`.
    package var activity = ""
    /// The source tables' full names in the order of the configuration, as ``TableName/written``.
    package var sources: [String] = []
    /// The target tables' likewise.
    package var targets: [String]?
    /// Whether the link's source delivers now.
    package var isCapturing: Bool?
    package var tables: [Table] = []
    /// Positions in their stored form.
    package var capturedPosition: String?
    package var journaledPosition: String?
    package var appliedPosition: String?
    /// When the last applied transaction committed on the source, in microseconds since 1970.
    package var appliedCommitTime: Int64?
    package var lagSeconds: Double?
    package var rowsPerSecond: Double?
    package var transactionsPerSecond: Double?
    package var rowsApplied: Int64 = 0
    package var transactionsApplied: Int64 = 0
    package var journalBytes: Int64?
    package var copyRowsPerSecond: Double?
    package var copyEtaSeconds: Double?
    /// What a running link waits for.
    package var trouble: String?
    /// Set while the source keeps much of the log that it may keep for the link.
    package var slotWarning: String?
    /// What the link missed of its source since the run began: it goes on, and the target lacks that.
    package var missed: String?
    /// Log that the source keeps for the link, as the run last saw it.
    package var slotRetainedBytes: Int64?
    /// Why a failed run ended.
    package var error: String?
    /// When a failed link is tried again, in microseconds since 1970; nil if it is not.
    package var retryAt: Int64?

    package init(
        migration: String, direction: String, process: Int32, startedAt: Int64, updatedAt: Int64, state: State,
        phase: String
    ) {
        self.migration = migration
        self.direction = direction
        self.process = process
        self.startedAt = startedAt
        self.updatedAt = updatedAt
        self.state = state
        self.phase = phase
    }

    /// Replaces the file in one step, so that a reader never sees half of it.
    /// - Throws: `inputOutput`, `diskFull`.
    package func write(to directory: DataDirectory) throws(BridgeError) {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys]
        let file = Self.file(direction, directory)
        do {
            try FileManager.default.createDirectory(
                atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
            try encoder.encode(self).write(to: URL(fileURLWithPath: file), options: .atomic)
        } catch {
            let isFull = (error as? CocoaError)?.code == .fileWriteOutOfSpace
            throw BridgeError(
                isFull ? .diskFull : .inputOutput, "the status file cannot be written",
                context: [.init(.file, file)])
        }
    }

    private static func file(_ direction: String, _ directory: DataDirectory) -> String {
        directory.reportFile(LinkDescription.Direction(rawValue: direction) ?? .forward)
    }

    /// The link is gone, and with it what was said about it.
    package static func remove(_ direction: LinkDescription.Direction, from directory: DataDirectory) {
        try? FileManager.default.removeItem(atPath: directory.reportFile(direction))
    }

    /// The last report about a direction's link; nil if there is none, or one that this version cannot read.
    package static func read(
        from directory: DataDirectory, direction: LinkDescription.Direction = .forward
    ) -> RunReport? {
        guard let data = FileManager.default.contents(atPath: directory.reportFile(direction)) else { return nil }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let report = try? decoder.decode(RunReport.self, from: data),
            report.formatVersion == currentVersion, report.direction == direction.rawValue
        else { return nil }
        return report
    }

    /// The state now: a report that says `running` is stale when its process no longer holds the directory's lock.
    package func currentState(lockHolder: Int32?) -> State {
        state == .running && lockHolder != process ? .stopped : state
    }
}
