package import BridgeCore

/// One change as the journal has it.
package struct JournaledChange: Hashable, Sendable {
    package var position: Position
    package var commitTime: Timestamp
    /// `insert`, `update` and so on.
    package var kind: String
    /// The source's name of the table; the first one of a truncate.
    package var table: String
    /// The key of its row as a JSON object. Holds values.
    package var key: String
    /// The change as ``JournalInspector/dump(directory:format:emit:)`` writes it. Holds values.
    package var line: String
}

extension JournalInspector {
    /// Finds a change by its place, without the journal's lock.
    /// - Returns: nil if the journal has no such change.
    package static func change(
        at position: Position, directory: String
    ) async throws(BridgeError) -> JournaledChange? {
        let before = position.commit == 0 ? 0 : position.commit - 1
        let reader = try await JournalReader.open(directory: directory, after: Position(commit: before))
        let result: Result<JournaledChange?, BridgeError>
        do throws(BridgeError) { result = .success(try await find(position, reader)) } catch { result = .failure(error) }
        await reader.close()
        return try result.get()
    }

    private static func find(_ position: Position, _ reader: JournalReader) async throws(BridgeError) -> JournaledChange? {
        var search = ChangeSearch(position, relations: reader.relations)
        let buffer = RecordBuffer()
        while true {
            buffer.removeAll()
            guard try await reader.read(into: buffer, limit: 1 << 20) > 0 else { return search.found }
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() {
                if try search.isOver(record) { return search.found }
            }
        }
    }
}

/// Looks for one change among records. A value type without I/O.
///
/// A transaction that a crash cut off stands in the journal twice, the second time whole: only one that was committed
/// counts.
private struct ChangeSearch {
    private let position: Position
    private var relations: [UInt32: Relation]
    private var dump: RecordDump
    private var transaction: TransactionStart?
    private var ordinal: UInt64 = 0
    private(set) var found: JournaledChange?

    init(_ position: Position, relations: [UInt32: Relation]) {
        self.position = position
        self.relations = relations
        dump = RecordDump(relations: relations)
    }

    /// Takes the next record; true when nothing more needs to be read.
    mutating func isOver(_ record: RecordView) throws(BridgeError) -> Bool {
        switch record.kind {
        case .relation:
            let relation = try Relation(payload: record.payload)
            relations[relation.id] = relation
            _ = try dump.line(record)
        case .begin:
            let start = try record.transactionStart()
            transaction = start.position.commit == position.commit ? start : nil
            ordinal = 0
            if transaction != nil { _ = try dump.line(record) }
        case .commit:
            if transaction != nil { return true }
        case .abandon:
            if transaction != nil { found = nil }
            transaction = nil
        case .insert, .update, .delete, .upsert, .remove, .truncate:
            guard let transaction else { break }
            if ordinal == position.ordinal { found = try change(record, transaction) } else { dump.passChange() }
            ordinal += 1
        case .message, .frontier: break
        }
        return false
    }

    private mutating func change(_ record: RecordView, _ transaction: TransactionStart) throws(BridgeError) -> JournaledChange {
        var (relation, key): (Relation?, String) = (nil, "{}")
        if record.kind == .truncate {
            relation = try record.truncation().relations.first.flatMap { relations[$0] }
        } else {
            let change = try RowChange(record)
            relation = relations[change.relation]
            if let relation { key = try change.keyText(relation) }
        }
        return JournaledChange(
            position: position, commitTime: transaction.commitTime, kind: String(describing: record.kind),
            table: relation?.name.description ?? "", key: key, line: try dump.line(record))
    }
}
