import BridgeCore

/// A request's bounds, where their order is one that is known here.
struct KeyRange {
    private enum Order { case all, integer, bytes, unknown }
    private let order: Order
    private let from: KeyImage?
    private let to: KeyImage?

    init(_ request: ComparisonRequest) {
        from = request.from
        to = request.to
        if from == nil && to == nil {
            order = .all
        } else {
            switch request.layout.keyOrder {
            case "integer": order = .integer
            case "bytes", "utf8": order = .bytes
            default: order = .unknown
            }
        }
    }

    /// Whether a key lies within; nil if that cannot be told.
    func contains(_ key: KeyImage) -> Bool? {
        if order == .all { return true }
        if let from {
            guard let isBelow = isBelow(key, from) else { return nil }
            if isBelow { return false }
        }
        guard let to else { return true }
        return isBelow(key, to)
    }

    private func isBelow(_ a: KeyImage, _ b: KeyImage) -> Bool? {
        guard let (tagA, a) = Self.firstCell(a), let (tagB, b) = Self.firstCell(b) else { return nil }
        switch order {
        case .integer:
            guard tagA == .integer, tagB == .integer, a.count == 8, b.count == 8 else { return nil }
            let (x, y) = (Self.integer(a), Self.integer(b))
            return x < y
        case .bytes:
            guard tagA == tagB, tagA == .string || tagA == .blob else { return nil }
            return a.lexicographicallyPrecedes(b)
        case .all, .unknown: return nil
        }
    }

    static func integer(_ bytes: ArraySlice<UInt8>) -> Int64 {
        Int64(bitPattern: bytes.reduce(0) { $0 << 8 | UInt64($1) })
    }

    static func firstCell(_ key: KeyImage) -> (CellTag, ArraySlice<UInt8>)? {
        guard key.bytes.count >= 7, let tag = CellTag(rawValue: key.bytes[2]), tag.hasBytes else { return nil }
        let length = key.bytes[3..<7].reduce(0) { $0 << 8 | Int($1) }
        guard key.bytes.count - 7 >= length else { return nil }
        return (tag, key.bytes[7..<7 + length])
    }
}

extension KeyImage {
    /// The number, if the first column of the key is one.
    var integer: Int64? {
        bytes.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            guard let image = try? RowImage(&reader) else { return nil }
            var cells = image.cells
            return (try? cells.next())??.integer
        }
    }

    /// A bound of a range.
    init(integer: Int64) {
        let buffer = RecordBuffer(capacity: 16)
        buffer.beginRowImage(columns: 1)
        buffer.appendCell(integer: integer)
        self.init(Array(buffer.bytes))
    }
}
