import BridgeCore

/// Turns differing rows into samples for the report.
struct SampleMaker {
    let pair: TablePair
    let showValues: Bool
    let position: String?

    /// - Parameters:
    ///   - key: the key's image; of a table without a key it is the row, and shown only with `showValues`.
    ///   - source: the row, if it is there and values are to be shown.
    func sample(
        _ kind: CheckReport.Sample.Kind, key: KeyImage, columns: [String] = [], sourceHash: String? = nil,
        targetHash: String? = nil, source: UnsafeRawBufferPointer? = nil, target: UnsafeRawBufferPointer? = nil
    ) throws(BridgeError) -> CheckReport.Sample {
        var sample = CheckReport.Sample(
            kind: kind, key: pair.hasKey ? try keyText(key) : [:], columns: columns, position: position,
            sourceHash: sourceHash, targetHash: targetHash)
        guard showValues else { return sample }
        if let source { sample.sourceValues = Self.cut(try values(source)) }
        if let target { sample.targetValues = Self.cut(try values(target)) }
        return sample
    }

    /// Bytes of a value that are shown. The columns that differ are named whatever their values.
    static let shownBytes = 16_384

    private static func cut(_ values: [String: String?]) -> [String: String?] {
        values.mapValues { value in
            guard let value, value.utf8.count > shownBytes else { return value }
            var end = value.utf8.index(value.startIndex, offsetBy: shownBytes)
            while value.unicodeScalars.indices.startIndex < end, end.samePosition(in: value.unicodeScalars) == nil {
                end = value.utf8.index(before: end)
            }
            return "\(value[..<end])… (\(value.utf8.count) bytes)"
        }
    }

    private func keyText(_ key: KeyImage) throws(BridgeError) -> [String: String?] {
        try RowImager.withImage(key) { image throws(BridgeError) in
            try text(image, pair.keyIndexes.map { pair.source.columns[$0].name })
        }
    }

    private func values(_ row: UnsafeRawBufferPointer) throws(BridgeError) -> [String: String?] {
        var reader = ByteReader(row)
        return try text(try RowImage(&reader), pair.source.columns.map(\.name))
    }

    private func text(_ image: RowImage, _ names: [String]) throws(BridgeError) -> [String: String?] {
        guard image.columnCount == names.count else { throw RowImager.shapeFault }
        var result: [String: String?] = [:]
        var cells = image.cells
        for name in names { result.updateValue(try cells.next().flatMap(Self.text), forKey: name) }
        return result
    }

    private static func text(_ cell: Cell) -> String? {
        switch cell.tag {
        case .null, .unchanged, .absent: return nil
        case .integer: return cell.integer.map(String.init) ?? hexadecimal(cell.bytes)
        case .real: return cell.real.map { "\($0)" } ?? hexadecimal(cell.bytes)
        case .blob: return hexadecimal(cell.bytes)
        case .text, .string: return String(decoding: cell.bytes, as: UTF8.self)
        }
    }

    private static func hexadecimal(_ bytes: UnsafeRawBufferPointer) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text = Array("\\x".utf8)
        text.reserveCapacity(2 + 2 * bytes.count)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// A hash as text, of as many digits as it can have.
    static func text(_ hash: UInt128, digits: Int) -> String {
        let text = String(hash, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
