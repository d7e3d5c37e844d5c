import BridgeCore
import BridgeTestSupport

@testable import BridgeConsistency

/// A cell as tests write it.
enum TestCell: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByNilLiteral {
    case null
    case integer(Int64)
    case real(UInt64)
    case string([UInt8])
    case blob([UInt8])
    case native(String)

    init(integerLiteral value: Int64) { self = .integer(value) }
    init(stringLiteral value: String) { self = .string(Array(value.utf8)) }
    init(nilLiteral: ()) { self = .null }
    static func real(_ value: Double) -> TestCell { .real(value.bitPattern) }
    static func text(_ value: String) -> TestCell { .string(Array(value.utf8)) }

    func append(to buffer: RecordBuffer) {
        switch self {
        case .null: buffer.appendCell(.null)
        case .integer(let value): buffer.appendCell(integer: value)
        case .real(let bits): buffer.appendCell(real: Double(bitPattern: bits))
        case .string(let bytes): bytes.withUnsafeBytes { buffer.appendCell(.string, $0) }
        case .blob(let bytes): bytes.withUnsafeBytes { buffer.appendCell(.blob, $0) }
        case .native(let text): Array(text.utf8).withUnsafeBytes { buffer.appendCell(.text, $0) }
        }
    }

    /// The engine's text: how a native key names a value.
    var engineText: String {
        switch self {
        case .null: ""
        case .integer(let value): String(value)
        case .real(let bits): "\(Double(bitPattern: bits))"
        case .string(let bytes): String(decoding: bytes, as: UTF8.self)
        case .blob(let bytes): "\\x" + bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        case .native(let text): text
        }
    }

    func isFound(by key: TestCell) -> Bool {
        if case .native(let text) = key { return text == engineText }
        return self == key
    }
}

typealias TestRow = [TestCell]

func image(_ row: TestRow) -> KeyImage {
    let buffer = RecordBuffer()
    buffer.beginRowImage(columns: row.count)
    for cell in row { cell.append(to: buffer) }
    return KeyImage(Array(buffer.bytes))
}

func column(_ name: String, _ type: LogicalType, key: Bool = false) -> Relation.Column {
    Relation.Column(name: name, isKey: key, typeName: type.name, type: type)
}

func layout(
    _ columns: [Relation.Column], order: String? = "integer", serverHash: String? = nil, rows: Int64? = nil,
    incomparable: [String: String] = [:]
) -> ComparisonLayout {
    ComparisonLayout(
        table: TableName(name: "t"), columns: columns, keyOrder: order, estimatedRows: rows, serverHash: serverHash,
        incomparable: incomparable)
}

func pair(
    _ source: ComparisonLayout, _ target: ComparisonLayout? = nil, policies: EqualityPolicies = []
) -> TablePair {
    TablePair(
        mapping: TableMapping(source: source.table, target: source.table), source: source, target: target ?? source,
        policies: policies)
}

/// A picture in memory. Calls come one at a time, so its counters need no lock.
final class FakeView: ComparisonView, @unchecked Sendable {
    enum Lie { case none, secondReadDropsARow, findsNothing, hashesDisagree, failsInTheMiddle }

    let sees = ViewMark.before(Position(commit: 77))
    let rows: [TestRow]
    let lie: Lie
    private let seed: UInt64
    private(set) var reads = 0
    private(set) var openStreams = 0
    private(set) var listings = 0
    private(set) var digests = 0
    private(set) var largestFind = 0

    /// - Parameter seed: the order in which rows come.
    init(_ rows: [TestRow], seed: UInt64 = 1, lie: Lie = .none) {
        self.rows = rows
        self.seed = seed
        self.lie = lie
    }

    private static func keyIndexes(_ layout: ComparisonLayout) -> [Int] {
        let keys = layout.columns.indices.filter { layout.columns[$0].isKey }
        return keys.isEmpty ? Array(layout.columns.indices) : keys
    }

    private static func cells(_ key: KeyImage) -> TestRow {
        var row: TestRow = []
        key.bytes.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            guard let image = try? RowImage(&reader) else { return }
            var cells = image.cells
            while let cell = try? cells.next() {
                switch cell.tag {
                case .integer: row.append(.integer(cell.integer ?? 0))
                case .real: row.append(.real(cell.real ?? 0))
                case .string: row.append(.string(Array(cell.bytes)))
                case .blob: row.append(.blob(Array(cell.bytes)))
                case .text: row.append(.native(String(decoding: cell.bytes, as: UTF8.self)))
                default: row.append(.null)
                }
            }
        }
        return row
    }

    private static func precedes(_ a: TestCell, _ b: TestCell) -> Bool {
        switch (a, b) {
        case (.integer(let a), .integer(let b)): a < b
        case (.string(let a), .string(let b)), (.blob(let a), .blob(let b)): a.lexicographicallyPrecedes(b)
        default: false
        }
    }

    private func inBounds(_ request: ComparisonRequest) -> [TestRow] {
        let first = Self.keyIndexes(request.layout)[0]
        let from = request.from.flatMap { Self.cells($0).first }
        let to = request.to.flatMap { Self.cells($0).first }
        var generator = SeededGenerator(seed: seed &+ UInt64(reads))
        return rows.filter { row in
            (from.map { !Self.precedes(row[first], $0) } ?? true) && (to.map { Self.precedes(row[first], $0) } ?? true)
        }.shuffled(using: &generator)
    }

    private func found(_ request: ComparisonRequest, _ keys: [KeyImage]) -> [TestRow] {
        let indexes = Self.keyIndexes(request.layout)
        let wanted = keys.map(Self.cells)
        let exact = Set(wanted)
        let native = wanted.filter { key in
            key.contains { if case .native = $0 { true } else { false } }
        }
        // Each row once, however many of the keys find it.
        return rows.filter { row in
            exact.contains(indexes.map { row[$0] })
                || native.contains { key in
                    key.count == indexes.count && zip(indexes, key).allSatisfy { row[$0].isFound(by: $1) }
                }
        }
    }

    private func rowHash(_ row: TestRow) -> Int64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in image(row).bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        hash = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
        return Int64(bitPattern: hash ^ hash >> 29)
    }

    private func bucket(_ row: TestRow, _ layout: ComparisonLayout, _ buckets: Int) -> Int {
        let hash = rowHash(Self.keyIndexes(layout).map { row[$0] })
        return Int(UInt64(bitPattern: hash) % UInt64(buckets))
    }

    func openRows(_ request: ComparisonRequest) async throws(BridgeError) -> any RowStream {
        reads += 1
        openStreams += 1
        var rows = inBounds(request)
        if lie == .secondReadDropsARow, reads > 1, !rows.isEmpty { rows.removeLast() }
        return FakeStream(
            rows.map { image($0).bytes }, fails: lie == .failsInTheMiddle, closed: { self.openStreams -= 1 })
    }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        largestFind = max(largestFind, keys.count)
        if lie == .findsNothing { return 0 }
        let rows = found(request, keys)
        for row in rows { FakeStream.append(image(row).bytes, to: buffer) }
        return rows.count
    }

    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) async throws(BridgeError) -> Int? {
        let start = buffer.count
        let rows = try await findRows(request, keys: keys, into: buffer)
        guard keys.count > 1, buffer.count - start > limit else { return rows }
        buffer.truncate(to: start)
        return nil
    }

    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) async throws(BridgeError) -> [KeyImage] {
        rows.prefix(count).map { row in image(Self.keyIndexes(request.layout).map { row[$0] }) }
    }

    func boundary(_ request: ComparisonRequest, rows: Int) async throws(BridgeError) -> KeyImage? { nil }

    func digest(_ request: ComparisonRequest, buckets: Int) async throws(BridgeError) -> [RowDigest] {
        digests += 1
        var result = [RowDigest](repeating: RowDigest(), count: buckets)
        for row in inBounds(request) {
            // Signed, as a server's sum of bigints is.
            result[bucket(row, request.layout, buckets)].add(UInt128(truncatingIfNeeded: rowHash(row)))
        }
        return result
    }

    private func hashed(_ row: TestRow, _ layout: ComparisonLayout) -> [UInt8] {
        let hash = rowHash(row) &+ (lie == .hashesDisagree ? 1 : 0)
        return image(Self.keyIndexes(layout).map { row[$0] } + [.integer(hash)]).bytes
    }

    func openHashes(
        _ request: ComparisonRequest, buckets: Int, wanted: Set<Int>
    ) async throws(BridgeError) -> any RowStream {
        listings += 1
        openStreams += 1
        let rows = inBounds(request).filter { wanted.contains(bucket($0, request.layout, buckets)) }
        return FakeStream(
            rows.map { hashed($0, request.layout) }, fails: lie == .failsInTheMiddle, closed: { self.openStreams -= 1 })
    }

    func findHashes(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        let rows = found(request, keys)
        for row in rows { FakeStream.append(hashed(row, request.layout), to: buffer) }
        return rows.count
    }

    func close() async {}
}

private final class FakeStream: RowStream, @unchecked Sendable {
    private let rows: [[UInt8]]
    private let fails: Bool
    private let closed: () -> Void
    private var next = 0

    init(_ rows: [[UInt8]], fails: Bool, closed: @escaping () -> Void) {
        self.rows = rows
        self.fails = fails
        self.closed = closed
    }

    static func append(_ row: [UInt8], to buffer: RecordBuffer) {
        buffer.append(bigEndian: UInt32(row.count))
        row.withUnsafeBytes { buffer.append($0) }
    }

    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        let start = next
        while next < rows.count, buffer.count < limit {
            if fails, next == rows.count / 2 { throw BridgeError(.connectionLost, "gone") }
            Self.append(rows[next], to: buffer)
            next += 1
        }
        return next - start
    }

    func close() async { closed() }
}
