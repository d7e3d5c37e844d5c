import BridgeCore
import Foundation

/// What a check leaves on disk: a killed one goes on from it, a later incremental one begins with it.
struct CheckState: Codable, Sendable {
    struct Table: Codable, Sendable {
        var report: CheckReport.Table
        /// Where the next chunk begins; nil at the beginning.
        var next: [UInt8]?
        var isDone = false
        /// Whether there are more differences than are remembered.
        var hasOverflow = false
        /// The table counts as emptied by a transaction that committed here, until both views see it: what was captured
        /// before it was altered is then on both sides.
        var alteredAt: UInt64?
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
    /// What capture rested on; see ``ComparisonSource/captureFingerprint()``.
    var fingerprint: CaptureFingerprint
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
    var tables: [Table]
    /// All tables were compared whole, and the dirty keys as far as they settled.
    var isComplete = false
    /// Why nothing can be built upon it: an obligation was found broken. Only a full check that begins anew helps.
    var broken: String?
    var dirty: [Keys] = []
    var dirtyTables: [Int] = []
    /// Rows known to differ, and rows that somebody else wrote: looked at again each time.
    var suspects: [Suspect] = []
    /// Seconds that opening two views and reading up to the end of the log took, and keys compared in a second.
    var viewSeconds: Double?
    var keysPerSecond: Double?

    /// Keys of one table, one behind the other, each with its length.
    struct Keys: Codable, Sendable {
        var table: Int
        var bytes: Data

        init(table: Int, keys: [KeyImage]) {
            self.table = table
            bytes = Data()
            for key in keys {
                withUnsafeBytes(of: UInt32(clamping: key.bytes.count).bigEndian) { bytes.append(contentsOf: $0) }
                bytes.append(contentsOf: key.bytes)
            }
        }

        /// The keys; nil if the bytes are not what was written.
        var keys: [KeyImage]? {
            var keys: [KeyImage] = []
            let all = [UInt8](bytes)
            var offset = 0
            while offset < all.count {
                guard offset + 4 <= all.count else { return nil }
                let length = all[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
                guard offset + 4 + length <= all.count else { return nil }
                keys.append(KeyImage(Array(all[(offset + 4)..<(offset + 4 + length)])))
                offset += 4 + length
            }
            return keys
        }
    }

    struct Suspect: Codable, Sendable {
        var table: Int
        var key: [UInt8]
        /// Nil while it is not known to differ.
        var sample: CheckReport.Sample?
    }
}

/// Keeps the state in one file, replaced as a whole. Blocks; used from a thread that may.
struct CheckStateFile: Sendable {
    let path: String

    /// - Parameter tables: nil for the check of all tables. One of some tables stands beside it, not in its place.
    init(directory: String, tables: [TableName]?) {
        guard let tables else {
            path = directory + "/check-state.json"
            return
        }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in tables.map(\.description).sorted().joined(separator: "\n").utf8 {
            hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3
        }
        path = directory + "/check-state-\(String(hash, radix: 16)).json"
    }

    /// Nil if there is none, or none of this version, or a broken one: a full check then begins anew.
    func read() -> CheckState? {
        guard let data = FileManager.default.contents(atPath: path),
            let state = try? JSONDecoder().decode(CheckState.self, from: data),
            state.version == CheckState.currentVersion
        else { return nil }
        return state
    }

    /// - Throws: `inputOutput`.
    func write(_ state: CheckState) throws(BridgeError) {
        do {
            let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try JSONEncoder().encode(state).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw BridgeError(.inputOutput, "the check's state cannot be written", context: [.init(.file, path)])
        }
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}
