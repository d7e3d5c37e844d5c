import BridgeCore

/// What a run of changes does to one table, as the net effect on each key.
///
/// Changes are noted in source order. Whatever cannot be told as "these rows go, these change, these come" sets
/// ``needsExactOrder``; the table's changes are then applied one by one in source order.
final class RelationEffects {
    /// How the relation's rows can be told apart.
    struct Layout: Hashable, Sendable {
        var columnCount: Int
        /// Positions of the key's columns in a row image, ascending; empty if rows have no key.
        var keyColumns: [Int]
        /// The target has columns that the source does not know. A row must then not be deleted and inserted again where
        /// the source only changed its key: those columns would lose their values.
        var targetHasOwnColumns: Bool
    }

    let layout: Layout
    private(set) var table = EffectTable()
    /// Inserted rows of a table without a key, by their offset in the batch.
    private(set) var keylessInserts = ContiguousArray<Int>()
    /// Images put together from several, because the last one left values out.
    private(set) var merged = RecordBuffer(capacity: 1 << 10)
    /// The sets of columns left out by images that are used for updates: one bit a column, 64 to a word. Set 0 is empty.
    private(set) var groups: [[UInt64]]
    /// The rows are stated by upserts and removes.
    private(set) var isStateOnly = false
    /// The net effect cannot be told, or the server refused it: the table's changes are applied in source order.
    var needsExactOrder = false
    /// The server refused what is written: all touched rows are taken out before any is written.
    var needsReplacing = false

    private let maximumGroups = 1_000

    init(layout: Layout) {
        self.layout = layout
        groups = [[UInt64](repeating: 0, count: layout.columnCount / 64 + 1)]
    }

    var isEmpty: Bool { table.entries.isEmpty && keylessInserts.isEmpty }

    func removeAll() {
        table.removeAll()
        keylessInserts.removeAll(keepingCapacity: keylessInserts.count < 1 << 20)
        merged.removeAll(retaining: 1 << 20)
        groups.removeSubrange(1...)
        isStateOnly = false
        needsExactOrder = false
        needsReplacing = false
    }

    /// Notes the next change, unless the net effect could not be told already.
    /// - Parameter batch: the bytes that the change was read from.
    @inline(__always)
    func note(_ change: RowChange, in batch: UnsafeRawBufferPointer) throws(BridgeError) {
        guard !needsExactOrder else { return }
        needsExactOrder = try !isNoted(change, in: batch)
    }

    /// - Returns: false if the net effect cannot be told.
    private func isNoted(_ change: RowChange, in batch: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        for image in [change.old, change.new] {
            if let image, image.columnCount != layout.columnCount { throw Self.malformed() }
        }
        switch change.kind {
        case .insert: return try noteInsert(change, batch)
        case .update: return try noteUpdate(change, batch)
        case .delete: return try noteDelete(change, batch)
        case .upsert, .remove: return try noteState(change, batch)
        default: throw Self.malformed()
        }
    }

    private func noteInsert(_ change: RowChange, _ batch: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        guard let image = change.new else { throw Self.malformed() }
        let reference = Self.reference(image, batch)
        guard !layout.keyColumns.isEmpty else {
            keylessInserts.append(reference.offset)
            return true
        }
        let key = try appendKey(of: image, otherwise: nil)
        guard key.isWhole, !key.hasUnchanged else { return false }
        let (index, isNew) = table.findOrInsert(keyAt: key.offset)
        if !isNew && table.entries[index].flags.contains(.isLive) { return false }
        become(index, reference)
        return true
    }

    private func noteUpdate(_ change: RowChange, _ batch: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        guard let image = change.new else { throw Self.malformed() }
        guard !layout.keyColumns.isEmpty else { return false }
        let new = try appendKey(of: image, otherwise: change.old)
        guard new.isWhole else { return false }
        if let old = change.old {
            let oldKey = try appendKey(of: old, otherwise: nil)
            guard oldKey.isWhole else { return false }
            let bytes = table.keys.bytes
            let isSame = bytes[oldKey.offset...].elementsEqual(bytes[new.offset..<oldKey.offset])
            guard isSame else {
                if change.oldKind == .full, try !isKnownAs(old, keyAt: oldKey.offset, batch) {
                    table.keys.truncate(to: new.offset)
                    return false
                }
                table.keys.truncate(to: new.offset)
                return try noteKeyChange(change, from: old, to: image, batch)
            }
            if change.oldKind == .full, try !isKnownAs(old, keyAt: oldKey.offset, batch) { return false }
            table.keys.truncate(to: oldKey.offset)
        }
        let (index, isNew) = table.findOrInsert(keyAt: new.offset)
        guard isNew || table.entries[index].flags.contains(.isLive) else { return false }
        if isNew { table.update(index) { $0.flags = [.existed, .isLive] } }
        var reference = Self.reference(image, batch)
        var group = 0
        if new.hasUnchanged {
            let prior = isNew ? nil : table.entries[index].image
            guard let result = try merge(image, prior: prior, change: change, keyOf: index, batch) else { return false }
            (reference, group) = result
        }
        table.update(index) {
            $0.image = reference
            $0.group = UInt16(truncatingIfNeeded: group)
            if group == 0 { $0.flags.remove(.hasUnchanged) } else { $0.flags.insert(.hasUnchanged) }
        }
        return true
    }

    /// The row leaves one key and takes another: the first is deleted, the second inserted, if the whole row is known.
    private func noteKeyChange(
        _ change: RowChange, from old: RowImage, to image: RowImage, _ batch: UnsafeRawBufferPointer
    ) throws(BridgeError) -> Bool {
        let left = table.findOrInsert(keyAt: try appendKey(of: old, otherwise: nil).offset)
        let before = table.entries[left.index]
        if !left.isNew && !before.flags.contains(.isLive) { return false }
        let hadOriginal = left.isNew || before.isUpdate
        if hadOriginal && layout.targetHasOwnColumns { return false }
        table.update(left.index) {
            if hadOriginal { $0.flags.insert([.existed, .originalDeleted]) }
            $0.flags.remove([.isLive, .hasUnchanged])
        }
        let key = try appendKey(of: image, otherwise: old)
        let hasUnchanged = key.hasUnchanged
        let taken = table.findOrInsert(keyAt: key.offset)
        if !taken.isNew && table.entries[taken.index].flags.contains(.isLive) { return false }
        var reference = Self.reference(image, batch)
        if hasUnchanged {
            let prior = left.isNew ? nil : before.image
            guard let result = try merge(image, prior: prior, change: change, keyOf: taken.index, batch),
                result.group == 0
            else { return false }
            reference = result.reference
        }
        become(taken.index, reference)
        return true
    }

    private func noteDelete(_ change: RowChange, _ batch: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        guard let old = change.old else { throw Self.malformed() }
        guard !layout.keyColumns.isEmpty else { return false }
        let key = try appendKey(of: old, otherwise: nil)
        guard key.isWhole else { return false }
        if change.oldKind == .full, try !isKnownAs(old, keyAt: key.offset, batch) { return false }
        let (index, isNew) = table.findOrInsert(keyAt: key.offset)
        let flags = table.entries[index].flags
        guard isNew || flags.contains(.isLive) else { return false }
        table.update(index) {
            if isNew || flags.contains(.existed) { $0.flags.insert([.existed, .originalDeleted]) }
            $0.flags.remove([.isLive, .hasUnchanged])
        }
        return true
    }

    private func noteState(_ change: RowChange, _ batch: UnsafeRawBufferPointer) throws(BridgeError) -> Bool {
        guard let image = change.new ?? change.old else { throw Self.malformed() }
        guard !layout.keyColumns.isEmpty else { return false }
        let key = try appendKey(of: image, otherwise: nil)
        guard key.isWhole, !key.hasUnchanged else { return false }
        let (index, _) = table.findOrInsert(keyAt: key.offset)
        isStateOnly = true
        table.update(index) {
            $0.flags = change.kind == .upsert ? [.isStateOnly, .isLive] : [.isStateOnly]
            $0.image = Self.reference(image, batch)
        }
        return true
    }

    /// Whether a whole old row is the row that this run knows under its key. Where the source checks the key at commit
    /// only, two rows can share it for a while, and a change then says by its other values which one it means.
    /// - Parameter keyOffset: where the key stands at the end of the arena.
    private func isKnownAs(
        _ old: RowImage, keyAt keyOffset: Int, _ batch: UnsafeRawBufferPointer
    ) throws(BridgeError) -> Bool {
        guard let index = table.find(keyAt: keyOffset), table.entries[index].flags.contains(.isLive) else { return true }
        var known = try image(table.entries[index].image, batch).cells
        var cells = old.cells
        while let cell = try cells.next() {
            guard let other = try known.next() else { throw Self.malformed() }
            guard cell.tag != .unchanged, cell.tag != .absent, other.tag != .unchanged else { continue }
            if cell.tag != other.tag || !cell.bytes.elementsEqual(other.bytes) { return false }
        }
        return true
    }

    private func become(_ index: Int, _ reference: ImageReference) {
        table.update(index) {
            $0.flags.insert(.isLive)
            $0.flags.remove(.hasUnchanged)
            $0.image = reference
            $0.group = 0
        }
    }

    // MARK: Images

    /// The image that a reference stands for.
    func image(
        _ reference: ImageReference, _ batch: UnsafeRawBufferPointer
    ) throws(BridgeError) -> RowImage {
        var reader = ByteReader(reference.isMerged ? merged.bytes : batch, offset: reference.offset)
        return try RowImage(&reader)
    }

    @inline(__always)
    private static func reference(_ image: RowImage, _ batch: UnsafeRawBufferPointer) -> ImageReference {
        ImageReference(offset: offset(of: image, in: batch), isMerged: false)
    }

    /// Where in the batch that it was read from an image stands.
    @inline(__always)
    static func offset(of image: RowImage, in batch: UnsafeRawBufferPointer) -> Int {
        guard let start = batch.baseAddress, let here = image.bytes.baseAddress else { return 0 }
        return here - start
    }

    /// Appends the cells of an image's key to the arena.
    /// - Returns: where they begin; whether all are values; whether any cell of the image was left out by the source.
    private func appendKey(
        of image: RowImage, otherwise old: RowImage?
    ) throws(BridgeError) -> (offset: Int, isWhole: Bool, hasUnchanged: Bool) {
        let start = table.keys.count
        var isWhole = true
        var hasUnchanged = false
        var cells = image.cells
        var column = 0
        var nextKey = 0
        while let cell = try cells.next() {
            if cell.tag == .unchanged { hasUnchanged = true }
            if nextKey < layout.keyColumns.count, layout.keyColumns[nextKey] == column {
                nextKey += 1
                var value = cell
                if cell.tag == .unchanged, let old, let stored = try Self.cell(column, of: old) { value = stored }
                if value.tag.hasBytes { table.keys.appendCell(value.tag, value.bytes) } else { isWhole = false }
            }
            column += 1
        }
        return (start, isWhole, hasUnchanged)
    }

    static func cell(_ column: Int, of image: RowImage) throws(BridgeError) -> Cell? {
        var cells = image.cells
        for _ in 0..<column { _ = try cells.next() }
        return try cells.next()
    }

    /// Puts an image with left-out cells together with what is known of the row: the old row of the same change, where
    /// it has the value, and the row's image before.
    /// - Returns: nil if there are too many different sets of left-out columns.
    private func merge(
        _ image: RowImage, prior priorReference: ImageReference?, change: RowChange, keyOf index: Int,
        _ batch: UnsafeRawBufferPointer
    ) throws(BridgeError) -> (reference: ImageReference, group: Int)? {
        var prior: RowImage?
        if let priorReference {
            // The prior image may itself stand among the merged ones: make room first, since growing moves it.
            let size = try self.image(priorReference, batch).bytes.count
            merged.reserve(image.bytes.count + size + (change.old?.bytes.count ?? 0) + table.entries[index].keyLength + 64)
            prior = try self.image(priorReference, batch)
        }
        let start = merged.count
        var mask = [UInt64](repeating: 0, count: groups[0].count)
        merged.beginRowImage(columns: image.columnCount)
        var cells = image.cells
        var priorCells = prior?.cells
        var oldCells = change.old?.cells
        var keyReader = ByteReader(table.key(index))
        var nextKey = 0
        for column in 0..<image.columnCount {
            guard var cell = try cells.next() else { throw Self.malformed() }
            let priorCell = try priorCells?.next()
            let oldCell = try oldCells?.next()
            let isKey = nextKey < layout.keyColumns.count && layout.keyColumns[nextKey] == column
            var keyCell: Cell?
            if isKey {
                nextKey += 1
                keyCell = try Self.readCell(&keyReader)
            }
            if cell.tag == .unchanged {
                if let keyCell {
                    cell = keyCell
                } else if change.oldKind == .full, let oldCell, oldCell.tag != .unchanged, oldCell.tag != .absent {
                    cell = oldCell
                } else if let priorCell {
                    cell = priorCell
                }
            }
            if cell.tag == .unchanged { mask[column / 64] |= 1 << UInt64(column % 64) }
            if cell.tag.hasBytes { merged.appendCell(cell.tag, cell.bytes) } else { merged.appendCell(cell.tag) }
        }
        guard let group = group(of: mask) else { return nil }
        return (ImageReference(offset: start, isMerged: true), group)
    }

    /// Reads one cell that has bytes, as ``appendKey(of:otherwise:)`` wrote it.
    static func readCell(_ reader: inout ByteReader) throws(BridgeError) -> Cell {
        do throws(ByteReader.Truncated) {
            if let tag = CellTag(rawValue: try reader.readByte()), tag.hasBytes {
                return Cell(tag: tag, bytes: try reader.readBytes(Int(try reader.readInteger(UInt32.self))))
            }
        } catch { throw malformed() }
        throw malformed()
    }

    private func group(of mask: [UInt64]) -> Int? {
        if let known = groups.firstIndex(of: mask) { return known }
        guard groups.count < maximumGroups else { return nil }
        groups.append(mask)
        return groups.count - 1
    }

    static func malformed() -> BridgeError { BridgeError(.recordMalformed, "a row does not have its table's shape") }
}
