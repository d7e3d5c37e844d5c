/// A cursor over bytes that came from outside: a stream, a file, a peer. Reading past the end throws; nothing traps.
package struct ByteReader {
    package let bytes: UnsafeRawBufferPointer
    @usableFromInline var storedOffset: Int
    @inlinable package var offset: Int { storedOffset }

    @inlinable @inline(__always)
    package init(_ bytes: UnsafeRawBufferPointer, offset: Int = 0) {
        self.bytes = bytes
        storedOffset = offset
    }

    @inlinable @inline(__always) package var remaining: Int { bytes.count - offset }
    @inlinable @inline(__always) package var isAtEnd: Bool { offset >= bytes.count }

    /// Thrown when fewer bytes are there than a field needs. The owner of the format turns it into a named error.
    package struct Truncated: Error {
        package let offset: Int

        @inlinable package init(offset: Int) { self.offset = offset }
    }

    @inlinable @inline(__always)
    package mutating func readByte() throws(Truncated) -> UInt8 {
        guard offset < bytes.count else { throw Truncated(offset: offset) }
        defer { storedOffset += 1 }
        return bytes[offset]
    }

    @inlinable @inline(__always)
    package mutating func readInteger<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) throws(Truncated)
        -> Value
    {
        let size = MemoryLayout<Value>.size
        guard bytes.count - offset >= size else { throw Truncated(offset: offset) }
        defer { storedOffset += size }
        return Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    /// `count` bytes as they stand.
    @inlinable @inline(__always)
    package mutating func readBytes(_ count: Int) throws(Truncated) -> UnsafeRawBufferPointer {
        guard count >= 0, bytes.count - offset >= count else { throw Truncated(offset: offset) }
        defer { storedOffset += count }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    }

    /// A string behind a 16-bit length.
    package mutating func readShortString() throws(Truncated) -> String {
        let length = Int(try readInteger(UInt16.self))
        return String(decoding: try readBytes(length), as: UTF8.self)
    }

    /// A string up to a zero byte, which is passed over.
    package mutating func readZeroTerminatedString() throws(Truncated) -> String {
        guard let end = bytes[min(offset, bytes.count)...].firstIndex(of: 0) else {
            throw Truncated(offset: bytes.count)
        }
        defer { storedOffset = end + 1 }
        return String(decoding: UnsafeRawBufferPointer(rebasing: bytes[offset..<end]), as: UTF8.self)
    }
}

extension RecordBuffer {
    /// A string behind a 16-bit length; longer ones are cut, which no identifier of either engine reaches.
    package func appendShortString(_ text: String) {
        let utf8 = Array(text.utf8.prefix(Int(UInt16.max)))
        append(bigEndian: UInt16(utf8.count))
        utf8.withUnsafeBytes { append($0) }
    }
}
