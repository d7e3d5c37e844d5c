#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A growable run of raw bytes, made once a stage and used again for every batch.
///
/// Integers are written in network order, as pgoutput writes them. A buffer belongs to one stage at a time: it is handed
/// over, never shared, which is why it can cross concurrency domains unchecked.
package final class RecordBuffer: @unchecked Sendable {
    // The hot methods are inlinable, because connectors call them once a cell; what they touch is visible to inlined code
    // for that reason only. A buffer has one owner at a time, so the exclusivity that the compiler can no longer prove
    // across modules need not be checked at run time, which would cost more than the call that was saved.
    @exclusivity(unchecked) @usableFromInline var base: UnsafeMutableRawPointer
    @exclusivity(unchecked) @usableFromInline var storedCapacity: Int
    @exclusivity(unchecked) @usableFromInline var storedCount: Int = 0

    @inlinable package var capacity: Int { storedCapacity }
    /// Bytes written so far.
    @inlinable package var count: Int { storedCount }

    package init(capacity: Int = 64 << 10) {
        storedCapacity = max(capacity, 64)
        base = .allocate(byteCount: storedCapacity, alignment: 16)
    }

    deinit { base.deallocate() }

    @inlinable package var isEmpty: Bool { count == 0 }

    /// What has been written. Valid until the next write, and only while the buffer itself is kept alive.
    @inlinable package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// The written bytes, for a reader that hands the buffer on to C. Valid until the next write.
    @inlinable package var mutableBytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base, count: count)
    }

    /// Forgets the contents. Storage beyond `retained` bytes, which one giant row can cause, goes back to the system.
    package func removeAll(retaining retained: Int = 32 << 20) {
        storedCount = 0
        guard capacity > retained else { return }
        base.deallocate()
        storedCapacity = retained
        base = .allocate(byteCount: retained, alignment: 16)
    }

    /// Cuts the contents back to `newCount` bytes; a larger count changes nothing.
    package func truncate(to newCount: Int) { storedCount = min(count, max(0, newCount)) }

    /// Forgets the first bytes, and moves the others to the front.
    package func removeFirst(_ size: Int) {
        guard size > 0 else { return }
        let left = max(0, count - size)
        if left > 0 { base.copyMemory(from: base + size, byteCount: left) }
        storedCount = left
    }

    /// Makes room for `extra` more bytes.
    @inlinable @inline(__always)
    package func reserve(_ extra: Int) {
        if count + extra > capacity { grow(extra) }
    }

    @usableFromInline func grow(_ extra: Int) {
        let needed = count + extra
        // Doubling a buffer of hundreds of megabytes would break the memory bound; a quarter more is enough there.
        let wanted = capacity < 64 << 20 ? max(needed, capacity * 2) : max(needed, capacity + capacity / 4)
        let larger = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
        larger.copyMemory(from: base, byteCount: count)
        base.deallocate()
        base = larger
        storedCapacity = wanted
    }

    @inlinable @inline(__always)
    package func append(_ byte: UInt8) {
        reserve(1)
        base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        storedCount += 1
    }

    @inlinable @inline(__always)
    package func append<Value: FixedWidthInteger>(bigEndian value: Value) {
        reserve(MemoryLayout<Value>.size)
        base.storeBytes(of: value.bigEndian, toByteOffset: count, as: Value.self)
        storedCount += MemoryLayout<Value>.size
    }

    @inlinable @inline(__always)
    package func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return }
        reserve(bytes.count)
        (base + count).copyMemory(from: source, byteCount: bytes.count)
        storedCount += bytes.count
    }

    /// Appends the UTF-8 of a string, without a length.
    package func append(utf8 text: String) {
        var copy = text
        copy.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    /// Lets `body` write up to `size` bytes behind the contents; it returns how many it wrote.
    @inlinable
    package func appendUninitialized<Failure: Error>(
        _ size: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Int
    ) throws(Failure) {
        reserve(size)
        let written = try body(UnsafeMutableRawBufferPointer(start: base + count, count: size))
        precondition(written >= 0 && written <= size, "a writer overran the room it was given")
        storedCount += written
    }

    /// Overwrites four bytes already written, for a length that is known only later.
    @inlinable @inline(__always)
    package func patch(bigEndian value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset + 4 <= count, "patched outside the contents")
        base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
    }
}
