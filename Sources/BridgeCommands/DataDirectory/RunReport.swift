package import BridgeCore
import Foundation

/// What a run says about itself twice a second, in `status.json`: rates and progress that no database knows.
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

    package enum State: String, Codable, Sendable { case running, stopped, failed }

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
    package var copyETASeconds: Double?
    /// What a running link waits for.
    package var trouble: String?
    /// Why a failed run ended.
    package var error: String?

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
        do {
            try encoder.encode(self).write(to: URL(fileURLWithPath: directory.statusFile), options: .atomic)
        } catch {
            let isFull = (error as? CocoaError)?.code == .fileWriteOutOfSpace
            throw BridgeError(
                isFull ? .diskFull : .inputOutput, "the status file cannot be written",
                context: [.init(.file, directory.statusFile)])
        }
    }

    /// The last report; nil if there is none, or one that this version cannot read.
    package static func read(from directory: DataDirectory) -> RunReport? {
        guard let data = FileManager.default.contents(atPath: directory.statusFile) else { return nil }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let report = try? decoder.decode(RunReport.self, from: data),
            report.formatVersion == currentVersion
        else { return nil }
        return report
    }

    /// The state now: a report that says `running` is stale when its process no longer holds the directory's lock.
    package func currentState(lockHolder: Int32?) -> State {
        state == .running && lockHolder != process ? .stopped : state
    }
}
