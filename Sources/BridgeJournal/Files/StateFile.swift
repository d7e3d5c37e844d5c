import BridgeCore
import Synchronization

/// The state file of a journal that is being written. From any thread.
final class StateFile: Sendable {
    private let directory: JournalDirectory
    private let file: OpenFile
    private let slot: Mutex<StateSlot>

    /// Opens the state file, making it if it is not there.
    /// - Parameter newest: what was read from it, if anything; it is what the next slot continues.
    init(_ directory: JournalDirectory, continuing newest: StateSlot) throws(BridgeError) {
        self.directory = directory
        let path = directory.path(of: JournalFileName.state)
        if try directory.names().contains(JournalFileName.state) {
            file = try directory.files.open(path, forWriting: true)
        } else {
            // Full length at once, so that no later write of a slot needs room on the disk.
            let made = try directory.files.create(path)
            try [UInt8](repeating: 0, count: StateSlot.fileSize).withBytes { bytes throws(BridgeError) in
                try directory.files.write(bytes, to: made, at: 0)
            }
            file = made
        }
        slot = Mutex(newest)
    }

    /// Reads the newest slot of a journal's state file; nil if there is none.
    static func read(_ directory: JournalDirectory, names: [String]) throws(BridgeError) -> StateSlot? {
        guard names.contains(JournalFileName.state) else { return nil }
        let file = try directory.files.open(directory.path(of: JournalFileName.state), forWriting: false)
        var bytes = [UInt8](repeating: 0, count: StateSlot.fileSize)
        let count = try bytes.withUnsafeMutableBufferPointer { buffer throws(BridgeError) in
            try directory.files.read(file, at: 0, into: UnsafeMutableRawBufferPointer(buffer))
        }
        return bytes.withUnsafeBytes { StateSlot.newest(inFile: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }

    /// Writes what `change` makes of the last slot into the other slot. Without `synchronize` it reaches the disk when
    /// the system sees fit, which keeps it true: it then says less than it could.
    func update(synchronize: Bool = false, _ change: (inout StateSlot) -> Void) throws(BridgeError) {
        try slot.withLock { slot throws(BridgeError) in
            var next = slot
            change(&next)
            next.sequence &+= 1
            try next.encoded().withBytes { bytes throws(BridgeError) in
                try directory.files.write(bytes, to: file, at: next.fileOffset)
            }
            slot = next
            if synchronize { try directory.files.synchronize(file) }
        }
    }

    /// States that a journal is durable up to there; earlier ends are ignored.
    func recordDurable(segment: UInt64, offset: UInt64, records: UInt64) throws(BridgeError) {
        try update { slot in
            guard (segment, offset) > (slot.durableSegment, slot.durableOffset) else { return }
            slot.durableSegment = segment
            slot.durableOffset = offset
            slot.durableRecords = records
        }
    }
}
