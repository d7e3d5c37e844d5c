package import BridgeConsistency
package import BridgeCore
package import BridgeCutover
package import BridgeReplication

/// Everything that a command needs to know about a migration: `bridge.yaml`, with flags and environment laid over it.
package struct Configuration: Sendable {
    /// The tables that one application service owns. They move together.
    package struct Service: Hashable, Sendable {
        package var name: String
        package var tables: [TableMapping]
    }

    package struct Replication: Hashable, Sendable {
        /// Upper bound of one batch in memory, in bytes.
        package var batchBytes = 8_000_000
        /// Tables, or parts of them, that are copied at a time.
        package var copyJobs = 2
        /// About how many bytes of a table are copied in one transaction; a smaller table is copied whole.
        package var copyPartBytes: Int64 = 128 << 20
        /// When the indexes of such tables are built that the target can do without meanwhile.
        package enum CopyIndexes: String, CaseIterable, Sendable { case after, keep }
        package var copyIndexes = CopyIndexes.after
        /// Connections that apply changes at a time.
        package var applyJobs = 1
        /// Bytes that the journal may take on disk before capture waits for the target.
        package var journalBudget: Int64 = 20_000_000_000
        /// How long a journal segment stays after the target has applied it.
        package var journalKeep: Duration = .seconds(24 * 3600)
        /// What to do with a change that the target's data contradicts.
        package var onConflict = ConflictPolicy.stop
        /// Bytes of log that the source may keep for the migration's replication slot.
        package var slotRetainedLimit: Int64 = 50_000_000_000
        /// What is done at that limit.
        package var atSlotLimit = SlotLimit.Action.drop
    }

    package struct Check: Hashable, Sendable {
        /// A clean check older than this opens no gate.
        package var maxAge: Duration = .seconds(15 * 60)
        /// The part of the source's throughput that a check leaves to the application: above 0, at most 1.
        package var throttle = 0.9
        /// Differences that count as none, and are counted.
        package var equal: EqualityPolicies = []
        /// Bytes of keys and differences that a check may hold.
        package var memory: Int64 = Int64(CheckOptions.standardMemory)
    }

    package struct Cutover: Hashable, Sendable {
        package var maxLag: Duration = .seconds(2)
        package var maxPause: Duration = .seconds(2)
        /// When a switch may happen; nil for always.
        package var window: CutoverWindow?
        /// For what comes before the pause, and behind the point of no return.
        package var timeout: Duration = .seconds(60)
        /// A transaction on the side that is left that has been open for longer shuts the gate.
        package var maxTransactionAge: Duration = .seconds(5)
        /// How long the application must have been on the target before `complete`.
        package var soak: Duration = .zero
        /// What `complete` does with the source's tables.
        package var oldTables = OldTables.leave
        /// Where the routes are written to; nil for `routing.json` in the data directory. Absolute.
        package var routingFile: String?
        /// Shell commands by the moment at which they run.
        package var hooks: [HookMoment: String] = [:]
        package var hookTimeout: Duration = .seconds(10)
    }

    /// A value's place in the order flag > environment > file > default.
    package enum Origin: String, Sendable { case flag, environment, file, `default` }

    package var migration: String
    package var source: DatabaseAddress
    package var target: DatabaseAddress
    /// Absolute.
    package var dataDirectory: String
    package var services: [Service]
    package var replication = Replication()
    package var check = Check()
    package var cutover = Cutover()

    /// The file that it was read from.
    package var file: String
    /// Where each setting came from, by its dotted key; a key that is not here has its default.
    package var origins: [String: Origin] = [:]

    /// The tables of all services, in the order of the file.
    package var mappings: [TableMapping] { services.flatMap(\.tables) }

    /// Where the routes are written to. Absolute.
    package var routingFile: String { cutover.routingFile ?? "\(dataDirectory)/routing.json" }

    package func origin(of key: String) -> Origin { origins[key] ?? .default }

    /// The link in one direction, with table names as the file has them.
    package func link(_ direction: LinkDescription.Direction = .forward) -> LinkDescription {
        LinkDescription(
            migration: migration, direction: direction, mappings: mappings,
            form: source.engine == target.engine ? .native : .canonical)
    }
}

/// Settings from the command line that stand above the environment and the file.
package struct ConfigurationOverrides: Sendable {
    package var file: String?
    package var dataDirectory: String?

    package init(file: String? = nil, dataDirectory: String? = nil) {
        self.file = file
        self.dataDirectory = dataDirectory
    }
}
