import BridgeCore
import Foundation

/// What a check leaves on disk: a killed one goes on from it, a later incremental one begins with it.
struct CheckState: Codable, Sendable {
    struct Table: Codable, Sendable, Equatable {
        var report: CheckReport.Table
        /// Where the next chunk begins; nil at the beginning.
        var next: [UInt8]?
        var isDone = false
        /// Whether there are more differences than are remembered.
        var hasOverflow = false
        /// The table counts as emptied by a transaction that committed here, until both views see it: what was captured
        /// before it was altered is then on both sides.
        var alteredAt: UInt64?
        /// What was compared, chunk by chunk.
        var chunks = ChunkMap()
    }

    /// Which watch over writes by others the target has, and the mark that this check leaves beside it.
    struct Watch: Codable, Sendable {
        var identity: String
        /// The name of the mark: new for each full check that begins anew.
        var check: String
        /// How often it was raised when this was written; the target never has less, unless it was put back.
        var counter: Int64
    }

    static let currentVersion = 2

    var version = CheckState.currentVersion
    var checkId: String
    var startedAt: String
    /// What capture was bound to.
    var origin: String
    /// What is compared, and how.
    var selection: String
    /// Which differences were let pass.
    var policies: [String] = []
    /// What capture rested on; see ``ComparisonSource/captureFingerprint()``.
    var fingerprint: CaptureFingerprint
    /// What the tables were defined as when it began. A check of what changed since compares no other rows, so it is true of
    /// these definitions only.
    var schemas = CheckedSchemas()
    /// Every key touched by a transaction that commits at or after it is dirty, or was settled since.
    var from: UInt64
    /// From where an incremental check reads the journal: the last views saw all before it.
    var journaled: UInt64
    /// The furthest that a view of the target had applied. A later view that has less means that the target was put back.
    var applied: UInt64 = 0
    /// Nil for a sample, which asks for no watch.
    var watch: Watch?
    /// The number of the last write to the target by others before the first view was opened.
    var foreignBefore: Int64
    /// The number of the last of them whose row is, or was, a suspect.
    var foreignRead: Int64 = 0
    /// How many of those since were others' indeed, and the number of the newest.
    var foreignOthers: Int64 = 0
    var foreignNewest: Int64 = 0
    /// All tables were compared whole, and the dirty keys as far as they settled.
    var isComplete = false
    /// Why nothing can be built upon it: an obligation was found broken. Only a full check that begins anew helps.
    var broken: String?
    var dirtyTables: [Int] = []
    /// Seconds that opening two views and reading up to the end of the log took, and keys compared in a second.
    var viewSeconds: Double?
    var keysPerSecond: Double?

    // Records of their own in the file, so that what did not change is not written again.
    var tables: [Table]
    /// Only where the state was read from disk: the keys, and the rows known to differ or written by somebody else.
    var dirty = DirtySet()
    var suspects = SuspectSet()

    private enum CodingKeys: String, CodingKey {
        case version, checkId, startedAt, origin, selection, policies, fingerprint, schemas, from, journaled, applied, watch, foreignBefore
        case foreignRead, foreignOthers, foreignNewest, isComplete, broken, dirtyTables, viewSeconds, keysPerSecond
    }

    init(
        checkId: String, startedAt: String, origin: String, selection: String, fingerprint: CaptureFingerprint, from: UInt64,
        journaled: UInt64, foreignBefore: Int64, tables: [Table]
    ) {
        self.checkId = checkId
        self.startedAt = startedAt
        self.origin = origin
        self.selection = selection
        self.fingerprint = fingerprint
        self.from = from
        self.journaled = journaled
        self.foreignBefore = foreignBefore
        self.tables = tables
    }

    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        version = try values.decode(Int.self, forKey: .version)
        checkId = try values.decode(String.self, forKey: .checkId)
        startedAt = try values.decode(String.self, forKey: .startedAt)
        origin = try values.decode(String.self, forKey: .origin)
        selection = try values.decode(String.self, forKey: .selection)
        policies = try values.decode([String].self, forKey: .policies)
        fingerprint = try values.decode(CaptureFingerprint.self, forKey: .fingerprint)
        schemas = try values.decodeIfPresent(CheckedSchemas.self, forKey: .schemas) ?? CheckedSchemas()
        from = try values.decode(UInt64.self, forKey: .from)
        journaled = try values.decode(UInt64.self, forKey: .journaled)
        applied = try values.decode(UInt64.self, forKey: .applied)
        watch = try values.decodeIfPresent(Watch.self, forKey: .watch)
        foreignBefore = try values.decode(Int64.self, forKey: .foreignBefore)
        foreignRead = try values.decodeIfPresent(Int64.self, forKey: .foreignRead) ?? foreignBefore
        foreignOthers = try values.decodeIfPresent(Int64.self, forKey: .foreignOthers) ?? 0
        foreignNewest = try values.decodeIfPresent(Int64.self, forKey: .foreignNewest) ?? 0
        isComplete = try values.decode(Bool.self, forKey: .isComplete)
        broken = try values.decodeIfPresent(String.self, forKey: .broken)
        dirtyTables = try values.decode([Int].self, forKey: .dirtyTables)
        viewSeconds = try values.decodeIfPresent(Double.self, forKey: .viewSeconds)
        keysPerSecond = try values.decodeIfPresent(Double.self, forKey: .keysPerSecond)
        tables = []
    }
}

/// Where a check keeps its state. Blocks; used from a thread that may.
struct CheckStateFile: Sendable {
    let path: String

    /// - Parameter tables: nil for the check of all tables. One of some tables stands beside it, not in its place.
    init(directory: String, tables: [TableName]?) {
        guard let tables else {
            path = directory + "/check.state"
            return
        }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in tables.map(\.description).sorted().joined(separator: "\n").utf8 {
            hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
        }
        path = directory + "/check-\(String(hash, radix: 16)).state"
    }

    /// Nil if there is none, or none of this version, or a broken one: a full check then begins anew.
    func read() -> CheckState? { CheckStateReader.read(path, withKeys: true) }

    /// The same without keys and rows.
    func readHead() -> CheckState? { CheckStateReader.read(path, withKeys: false) }

    /// Replaces it as a whole.
    /// - Throws: `inputOutput`, `diskFull`.
    func write(_ state: CheckState) throws(BridgeError) {
        var (dirty, suspects) = (state.dirty, state.suspects)
        let writer = CheckStateWriter(path: path)
        try writer.save(state, &dirty, &suspects, asWhole: true)
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}
