import BridgeCore
import BridgeJournal
import Foundation

/// Reads what ``CheckStateWriter`` wrote, whatever became of it.
///
/// A frame that is not whole ends the file, if it is the last one: then it is an addition that a crash cut off, and what
/// stands before it is the state that was there before it, keys and position together. Damage before the end is none that
/// a crash leaves; such a file counts as not there.
enum CheckStateReader {
    static func read(_ path: String, withKeys: Bool) -> CheckState? {
        guard let data = try? Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped) else { return nil }
        return data.withUnsafeBytes { read($0, withKeys: withKeys) }
    }

    static func read(_ bytes: UnsafeRawBufferPointer, withKeys: Bool) -> CheckState? {
        guard bytes.starts(with: CheckStateForm.mark), let frames = frames(bytes) else { return nil }
        var reading = Reading(withKeys: withKeys)
        for frame in frames {
            guard reading.take(UnsafeRawBufferPointer(rebasing: bytes[frame])) else { return nil }
        }
        return reading.whole
    }

    /// The frames up to the last one with which a state is whole; nil if there is none, or damage before the end.
    private static func frames(_ bytes: UnsafeRawBufferPointer) -> [Range<Int>]? {
        var frames: [Range<Int>] = []
        var whole = 0
        var before: UInt32 = 0
        var offset = CheckStateForm.mark.count
        while bytes.count - offset >= CheckStateForm.headBytes {
            func number<Number: FixedWidthInteger>(_ place: Int, _ type: Number.Type) -> Number {
                Number(bigEndian: bytes.loadUnaligned(fromByteOffset: offset + place, as: type))
            }
            let start = offset + CheckStateForm.headBytes
            guard let length = Int(exactly: number(12, UInt64.self)), length <= bytes.count - start else { break }
            let end = start + length
            let isRight =
                number(0, UInt32.self) == Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[offset + 4..<end]))
                && number(4, UInt32.self) == before
            guard isRight else {
                if end < bytes.count { return nil }
                break
            }
            before = number(0, UInt32.self)
            frames.append(start..<end)
            if number(8, UInt32.self) == 1 { whole = frames.count }
            offset = end
        }
        return whole == 0 ? nil : Array(frames.prefix(whole))
    }

    /// Entry after entry.
    private struct Reading {
        let withKeys: Bool
        private var dirty = DirtySet()
        private var suspects = SuspectSet()
        private var tables: [CheckState.Table] = []
        private var head: CheckState?

        init(withKeys: Bool) { self.withKeys = withKeys }

        /// Nil if an entry is missing without which nothing can be built upon the others.
        var whole: CheckState? {
            guard var state = head else { return nil }
            guard (Array(dirty.keys.keys) + Array(suspects.rows.keys) + state.dirtyTables).allSatisfy(tables.indices.contains)
            else { return nil }
            state.tables = tables
            state.dirty = dirty
            state.dirty.saved()
            state.suspects = suspects
            state.suspects.saved()
            return state
        }

        /// False if it is none that was written.
        mutating func take(_ frame: UnsafeRawBufferPointer) -> Bool {
            var reader = ByteReader(frame)
            while !reader.isAtEnd {
                guard let tag = try? reader.readInteger(UInt8.self), let entry = CheckStateForm.Entry(rawValue: tag),
                    let table = try? reader.readInteger(UInt32.self), let length = try? reader.readInteger(UInt32.self),
                    let bytes = try? reader.readBytes(Int(length)), take(entry, Int(table), bytes)
                else { return false }
            }
            return true
        }

        private mutating func take(_ entry: CheckStateForm.Entry, _ table: Int, _ bytes: UnsafeRawBufferPointer) -> Bool {
            switch entry {
            case .touched: if withKeys { dirty.touch(table, KeyImage(Array(bytes))) }
            case .settled: if withKeys { dirty.settle(table, KeyImage(Array(bytes))) }
            case .suspect: return !withKeys || takeSuspect(table, bytes)
            case .cleared: suspects.clear(table, KeyImage(Array(bytes)))
            case .clearedTable: suspects.clear(table)
            case .table:
                guard let value = try? JSONDecoder().decode(CheckState.Table.self, from: Data(bytes)), table <= tables.count
                else { return false }
                if table == tables.count { tables.append(value) } else { tables[table] = value }
            case .head:
                guard let value = try? JSONDecoder().decode(CheckState.self, from: Data(bytes)),
                    value.version == CheckState.currentVersion
                else { return false }
                head = value
            }
            return true
        }

        private mutating func takeSuspect(_ table: Int, _ bytes: UnsafeRawBufferPointer) -> Bool {
            var reader = ByteReader(bytes)
            guard let length = try? reader.readInteger(UInt32.self), let key = try? reader.readBytes(Int(length)) else {
                return false
            }
            let image = KeyImage(Array(key))
            guard reader.offset < bytes.count else { return suspects.suspect(table, image) }
            let rest = Data(bytes[reader.offset...])
            guard let sample = try? JSONDecoder().decode(CheckReport.Sample.self, from: rest) else { return false }
            suspects.found(table, image, sample)
            return true
        }
    }
}
