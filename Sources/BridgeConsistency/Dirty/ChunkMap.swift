import BridgeCore
import Foundation

/// The chunks of a table that were compared, by their bounds, and which of them must be compared again.
struct ChunkMap: Sendable, Equatable, Codable {
    /// Beyond so many, neighbours become one.
    static let most = 1024

    /// Where each chunk ends and the next begins; the last chunk of a table that is done has no end.
    private(set) var ends: [KeyImage] = []
    /// Rows of each chunk when it was compared.
    private(set) var rows: [Int64] = []
    /// To be compared again, because more keys of them were touched than it is worth to look up, or than there is room for.
    private(set) var again: Set<Int> = []

    var count: Int { rows.count }
    /// Rows that must be compared again; a chunk that had none counts as one, as it may have some by now.
    var rowsAgain: Int64 { again.reduce(0) { $0 + max(1, rows[$1]) } }
    var rowsAll: Int64 { rows.reduce(0, +) }

    func from(_ chunk: Int) -> KeyImage? { chunk == 0 ? nil : ends[chunk - 1] }
    func to(_ chunk: Int) -> KeyImage? { chunk < ends.count ? ends[chunk] : nil }

    mutating func append(to end: KeyImage?, rows compared: Int64) {
        if let end { ends.append(end) }
        rows.append(compared)
        guard rows.count > Self.most else { return }
        // The last chunk stays as it is, so that an end is missing at the end only.
        let pairs = (rows.count - 1) / 2
        let rest = rows.indices.dropFirst(2 * pairs)
        again = Set(again.map { $0 < 2 * pairs ? $0 / 2 : $0 - pairs })
        ends = (0..<pairs).map { ends[2 * $0 + 1] } + ends.dropFirst(2 * pairs)
        rows = (0..<pairs).map { rows[2 * $0] + rows[2 * $0 + 1] } + rest.map { rows[$0] }
    }

    mutating func compareAgain(_ chunk: Int) { again.insert(chunk) }
    mutating func compareAllAgain() { again = Set(rows.indices) }
    mutating func compared(_ chunk: Int, rows found: Int64) {
        again.remove(chunk)
        rows[chunk] = found
    }

    // MARK: - Keeping

    private enum CodingKeys: String, CodingKey { case ends, rows, again }

    init() {}

    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        rows = try values.decode([Int64].self, forKey: .rows)
        again = Set(try values.decode([Int].self, forKey: .again))
        let bytes = [UInt8](try values.decode(Data.self, forKey: .ends))
        var offset = 0
        while offset < bytes.count {
            guard bytes.count - offset >= 4 else { throw Self.damage(decoder) }
            let length = bytes[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
            guard bytes.count - offset - 4 >= length else { throw Self.damage(decoder) }
            ends.append(KeyImage(Array(bytes[offset + 4..<offset + 4 + length])))
            offset += 4 + length
        }
        guard ends.count == rows.count || ends.count == rows.count - 1, again.allSatisfy(rows.indices.contains) else {
            throw Self.damage(decoder)
        }
    }

    func encode(to encoder: any Encoder) throws {
        var packed = Data()
        for end in ends {
            withUnsafeBytes(of: UInt32(clamping: end.bytes.count).bigEndian) { packed.append(contentsOf: $0) }
            packed.append(contentsOf: end.bytes)
        }
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(rows, forKey: .rows)
        try values.encode(again.sorted(), forKey: .again)
        try values.encode(packed, forKey: .ends)
    }

    private static func damage(_ decoder: any Decoder) -> DecodingError {
        .dataCorrupted(.init(codingPath: decoder.codingPath, debugDescription: "the chunks of a table are damaged"))
    }
}

/// Says in which chunk a key's row is, where the order of the table's ranges is one that is known here.
struct ChunkFinder {
    enum Place: Equatable {
        case chunk(Int)
        /// Behind all chunks that were compared.
        case ahead
        case unknown
    }

    private enum Value {
        case integer(Int64)
        case bytes([UInt8])
    }

    private let pair: TablePair
    private let ends: [Value]
    private let count: Int
    /// Whether every key that has a row here can be placed.
    let knowsOrder: Bool

    init(_ pair: TablePair, _ map: ChunkMap) {
        self.pair = pair
        count = map.count
        let isKnown = pair.usesRanges && (pair.hasExactKey || pair.source.keyOrder == "uuid")
        let values = isKnown ? map.ends.map { Self.value($0, pair.source.keyOrder) } : []
        ends = values.compactMap { $0 }
        // A table without ranges is one chunk.
        knowsOrder = pair.usesRanges ? isKnown && ends.count == values.count : map.ends.isEmpty
    }

    func place(of key: KeyImage) throws(BridgeError) -> Place {
        guard knowsOrder else { return .unknown }
        guard pair.usesRanges else { return count > 0 ? .chunk(0) : .ahead }
        guard let canonical = try CanonicalKey.make(key, pair), let value = Self.value(canonical, pair.source.keyOrder)
        else { return .unknown }
        // The first chunk that ends above it.
        var (low, high) = (0, ends.count)
        while low < high {
            let middle = (low + high) / 2
            guard let isBelow = Self.isBelow(value, ends[middle]) else { return .unknown }
            if isBelow { high = middle } else { low = middle + 1 }
        }
        // The last chunk of a table that is done has no end.
        return low < count ? .chunk(low) : .ahead
    }

    private static func value(_ key: KeyImage, _ order: String?) -> Value? {
        guard let (tag, bytes) = KeyRange.firstCell(key) else { return nil }
        switch (order, tag) {
        case ("integer", .integer) where bytes.count == 8: return .integer(KeyRange.integer(bytes))
        case ("bytes", .blob), ("utf8", .string): return .bytes(Array(bytes))
        // 16 bytes written with hexadecimal digits and four hyphens: ordered as the text is.
        case ("uuid", .string) where bytes.count == 36 && !bytes.contains(where: { (0x41...0x5A).contains($0) }):
            return .bytes(Array(bytes))
        default: return nil
        }
    }

    private static func isBelow(_ a: Value, _ b: Value) -> Bool? {
        switch (a, b) {
        case (.integer(let a), .integer(let b)): a < b
        case (.bytes(let a), .bytes(let b)): a.lexicographicallyPrecedes(b)
        default: nil
        }
    }
}
