/// Writing records into a buffer. Row changes are opened with ``beginRow(_:relation:)``, their row images appended cell
/// by cell or as a copy of a tuple that has the layout already, and closed with ``endRecord(_:)``.
extension RecordBuffer {
    /// Opens a record; returns what ``endRecord(_:)`` needs.
    @inlinable @inline(__always)
    package func beginRecord(_ kind: RecordKind) -> Int {
        let start = count
        append(bigEndian: UInt32(0))
        append(kind.rawValue)
        return start
    }

    /// Closes the record opened at `start` by writing its length.
    @inlinable @inline(__always)
    package func endRecord(_ start: Int) { patch(bigEndian: UInt32(truncatingIfNeeded: count - start - 4), at: start) }

    package func appendBegin(_ transaction: TransactionStart) {
        let start = beginRecord(.begin)
        append(bigEndian: transaction.transaction)
        append(bigEndian: transaction.position.commit)
        append(bigEndian: transaction.commitTime.microseconds)
        endRecord(start)
    }

    package func appendCommit(_ transaction: TransactionEnd) {
        let start = beginRecord(.commit)
        append(bigEndian: transaction.position.commit)
        append(bigEndian: transaction.end)
        append(bigEndian: transaction.commitTime.microseconds)
        append(bigEndian: transaction.changes)
        endRecord(start)
    }

    package func appendAbandon() { endRecord(beginRecord(.abandon)) }

    /// States that everything the source committed before `position` stands in the journal before this record. It is
    /// written before the source is told so, which lets the next start prove that nobody else advanced the source.
    package func appendFrontier(_ position: Position, time: Timestamp) {
        let start = beginRecord(.frontier)
        append(bigEndian: position.commit)
        append(bigEndian: time.microseconds)
        endRecord(start)
    }

    package func appendTruncate(_ relations: [UInt32], options: TruncateOptions) {
        let start = beginRecord(.truncate)
        append(options.rawValue)
        append(bigEndian: UInt16(relations.count))
        for relation in relations { append(bigEndian: relation) }
        endRecord(start)
    }

    package func appendMessage(prefix: String, content: UnsafeRawBufferPointer) {
        let start = beginRecord(.message)
        appendShortString(prefix)
        append(bigEndian: UInt32(content.count))
        append(content)
        endRecord(start)
    }

    /// Opens an insert, upsert or remove; one row image follows.
    @inlinable @inline(__always)
    package func beginRow(_ kind: RecordKind, relation: UInt32) -> Int {
        let start = beginRecord(kind)
        append(bigEndian: relation)
        return start
    }

    /// Opens an update or delete; the old row image follows unless `old` is none, then an update's new one.
    @inlinable @inline(__always)
    package func beginRow(_ kind: RecordKind, relation: UInt32, old: OldRowKind) -> Int {
        let start = beginRecord(kind)
        append(bigEndian: relation)
        append(old.rawValue)
        return start
    }

    /// Opens a row image of `columns` cells.
    @inlinable @inline(__always)
    package func beginRowImage(columns: Int) { append(bigEndian: UInt16(truncatingIfNeeded: columns)) }

    /// A cell without bytes: null, unchanged or absent.
    @inlinable @inline(__always)
    package func appendCell(_ tag: CellTag) { append(tag.rawValue) }

    /// A cell with bytes: native text, string or blob.
    @inlinable @inline(__always)
    package func appendCell(_ tag: CellTag, _ bytes: UnsafeRawBufferPointer) {
        reserve(5 + bytes.count)
        append(tag.rawValue)
        append(bigEndian: UInt32(truncatingIfNeeded: bytes.count))
        append(bytes)
    }

    @inlinable @inline(__always)
    package func appendCell(integer: Int64) {
        append(CellTag.integer.rawValue)
        append(bigEndian: UInt32(8))
        append(bigEndian: integer)
    }

    @inlinable @inline(__always)
    package func appendCell(real: Double) {
        append(CellTag.real.rawValue)
        append(bigEndian: UInt32(8))
        append(bigEndian: real.bitPattern)
    }
}
