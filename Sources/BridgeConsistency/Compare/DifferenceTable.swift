import BridgeCore

/// A row of a differing bucket. Equal rows of one side are one entry with a count.
struct DifferenceEntry {
    var key: UInt128
    var strict: UInt128
    var lenient: UInt128
    var count: Int64
    /// The row's size; 0 if it was not seen.
    var weight: Int

    static let size = 64
    /// Bytes of an entry's place in the index.
    static let indexed = 96
}

/// Entries with their keys' images, in memory.
final class DifferenceTable {
    private struct Name: Hashable {
        var key: UInt128
        var strict: UInt128
    }

    /// Entry after entry: fields, the length of the key's image, the image.
    private let arena = RecordBuffer(capacity: 4096)
    private var places: [Name: Int] = [:]

    var count: Int { places.count }
    var bytes: UnsafeRawBufferPointer { arena.bytes }
    /// What it holds in memory.
    var footprint: Int { arena.count + places.count * DifferenceEntry.indexed }

    func add(_ entry: DifferenceEntry, image: UnsafeRawBufferPointer) {
        let name = Name(key: entry.key, strict: entry.strict)
        if let place = places[name] {
            let total = self.entry(at: place).count &+ entry.count
            arena.mutableBytes.storeBytes(of: total, toByteOffset: place + 48, as: Int64.self)
            return
        }
        places[name] = arena.count
        arena.reserve(DifferenceEntry.size + 4 + image.count)
        append(entry.key)
        append(entry.strict)
        append(entry.lenient)
        append(entry.count)
        append(UInt64(truncatingIfNeeded: entry.weight))
        append(UInt32(truncatingIfNeeded: image.count))
        arena.append(image)
    }

    private func append<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value) { arena.append($0) }
    }

    func entry(at place: Int) -> DifferenceEntry { Self.entry(arena.bytes, place) }

    func image(at place: Int) -> KeyImage { KeyImage(Array(Self.image(arena.bytes, place))) }

    static func entry(_ bytes: UnsafeRawBufferPointer, _ place: Int) -> DifferenceEntry {
        DifferenceEntry(
            key: bytes.loadUnaligned(fromByteOffset: place, as: UInt128.self),
            strict: bytes.loadUnaligned(fromByteOffset: place + 16, as: UInt128.self),
            lenient: bytes.loadUnaligned(fromByteOffset: place + 32, as: UInt128.self),
            count: bytes.loadUnaligned(fromByteOffset: place + 48, as: Int64.self),
            weight: Int(truncatingIfNeeded: bytes.loadUnaligned(fromByteOffset: place + 56, as: UInt64.self)))
    }

    static func image(_ bytes: UnsafeRawBufferPointer, _ place: Int) -> UnsafeRawBufferPointer {
        let start = place + DifferenceEntry.size + 4
        return UnsafeRawBufferPointer(rebasing: bytes[start..<end(bytes, place)])
    }

    /// Where the next entry begins.
    static func end(_ bytes: UnsafeRawBufferPointer, _ place: Int) -> Int {
        let length = bytes.loadUnaligned(fromByteOffset: place + DifferenceEntry.size, as: UInt32.self)
        return place + DifferenceEntry.size + 4 + Int(length)
    }

    /// All entries by key.
    func sorted() -> [(key: UInt128, place: Int)] {
        places.map { (key: $0.key.key, place: $0.value) }.sorted { $0 < $1 }
    }

    func removeAll() {
        arena.removeAll(retaining: 1 << 20)
        places = [:]
    }
}

/// The entries of one side: in memory as long as there are few, else in a file, cut into partitions by key.
///
/// One task owns it at a time.
final class DifferenceSide: @unchecked Sendable {
    static let partitions = 64

    private(set) var table = DifferenceTable()
    private let limit: Int
    private let file: SpillFile
    private var blocks = [[(offset: Int, count: Int)]](repeating: [], count: partitions)
    private(set) var isSpilled = false

    /// - Parameter limit: bytes in memory.
    init(limit: Int, folder: String?) {
        self.limit = limit
        file = SpillFile(folder: folder)
    }

    var needsSpill: Bool { table.footprint > limit }

    /// Bytes of a partition in the file.
    func bytes(in partition: Int) -> Int { blocks[partition].reduce(0) { $0 + $1.count } }

    func spill() async throws(BridgeError) {
        isSpilled = true
        let block = RecordBuffer()
        // Ordered by key, entries are ordered by partition, which is the key's top bits.
        var partition = 0
        for (key, place) in table.sorted() {
            let next = Int(truncatingIfNeeded: key >> 122)
            if next != partition || block.count > limit {
                try await write(block, to: partition)
                partition = next
            }
            block.append(UnsafeRawBufferPointer(rebasing: table.bytes[place..<DifferenceTable.end(table.bytes, place)]))
        }
        try await write(block, to: partition)
        table.removeAll()
    }

    private func write(_ block: RecordBuffer, to partition: Int) async throws(BridgeError) {
        guard !block.isEmpty else { return }
        blocks[partition].append((try await file.append(block), block.count))
        block.removeAll(retaining: 1 << 20)
    }

    /// Reads the part `part` of `parts` of a partition.
    func load(_ partition: Int, part: UInt64, of parts: UInt64) async throws(BridgeError) -> DifferenceTable {
        let result = DifferenceTable()
        let buffer = RecordBuffer()
        for block in blocks[partition] {
            buffer.removeAll(retaining: 1 << 20)
            try await file.read(at: block.offset, count: block.count, into: buffer)
            var place = 0
            while place < buffer.count {
                let entry = DifferenceTable.entry(buffer.bytes, place)
                if UInt64(truncatingIfNeeded: entry.key) % parts == part {
                    result.add(entry, image: DifferenceTable.image(buffer.bytes, place))
                }
                place = DifferenceTable.end(buffer.bytes, place)
            }
        }
        return result
    }
}
