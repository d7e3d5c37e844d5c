package import BridgeCore

/// What a check is to do.
package struct CheckOptions: Sendable {
    package var mode: CheckReport.Mode
    /// The source's names of the tables to look at; nil for all of the link.
    package var tables: [TableName]?
    /// Whether some tables are looked at out of what is known of all of the link, instead of a check of their own.
    package var buildsOnWhole = false
    /// Whether the report may hold the values of rows that differ.
    package var showValues: Bool
    /// How many differing rows of a table the report names.
    package var sampleLimit: Int
    /// A file that gets every differing key; nil for none.
    package var differencesFile: String?
    /// The part of the source's throughput that must remain to the application: 0 to 1.
    package var throttle: Double
    /// Where a check keeps what lets a later one go on.
    package var stateDirectory: String
    package var journalDirectory: String
    /// Whether rows that differ are written to the target as the source has them.
    package var repair: Bool
    /// How long a database, or the link, may keep the check waiting before it gives up.
    package var patience: Duration
    /// Whether to wait, as long as ``patience``, for another check out of the same state directory. One that does not
    /// throws `alreadyRunning` at once.
    package var waitsForOthers = true
    /// Rows of a chunk; nil for as many as take a while. A chunk is what is done again after a kill, and how long a view is
    /// held.
    package var chunkRows: Int?

    /// The application's own writes to the target, from when it was served there.
    package var servedWrites: ServedWrites?
    /// Differences that are let pass, and counted.
    package var policies: EqualityPolicies = []
    /// How many rows a sample draws from either side of a table.
    package var sampleRows = CheckOptions.standardSampleRows
    /// What the rows of a sample are drawn by; nil for one that nobody knows beforehand.
    package var sampleSeed: UInt64?
    /// Bytes of keys and of rows found to differ that may be held: what was touched and is not settled, what is in dispute,
    /// and what a report tells. Above it more is compared again than looked up.
    package var memory = CheckOptions.standardMemory

    package static let standardMemory = 256 << 20
    package static let standardSampleRows = 1000

    package init(
        mode: CheckReport.Mode = .full, tables: [TableName]? = nil, showValues: Bool = false, sampleLimit: Int = 10,
        differencesFile: String? = nil, throttle: Double = 0.9, stateDirectory: String, journalDirectory: String,
        repair: Bool = false, patience: Duration = .seconds(60)
    ) {
        self.mode = mode
        self.tables = tables
        self.showValues = showValues
        self.sampleLimit = max(0, sampleLimit)
        self.differencesFile = differencesFile
        self.throttle = min(max(throttle, 0), 1)
        self.stateDirectory = stateDirectory
        self.journalDirectory = journalDirectory
        self.repair = repair
        self.patience = patience
    }
}
