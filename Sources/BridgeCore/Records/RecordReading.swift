/// One record, seen in place. Valid as long as the bytes that it was read from.
package struct RecordView {
    package let kind: RecordKind
    /// Without length and kind byte.
    package let payload: UnsafeRawBufferPointer
    /// Where the record's length field stands in the bytes read.
    package let offset: Int
    /// Length field, kind byte and payload.
    @inlinable package var size: Int { 5 + payload.count }

    @inlinable
    package init(kind: RecordKind, payload: UnsafeRawBufferPointer, offset: Int) {
        self.kind = kind
        self.payload = payload
        self.offset = offset
    }
}

/// Reads records one after the other out of a run of bytes.
package struct RecordCursor {
    @usableFromInline var reader: ByteReader

    @inlinable @inline(__always)
    package init(_ bytes: UnsafeRawBufferPointer, offset: Int = 0) { reader = ByteReader(bytes, offset: offset) }

    @inlinable @inline(__always) package var offset: Int { reader.offset }

    /// The next record; nil at the end.
    /// - Throws: `recordMalformed` if a record is cut off or of an unknown kind.
    @inlinable @inline(__always)
    package mutating func next() throws(BridgeError) -> RecordView? {
        guard !reader.isAtEnd else { return nil }
        let start = reader.offset
        do throws(ByteReader.Truncated) {
            let length = Int(try reader.readInteger(UInt32.self))
            guard length >= 1 else { throw ByteReader.Truncated(offset: start) }
            guard let kind = RecordKind(rawValue: try reader.readByte()) else {
                throw ByteReader.Truncated(offset: start)
            }
            return RecordView(kind: kind, payload: try reader.readBytes(length - 1), offset: start)
        } catch {
            throw BridgeError.malformedRecord(at: start)
        }
    }
}

extension BridgeError {
    package static func malformedRecord(at offset: Int) -> BridgeError {
        BridgeError(.recordMalformed, "a record cannot be read", context: [.init(.offset, "\(offset)")])
    }
}

/// One cell, seen in place.
package struct Cell {
    package let tag: CellTag
    /// Empty where the tag has none.
    package let bytes: UnsafeRawBufferPointer

    @inlinable @inline(__always)
    package init(tag: CellTag, bytes: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)) {
        self.tag = tag
        self.bytes = bytes
    }

    /// The value of an integer cell; nil for any other.
    @inlinable @inline(__always)
    package var integer: Int64? {
        guard tag == .integer, bytes.count == 8 else { return nil }
        return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
    }

    /// The value of a real cell; nil for any other.
    @inlinable @inline(__always)
    package var real: Double? {
        guard tag == .real, bytes.count == 8 else { return nil }
        return Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
    }
}

/// A row image, seen in place: a 16-bit count, then the cells.
package struct RowImage {
    package let columnCount: Int
    /// The whole image with its count: what is copied to hand the row on.
    package let bytes: UnsafeRawBufferPointer

    /// Takes one row image off a reader, checking every tag and length.
    @inlinable @inline(__always)
    package init(_ reader: inout ByteReader) throws(BridgeError) {
        let start = reader.offset
        do throws(ByteReader.Truncated) {
            let count = Int(try reader.readInteger(UInt16.self))
            for _ in 0..<count {
                guard let tag = CellTag(rawValue: try reader.readByte()) else {
                    throw ByteReader.Truncated(offset: reader.offset)
                }
                if tag.hasBytes {
                    let length = Int(try reader.readInteger(UInt32.self))
                    _ = try reader.readBytes(length)
                }
            }
            columnCount = count
        } catch {
            throw BridgeError.malformedRecord(at: error.offset)
        }
        bytes = UnsafeRawBufferPointer(rebasing: reader.bytes[start..<reader.offset])
    }

    /// The cells in column order.
    @inlinable @inline(__always) package var cells: CellCursor { CellCursor(self) }
}

/// Reads the cells of a row image one after the other. The image was checked when it was made.
package struct CellCursor {
    @usableFromInline var reader: ByteReader
    @usableFromInline var storedRemaining: Int
    @inlinable package var remaining: Int { storedRemaining }

    @inlinable @inline(__always)
    package init(_ image: RowImage) {
        reader = ByteReader(image.bytes, offset: 2)
        storedRemaining = image.columnCount
    }

    /// The next cell; nil behind the last.
    @inlinable @inline(__always)
    package mutating func next() throws(BridgeError) -> Cell? {
        guard remaining > 0 else { return nil }
        storedRemaining -= 1
        do throws(ByteReader.Truncated) {
            guard let tag = CellTag(rawValue: try reader.readByte()) else {
                throw ByteReader.Truncated(offset: reader.offset)
            }
            guard tag.hasBytes else { return Cell(tag: tag) }
            let length = Int(try reader.readInteger(UInt32.self))
            return Cell(tag: tag, bytes: try reader.readBytes(length))
        } catch {
            throw BridgeError.malformedRecord(at: error.offset)
        }
    }
}

/// A row change, seen in place.
package struct RowChange {
    package let kind: RecordKind
    package let relation: UInt32
    package let oldKind: OldRowKind
    /// The old row or key of an update or delete, and the key of a remove.
    package let old: RowImage?
    /// The new row of an insert, update or upsert.
    package let new: RowImage?

    /// Reads a record of kind insert, update, delete, upsert or remove.
    /// - Throws: `recordMalformed` for another kind or a payload that does not fit.
    @inlinable @inline(__always)
    package init(_ record: RecordView) throws(BridgeError) {
        var reader = ByteReader(record.payload)
        kind = record.kind
        do throws(ByteReader.Truncated) {
            relation = try reader.readInteger()
            switch record.kind {
            case .update, .delete:
                guard let old = OldRowKind(rawValue: try reader.readByte()) else {
                    throw ByteReader.Truncated(offset: reader.offset)
                }
                oldKind = old
            default:
                oldKind = .none
            }
        } catch {
            throw BridgeError.malformedRecord(at: record.offset)
        }
        switch record.kind {
        case .insert, .upsert:
            old = nil
            new = try RowImage(&reader)
        case .update:
            old = oldKind == .none ? nil : try RowImage(&reader)
            new = try RowImage(&reader)
        case .delete:
            old = oldKind == .none ? nil : try RowImage(&reader)
            new = nil
        case .remove:
            old = try RowImage(&reader)
            new = nil
        default:
            throw BridgeError.malformedRecord(at: record.offset)
        }
        guard reader.isAtEnd else { throw BridgeError.malformedRecord(at: record.offset) }
    }
}

extension RecordView {
    /// Reads the payload of a begin record.
    package func transactionStart() throws(BridgeError) -> TransactionStart {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            let transaction = try reader.readInteger(UInt64.self)
            let position = Position(commit: try reader.readInteger())
            return TransactionStart(
                transaction: transaction, position: position,
                commitTime: Timestamp(microseconds: try reader.readInteger()))
        } catch { throw BridgeError.malformedRecord(at: offset) }
    }

    /// Reads the payload of a commit record.
    package func transactionEnd() throws(BridgeError) -> TransactionEnd {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            let position = Position(commit: try reader.readInteger())
            let end = try reader.readInteger(UInt64.self)
            let time = Timestamp(microseconds: try reader.readInteger())
            return TransactionEnd(
                position: position, end: end, commitTime: time, changes: try reader.readInteger())
        } catch { throw BridgeError.malformedRecord(at: offset) }
    }

    /// Reads the payload of a frontier record.
    package func frontier() throws(BridgeError) -> (position: Position, time: Timestamp) {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            let position = Position(commit: try reader.readInteger())
            return (position, Timestamp(microseconds: try reader.readInteger()))
        } catch { throw BridgeError.malformedRecord(at: offset) }
    }

    /// Reads the payload of a truncate record.
    package func truncation() throws(BridgeError) -> (options: TruncateOptions, relations: [UInt32]) {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            let options = TruncateOptions(rawValue: try reader.readByte())
            let count = Int(try reader.readInteger(UInt16.self))
            var relations: [UInt32] = []
            for _ in 0..<count { relations.append(try reader.readInteger()) }
            return (options, relations)
        } catch { throw BridgeError.malformedRecord(at: offset) }
    }

    /// Reads the payload of a message record.
    package func message() throws(BridgeError) -> (prefix: String, content: UnsafeRawBufferPointer) {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            let prefix = try reader.readShortString()
            let length = Int(try reader.readInteger(UInt32.self))
            return (prefix, try reader.readBytes(length))
        } catch { throw BridgeError.malformedRecord(at: offset) }
    }
}
