import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Reads one segment's frames through a window of its bytes. Belongs to one thread at a time.
final class SegmentFile {
    /// How much is read ahead where blocks are read one after the other.
    static let readAhead = 512 << 10

    let file: OpenFile
    let files: any JournalFiles
    private var window: UnsafeMutableRawBufferPointer
    private var start: UInt64 = 0
    private var count = 0

    init(_ path: String, files: any JournalFiles) throws(BridgeError) {
        self.files = files
        file = try files.open(path, forWriting: false)
        window = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.readAhead, alignment: 16)
    }

    deinit { window.deallocate() }

    var path: String { file.path }

    func size() throws(BridgeError) -> UInt64 { try files.size(file) }

    /// The bytes from `offset` on, `wanted` of them, or fewer where `limit` or the file ends. Valid until the next
    /// call.
    /// - Parameter ahead: bytes to read beyond that while at it.
    func bytes(
        at offset: UInt64, _ wanted: Int, limit: UInt64, ahead: Int = SegmentFile.readAhead
    ) throws(BridgeError) -> UnsafeRawBufferPointer {
        guard offset < limit else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        let available = Int(clamping: limit - offset)
        let needed = min(wanted, available)
        if offset < start || offset + UInt64(needed) > start + UInt64(count) {
            try fill(offset, min(max(needed, ahead), available))
        }
        let skipped = Int(clamping: offset - start)
        let present = min(needed, max(0, count - skipped))
        return UnsafeRawBufferPointer(rebasing: window[skipped..<skipped + present])
    }

    /// Makes the window begin at `offset`, keeping what it has from there on.
    private func fill(_ offset: UInt64, _ size: Int) throws(BridgeError) {
        var kept = 0
        if offset >= start, offset < start + UInt64(count) {
            let skipped = Int(clamping: offset - start)
            kept = min(count - skipped, size)
            if window.count >= size, let base = window.baseAddress {
                memmove(base, base + skipped, kept)
            } else {
                kept = 0
            }
        }
        // A window grown by one giant block is given back with the next small one.
        if window.count < size || (window.count > 8 << 20 && size <= Self.readAhead && kept == 0) {
            window.deallocate()
            window = UnsafeMutableRawBufferPointer.allocate(byteCount: max(size, Self.readAhead), alignment: 16)
            kept = 0
        }
        start = offset
        count = kept
        guard kept < size else { return }
        let room = UnsafeMutableRawBufferPointer(rebasing: window[kept..<size])
        count += try files.read(file, at: offset + UInt64(kept), into: room)
    }
}

/// A block as it stands in a segment: its descriptor is whole and its frame's checksum is right.
struct StoredBlock {
    let descriptor: BlockDescriptor
    let checksum: UInt32
    /// Valid until the segment file is read again.
    let frame: UnsafeRawBufferPointer
}

extension SegmentFile {
    /// The descriptor at `offset`; nil unless it is whole, stands where it says and belongs to this segment.
    func descriptor(
        at offset: UInt64, segment: UInt64, limit: UInt64, ahead: Int = SegmentFile.readAhead
    ) throws(BridgeError) -> (descriptor: BlockDescriptor, checksum: UInt32)? {
        let bytes = try bytes(at: offset, BlockDescriptor.size, limit: limit, ahead: ahead)
        guard let decoded = BlockDescriptor.decode(bytes), decoded.descriptor.offset == offset,
            decoded.descriptor.segment == segment
        else { return nil }
        return decoded
    }

    /// The frame that a descriptor describes; nil if the file or `limit` ends before it.
    func frame(of block: BlockDescriptor, limit: UInt64) throws(BridgeError) -> UnsafeRawBufferPointer? {
        let start = block.offset + UInt64(BlockDescriptor.size)
        guard start <= limit, block.frameBytes <= limit - start, let size = Int(exactly: block.frameBytes) else {
            return nil
        }
        let bytes = try bytes(at: start, size, limit: limit)
        return bytes.count == size ? bytes : nil
    }

    /// The block at `offset`, verified as the follower of a block with the checksum `predecessor`.
    /// - Throws: `journalDamaged`, with file and offset, for anything else.
    func block(
        at offset: UInt64, segment: UInt64, limit: UInt64, predecessor: UInt32, firstRecord: UInt64
    ) throws(BridgeError) -> StoredBlock {
        guard let (descriptor, checksum) = try descriptor(at: offset, segment: segment, limit: limit) else {
            throw .damaged(path, offset, "a block's descriptor is not what was written")
        }
        guard descriptor.predecessor == predecessor, descriptor.firstRecord == firstRecord else {
            throw .damaged(path, offset, "a block does not follow the one before it")
        }
        guard let frame = try frame(of: descriptor, limit: limit) else {
            throw .damaged(path, offset, "a block is cut off")
        }
        guard Checksum.of(frame) == descriptor.frameChecksum else {
            throw .damaged(path, offset, "a block's data is not what was written")
        }
        return StoredBlock(descriptor: descriptor, checksum: checksum, frame: frame)
    }
}
