import BridgeCore

/// Writes the fixed fields of a frame one behind the other. The owner makes the room beforehand.
struct FieldWriter {
    private let bytes: UnsafeMutableRawBufferPointer
    private(set) var offset = 0

    init(_ bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }

    mutating func put<Value: FixedWidthInteger>(_ value: Value) {
        bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
        offset += MemoryLayout<Value>.size
    }

    /// The fields that belong to LZ4.
    mutating func put(littleEndian value: UInt32) {
        bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self)
        offset += 4
    }

    mutating func put(ascii text: StaticString) {
        text.withUTF8Buffer { put(UnsafeRawBufferPointer($0)) }
    }

    mutating func put(_ source: UnsafeRawBufferPointer) {
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]).copyMemory(from: source)
        offset += source.count
    }

    /// The four fields of a last commit.
    mutating func put(_ commit: TransactionEnd?) {
        put(commit?.position.commit ?? 0)
        put(commit?.end ?? 0)
        put(commit?.commitTime.microseconds ?? 0)
        put(commit?.changes ?? 0)
    }

    /// The checksum of everything written so far, which closes what it covers.
    mutating func putChecksum(from start: Int = 0) -> UInt32 {
        let checksum = Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[start..<offset]))
        put(checksum)
        return checksum
    }
}

/// Reads fixed fields one behind the other. The owner checks the size beforehand.
struct FieldReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var offset: Int

    init(_ bytes: UnsafeRawBufferPointer, offset: Int = 0) {
        self.bytes = bytes
        self.offset = offset
    }

    mutating func take<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) -> Value {
        defer { offset += MemoryLayout<Value>.size }
        return Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    mutating func takeLittleEndian() -> UInt32 {
        defer { offset += 4 }
        return UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    mutating func matches(ascii text: StaticString) -> Bool {
        defer { offset += text.utf8CodeUnitCount }
        let here = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + text.utf8CodeUnitCount])
        return text.withUTF8Buffer { here.elementsEqual($0) }
    }

    mutating func skip(_ count: Int) { offset += count }

    mutating func takeCommit(isPresent: Bool) -> TransactionEnd? {
        let position = take(UInt64.self)
        let end = take(UInt64.self)
        let time = take(Int64.self)
        let changes = take(UInt64.self)
        guard isPresent else { return nil }
        return TransactionEnd(
            position: Position(commit: position), end: end, commitTime: Timestamp(microseconds: time), changes: changes)
    }
}

/// The magic numbers of the frames, as LZ4's frame format numbers them.
enum FrameMagic {
    static let header: UInt32 = 0x184D_2A5A
    static let descriptor: UInt32 = 0x184D_2A5B
    static let footer: UInt32 = 0x184D_2A5C
}

/// The flag bits that header, descriptor and footer share.
struct FrameFlags: OptionSet, Hashable, Sendable {
    let rawValue: UInt16
    static let relations = FrameFlags(rawValue: 0x01)
    static let beginsInside = FrameFlags(rawValue: 0x02)
    static let endsInside = FrameFlags(rawValue: 0x04)
    static let hasLastCommit = FrameFlags(rawValue: 0x08)
    static let repeats = FrameFlags(rawValue: 0x10)
    static let hasPredecessor = FrameFlags(rawValue: 0x20)
}

/// Where the run of records stands between two records.
struct StreamState: Hashable, Sendable {
    var lastCommit: TransactionEnd?
    var frontier: UInt64
    /// The position of the transaction that is open.
    var openTransaction: UInt64?
    /// Changes so far in it.
    var openChanges: UInt64 = 0
    /// The number behind the last record's.
    var records: UInt64

    var lastPosition: UInt64? { lastCommit?.position.commit }
}

extension [UInt8] {
    /// Like `withUnsafeBytes`, with a typed error.
    func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { buffer throws(Failure) in try body(UnsafeRawBufferPointer(buffer)) }
    }
}
