package import BridgeCore

/// How one link is run.
package struct LinkConfiguration: Sendable {
    package var link: LinkDescription
    /// The directory of this link's journal; made if it does not exist.
    package var journalDirectory: String
    /// Where the capture may put transactions that are still running; nil: nowhere. What is in it belongs to the running
    /// process alone.
    package var captureDirectory: String?
    /// How many bytes of records one target transaction may hold before it is committed; also the bound of each queue
    /// between two stages.
    package var batchBytes: Int
    /// Tables, or parts of them, copied at a time.
    package var copyJobs: Int
    /// About how much of a table is copied in one transaction, where the source can cut it; a smaller table is copied whole.
    package var copyPartBytes: Int64
    /// Whether indexes of tables larger than that, which can wait, are dropped and built again after the load.
    package var dropsIndexesForCopy: Bool
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
    /// How much log the source may keep for the link; nil for not to be watched.
    package var slotLimit: SlotLimit?
    /// What is done with a change that the target's data contradicts.
    package var onConflict: ConflictPolicy
    /// Where changes that cannot be applied are told of, and where it is said what becomes of them; nil for nowhere.
    package var conflicts: ConflictFiles?

    package init(
        link: LinkDescription, journalDirectory: String, captureDirectory: String? = nil, batchBytes: Int = 8 << 20,
        copyJobs: Int = 2, copyPartBytes: Int64 = 128 << 20, dropsIndexesForCopy: Bool = true,
        journalBudget: Int64? = nil, journalKeep: Duration = .seconds(24 * 3600), segmentBytes: Int64 = 64 << 20,
        patience: Duration? = nil, mayBegin: Bool = true, slotLimit: SlotLimit? = nil, onConflict: ConflictPolicy = .stop,
        conflicts: ConflictFiles? = nil
    ) {
        self.link = link
        self.journalDirectory = journalDirectory
        self.captureDirectory = captureDirectory
        self.batchBytes = max(batchBytes, 64 << 10)
        self.copyJobs = max(copyJobs, 1)
        self.copyPartBytes = max(copyPartBytes, 1)
        self.dropsIndexesForCopy = dropsIndexesForCopy
        self.journalBudget = journalBudget
        self.journalKeep = journalKeep
        self.segmentBytes = segmentBytes
        self.patience = patience
        self.mayBegin = mayBegin
        self.slotLimit = slotLimit
        self.onConflict = onConflict
        self.conflicts = conflicts
    }

    /// What the capture may use beside the journal: half as much. At its commit a transaction is written to the journal
    /// while it is kept here still, so what is to find room must find it twice. What the journal has at a moment says
    /// little of what it leaves: applied segments that are kept for their age go as soon as it needs their room.
    var captureWorkspace: CaptureWorkspace? {
        captureDirectory.map { CaptureWorkspace(directory: $0, budget: journalBudget.map { $0 / 2 }) }
    }
}
