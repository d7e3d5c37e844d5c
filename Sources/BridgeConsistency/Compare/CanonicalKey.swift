import BridgeCore

/// What a key is called on both sides, however either spells it: 5 and '5' in columns for decimals are one name, 5.0 is
/// another.
struct KeyName: Hashable, Sendable {
    private let bytes: [UInt8]

    /// - Parameter key: as the journal or either side has it.
    init(_ key: KeyImage, _ pair: TablePair) throws(BridgeError) {
        guard pair.hasKey, let canonical = try CanonicalKey.make(key, pair) else {
            bytes = key.bytes
            return
        }
        bytes = try RowImager.withImage(canonical) { image throws(BridgeError) in
            let buffer = RecordBuffer(capacity: image.bytes.count + 64)
            var cells = image.cells
            for index in pair.keyIndexes {
                guard let cell = try cells.next() else { throw RowImager.shapeFault }
                Normaliser().append(cell, pair.forms[index], to: buffer)
            }
            return Array(buffer.bytes)
        }
    }
}

/// Keys in dispute, by what they are called on both sides.
struct DisputedKeys: Sendable {
    private let pair: TablePair
    private let names: Set<KeyName>

    init(_ keys: some Sequence<KeyImage>, _ pair: TablePair) throws(BridgeError) {
        self.pair = pair
        var names: Set<KeyName> = []
        for key in keys { names.insert(try KeyName(key, pair)) }
        self.names = names
    }

    /// The keys that are not in dispute.
    func leaving(_ keys: some Sequence<KeyImage>) throws(BridgeError) -> [KeyImage] {
        guard !names.isEmpty else { return Array(keys) }
        var result: [KeyImage] = []
        for key in keys where !names.contains(try KeyName(key, pair)) { result.append(key) }
        return result
    }
}

extension TablePair {
    /// The keys without those that are another spelling of one before.
    func distinct(_ keys: some Sequence<KeyImage>) throws(BridgeError) -> [KeyImage] {
        var seen: Set<KeyName> = []
        var result: [KeyImage] = []
        for key in keys where seen.insert(try KeyName(key, self)).inserted { result.append(key) }
        return result
    }
}

/// Keys out of a journal of native form, as canonical cells.
enum CanonicalKey {
    /// The key with canonical cells; nil if a native cell is not one that is understood here. A key that is canonical
    /// already stays as it is.
    static func make(_ key: KeyImage, _ pair: TablePair) throws(BridgeError) -> KeyImage? {
        let columns = pair.hasKey ? pair.keyIndexes.map { pair.source.columns[$0] } : pair.source.columns
        let result = try RowImager.withImage(key) { image throws(BridgeError) -> [UInt8]? in
            guard image.columnCount == columns.count else { throw RowImager.shapeFault }
            let buffer = RecordBuffer(capacity: image.bytes.count + 64)
            buffer.beginRowImage(columns: columns.count)
            var cells = image.cells
            for column in columns {
                guard let cell = try cells.next() else { throw RowImager.shapeFault }
                guard append(cell, column.type, to: buffer) else { return nil }
            }
            return Array(buffer.bytes)
        }
        return result.map { KeyImage($0) }
    }

    private static func append(_ cell: Cell, _ type: LogicalType, to buffer: RecordBuffer) -> Bool {
        guard cell.tag == .text else {
            if cell.tag.hasBytes { buffer.appendCell(cell.tag, cell.bytes) } else { buffer.appendCell(cell.tag) }
            return cell.tag != .absent && cell.tag != .unchanged
        }
        switch type {
        case .boolean:
            guard let value = NumberText.boolean(cell.bytes) else { return false }
            buffer.appendCell(integer: value)
        case .int16, .int32, .int64:
            guard let value = NumberText.integer(cell.bytes) else { return false }
            buffer.appendCell(integer: value)
        case .float32, .float64:
            guard let value = NumberText.real(cell.bytes, single: type == .float32) else { return false }
            buffer.appendCell(real: value)
        case .bytes:
            let before = buffer.count
            Normaliser().append(cell, .blobText, to: buffer)
            return buffer.bytes[before] == CellTag.blob.rawValue
        default: buffer.appendCell(.string, cell.bytes)
        }
        return true
    }
}
