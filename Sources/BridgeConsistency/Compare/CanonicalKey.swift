import BridgeCore

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
