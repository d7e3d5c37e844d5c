import BridgeCore

/// Makes the hashes of rows out of their images. Has buffers that are used again for every row, so one task owns it.
final class RowImager {
    /// What a row is matched by.
    struct Hashes {
        /// Of the key, policies applied; of the whole row if there is no key.
        var key: UInt128
        /// Of the whole row without policies.
        var strict: UInt128
        /// Of the whole row with policies.
        var lenient: UInt128
    }

    let pair: TablePair
    private let hasher: RowHasher
    private let strict = Normaliser()
    private let lenient: Normaliser
    private let scratch = RecordBuffer(capacity: 4096)
    private let keyScratch = RecordBuffer(capacity: 512)
    private let rawKeyScratch = RecordBuffer(capacity: 512)
    private let isKey: [Bool]
    private let isRawFirst: Bool
    private let firstKey: Int
    private let lastKey: Int
    private let isKeyContiguous: Bool

    init(_ pair: TablePair, hasher: RowHasher) {
        self.pair = pair
        self.hasher = hasher
        lenient = Normaliser(policies: pair.policies)
        isKey = pair.forms.indices.map { !pair.hasKey || pair.keyIndexes.contains($0) }
        isRawFirst = pair.firstForms.allSatisfy { $0 == .raw }
        firstKey = pair.keyIndexes.first ?? 0
        lastKey = pair.keyIndexes.last ?? pair.forms.count - 1
        isKeyContiguous = !pair.hasKey || lastKey - firstKey + 1 == pair.keyIndexes.count
    }

    // MARK: The first pass

    /// A number by which rows fall into buckets, and a hash: rows whose hashes are equal are equal.
    @inline(__always)
    func first(_ image: UnsafeRawBufferPointer) throws(BridgeError) -> (bucket: UInt64, hash: UInt128) {
        guard isRawFirst else {
            try build(image, pair.firstForms, strict)
            let hash = hasher.hash(scratch.bytes)
            return (UInt64(truncatingIfNeeded: pair.hasKey ? hasher.hash(keyScratch.bytes) : hash), hash)
        }
        let key = try rawKey(image)
        let hash = hasher.hash(image)
        return (UInt64(truncatingIfNeeded: pair.hasKey ? hasher.hash(key) : hash), hash)
    }

    // MARK: Matching

    func hashes(_ image: UnsafeRawBufferPointer) throws(BridgeError) -> Hashes {
        try build(image, pair.forms, strict)
        let exact = hasher.hash(scratch.bytes)
        if !pair.policies.isEmpty { try build(image, pair.forms, lenient) }
        let loose = pair.policies.isEmpty ? exact : hasher.hash(scratch.bytes)
        return Hashes(key: pair.hasKey ? hasher.hash(keyScratch.bytes) : loose, strict: exact, lenient: loose)
    }

    /// ``Hashes/key`` out of a key's image.
    func keyHash(_ key: KeyImage) throws(BridgeError) -> UInt128 {
        try Self.withImage(key) { image throws(BridgeError) in
            let count = pair.hasKey ? pair.keyIndexes.count : pair.forms.count
            guard image.columnCount == count else { throw Self.shapeFault }
            keyScratch.removeAll()
            var cells = image.cells
            var index = 0
            while let cell = try cells.next() {
                lenient.append(cell, pair.forms[pair.hasKey ? pair.keyIndexes[index] : index], to: keyScratch)
                index += 1
            }
            return hasher.hash(keyScratch.bytes)
        }
    }

    /// The hash of a key's cells as they stand, out of its image.
    func rawKeyHash(_ key: KeyImage) -> UInt128 {
        key.bytes.withUnsafeBytes { hasher.hash(UnsafeRawBufferPointer(rebasing: $0.dropFirst(2))) }
    }

    /// The same out of the row.
    @inline(__always)
    func rawKeyHash(of image: UnsafeRawBufferPointer) throws(BridgeError) -> UInt128 { hasher.hash(try rawKey(image)) }

    /// The key's image out of the row's.
    func keyImage(of image: UnsafeRawBufferPointer) throws(BridgeError) -> KeyImage {
        let cells = try rawKey(image)
        let count = UInt16(truncatingIfNeeded: pair.hasKey ? pair.keyIndexes.count : pair.forms.count)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(2 + cells.count)
        bytes.append(UInt8(truncatingIfNeeded: count >> 8))
        bytes.append(UInt8(truncatingIfNeeded: count))
        bytes.append(contentsOf: cells)
        return KeyImage(bytes)
    }

    // MARK: Naming what differs

    /// The columns in which two rows differ, and the policies that the other ones need.
    func differences(
        _ source: UnsafeRawBufferPointer, _ target: UnsafeRawBufferPointer
    ) throws(BridgeError) -> (columns: [String], policies: EqualityPolicies) {
        var readers = (ByteReader(source), ByteReader(target))
        let (left, right) = (try RowImage(&readers.0), try RowImage(&readers.1))
        guard left.columnCount == pair.forms.count, right.columnCount == pair.forms.count else { throw Self.shapeFault }
        var (leftCells, rightCells) = (left.cells, right.cells)
        var columns: [String] = []
        var policies: EqualityPolicies = []
        for (index, form) in pair.forms.enumerated() {
            guard let a = try leftCells.next(), let b = try rightCells.next() else { throw Self.shapeFault }
            if areEqual(a, b, form, strict) { continue }
            guard areEqual(a, b, form, lenient) else {
                columns.append(pair.source.columns[index].name)
                continue
            }
            let possible = form.policies.intersection(pair.policies)
            let enough = possible.singles.filter { areEqual(a, b, form, Normaliser(policies: $0)) }
            policies.formUnion(enough.first ?? possible)
        }
        return (columns, policies)
    }

    private func areEqual(_ a: Cell, _ b: Cell, _ form: CellForm, _ normaliser: Normaliser) -> Bool {
        scratch.removeAll()
        keyScratch.removeAll()
        normaliser.append(a, form, to: scratch)
        normaliser.append(b, form, to: keyScratch)
        return scratch.bytes.elementsEqual(keyScratch.bytes)
    }

    // MARK: Images

    /// Writes the row's form into `scratch` and its key's into `keyScratch`.
    private func build(
        _ bytes: UnsafeRawBufferPointer, _ forms: [CellForm], _ normaliser: Normaliser
    ) throws(BridgeError) {
        var reader = ByteReader(bytes)
        let image = try RowImage(&reader)
        guard image.columnCount == forms.count, reader.isAtEnd else { throw Self.shapeFault }
        scratch.removeAll()
        keyScratch.removeAll()
        var cells = image.cells
        var index = 0
        while let cell = try cells.next() {
            let start = scratch.count
            normaliser.append(cell, forms[index], to: scratch)
            if isKey[index], pair.hasKey {
                keyScratch.append(UnsafeRawBufferPointer(rebasing: scratch.bytes[start...]))
            }
            index += 1
        }
    }

    /// The key's cells as they stand, valid until the next call; checks the whole image on the way.
    @inline(__always)
    private func rawKey(_ image: UnsafeRawBufferPointer) throws(BridgeError) -> UnsafeRawBufferPointer {
        let count = pair.forms.count
        guard image.count >= 2, Int(UInt16(bigEndian: image.loadUnaligned(as: UInt16.self))) == count else {
            throw Self.shapeFault
        }
        if !isKeyContiguous { rawKeyScratch.removeAll() }
        var offset = 2
        var start = 2
        var end = image.count
        for index in 0..<count {
            let cellStart = offset
            guard offset < image.count, let tag = CellTag(rawValue: image[offset]) else { throw Self.shapeFault }
            offset += 1
            if tag.hasBytes {
                guard image.count - offset >= 4 else { throw Self.shapeFault }
                let length = Int(UInt32(bigEndian: image.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
                offset += 4
                guard image.count - offset >= length else { throw Self.shapeFault }
                offset += length
            }
            if pair.hasKey {
                if index == firstKey { start = cellStart }
                if index == lastKey { end = offset }
                if !isKeyContiguous, isKey[index] {
                    rawKeyScratch.append(UnsafeRawBufferPointer(rebasing: image[cellStart..<offset]))
                }
            }
        }
        guard offset == image.count else { throw Self.shapeFault }
        return isKeyContiguous ? UnsafeRawBufferPointer(rebasing: image[start..<end]) : rawKeyScratch.bytes
    }

    static var shapeFault: BridgeError {
        BridgeError(.recordMalformed, "a row read for comparison has not the shape of its table")
    }

    /// Reads a key's image in place.
    static func withImage<Answer>(
        _ key: KeyImage, _ body: (RowImage) throws(BridgeError) -> Answer
    ) throws(BridgeError) -> Answer {
        let result: Result<Answer, BridgeError> = key.bytes.withUnsafeBytes { bytes in
            do throws(BridgeError) {
                var reader = ByteReader(bytes)
                let image = try RowImage(&reader)
                guard reader.isAtEnd else { throw shapeFault }
                return .success(try body(image))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}

/// Calls `body` with each row image of a buffer that a view filled.
@inline(__always)
func forEachRow(
    in buffer: RecordBuffer, _ body: (UnsafeRawBufferPointer) throws(BridgeError) -> Void
) throws(BridgeError) {
    let bytes = buffer.bytes
    var offset = 0
    while offset < bytes.count {
        guard bytes.count - offset >= 4 else { throw RowImager.shapeFault }
        let length = Int(UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        offset += 4
        guard bytes.count - offset >= length else { throw RowImager.shapeFault }
        try body(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length]))
        offset += length
    }
}
