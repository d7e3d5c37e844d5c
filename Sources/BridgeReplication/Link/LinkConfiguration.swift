package import BridgeCore

/// How one link is run.
package struct LinkConfiguration: Sendable {
    package var link: LinkDescription
    /// The directory of this link's journal; made if it does not exist.
    package var journalDirectory: String
    /// How many bytes of records one target transaction may hold before it is committed; also the bound of each queue
    /// between two stages.
    package var batchBytes: Int
    /// Tables copied at a time.
    package var copyJobs: Int
    /// Disk space for the journal in bytes; nil for no bound. When it is used up, capture waits for the applier.
    package var journalBudget: Int64?
    /// How long an applied segment is kept.
    package var journalKeep: Duration
    /// Compressed size at which a segment is closed, in bytes.
    package var segmentBytes: Int64
    /// How long a lost connection is tried again before the run fails; nil for ever.
    package var patience: Duration?
    /// Whether a link that the target knows nothing of is begun, with a copy of all tables. Where one that was known goes
    /// on, the records that name it were lost, and a copy would hide that.
    package var mayBegin: Bool
    /// What is done with a change that the target's data contradicts.
    package var onConflict: ConflictPolicy
    /// Where changes that cannot be applied are told of, and where it is said what becomes of them; nil for nowhere.
    package var conflicts: ConflictFiles?

    package init(
        link: LinkDescription, journalDirectory: String, batchBytes: Int = 8 << 20, copyJobs: Int = 2,
        journalBudget: Int64? = nil, journalKeep: Duration = .seconds(24 * 3600), segmentBytes: Int64 = 64 << 20,
        patience: Duration? = nil, mayBegin: Bool = true, onConflict: ConflictPolicy = .stop,
        conflicts: ConflictFiles? = nil
    ) {
        self.link = link
        self.journalDirectory = journalDirectory
        self.batchBytes = max(batchBytes, 64 << 10)
        self.copyJobs = max(copyJobs, 1)
        self.journalBudget = journalBudget
        self.journalKeep = journalKeep
        self.segmentBytes = segmentBytes
        self.patience = patience
        self.mayBegin = mayBegin
        self.onConflict = onConflict
        self.conflicts = conflicts
    }
}
