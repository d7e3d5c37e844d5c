import BridgeCore

/// The relation records that a journal holds, the newest of each relation, as they stand in it.
struct RelationTable: Sendable {
    private var records: [UInt32: [UInt8]] = [:]
    /// In the order in which the relations were first seen.
    private var order: [UInt32] = []

    var isEmpty: Bool { order.isEmpty }

    func contains(_ relation: UInt32) -> Bool { records[relation] != nil }

    /// Takes over a whole relation record: length, kind and payload.
    mutating func insert(_ record: UnsafeRawBufferPointer) {
        guard record.count >= 9 else { return }
        let id = UInt32(bigEndian: record.loadUnaligned(fromByteOffset: 5, as: UInt32.self))
        if records.updateValue(Array(record), forKey: id) == nil { order.append(id) }
    }

    /// Takes over every relation record in a run of records.
    mutating func insertAll(in bytes: UnsafeRawBufferPointer) throws(BridgeError) {
        var cursor = RecordCursor(bytes)
        while let record = try cursor.next() {
            guard record.kind == .relation else { continue }
            insert(UnsafeRawBufferPointer(rebasing: bytes[record.offset..<record.offset + record.size]))
        }
    }

    /// Appends all records.
    func appendAll(to buffer: RecordBuffer) {
        for id in order { records[id]?.withUnsafeBytes { buffer.append($0) } }
    }

    /// The relations that the records describe.
    func relations() throws(BridgeError) -> [UInt32: Relation] {
        var relations: [UInt32: Relation] = [:]
        for id in order {
            guard let record = records[id] else { continue }
            relations[id] = try record.withBytes { bytes throws(BridgeError) in
                try Relation(payload: UnsafeRawBufferPointer(rebasing: bytes[5...]))
            }
        }
        return relations
    }
}
