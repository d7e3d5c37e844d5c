import BridgeCore
import Testing

@testable import BridgeConsistency

/// Writes records as a capture of PostgreSQL would, rows of text cells.
private struct Stream {
    let buffer = RecordBuffer()

    static func relation(_ id: UInt32 = 7, columns: [String] = ["id", "name"], name: String = "t") -> Relation {
        Relation(
            id: id, engine: EngineName(rawValue: "postgresql"), form: .native, name: TableName(schema: "public", name: name),
            identity: .key,
            columns: columns.map { .init(name: $0, isKey: $0 == "id", typeName: "text", type: .text) })
    }

    func begin(_ number: UInt64, _ commit: UInt64) {
        buffer.appendBegin(
            TransactionStart(transaction: number, position: Position(commit: commit), commitTime: .now))
    }
    func commit(_ commit: UInt64) {
        buffer.appendCommit(
            TransactionEnd(position: Position(commit: commit), end: commit + 1, commitTime: .now, changes: 1))
    }
    func row(_ kind: RecordKind, old: [String?]? = nil, new: [String?]? = nil, relation: UInt32 = 7) {
        let start: Int
        if kind == .update || kind == .delete {
            start = buffer.beginRow(kind, relation: relation, old: old == nil ? .none : .key)
        } else {
            start = buffer.beginRow(kind, relation: relation)
        }
        for cells in [old, new].compactMap({ $0 }) {
            buffer.beginRowImage(columns: cells.count)
            for cell in cells {
                switch cell {
                case nil: buffer.appendCell(.absent)
                case "~"?: buffer.appendCell(.unchanged)
                case let text?: Array(text.utf8).withUnsafeBytes { buffer.appendCell(.text, $0) }
                }
            }
        }
        buffer.endRecord(start)
    }
}

private func key(_ text: String) -> KeyImage {
    KeyImage([0, 1, CellTag.text.rawValue, 0, 0, 0, UInt8(text.utf8.count)] + Array(text.utf8))
}

private func makeLog(columns: [String] = ["id", "name"]) -> TouchLog {
    let relation = Stream.relation(columns: columns)
    return TouchLog(
        layouts: [ComparisonLayout(table: relation.name, columns: relation.columns)], relations: [7: relation],
        frontier: .zero)
}

@Suite("What transactions touch")
struct TouchLogTests {
    @Test("K18 keys beyond the limit are handed on and not kept: their table is in dispute until both views see them")
    func limit() throws {
        let relation = Stream.relation()
        var log = TouchLog(
            layouts: [ComparisonLayout(table: relation.name, columns: relation.columns)], relations: [7: relation],
            frontier: .zero, limit: 4000)
        var dirty = DirtySet()
        for number in 1...100 {
            let stream = Stream()
            stream.begin(UInt64(number), UInt64(number))
            stream.row(.insert, new: ["\(number)", "a"])
            stream.commit(UInt64(number))
            for transaction in try log.take(stream.buffer.bytes) { dirty.touch(transaction) }
        }
        #expect(dirty.count == 100)
        #expect(log.transactions.reduce(0) { $0 + $1.footprint(of: 0) } <= 4000)
        let far = Dispute(log.transactions, source: .before(Position(commit: 200)), target: .before(Position(commit: 50)))
        #expect(far.excludedTables == [0])
        #expect(far.unsettledTables == [0])
        log.forget { $0.commit < Position(commit: 101) }
        #expect(log.transactions.isEmpty)
        // One that is too large by itself, and what follows it.
        let stream = Stream()
        stream.begin(200, 200)
        for row in 1000..<1100 { stream.row(.insert, new: ["\(row)", "a"]) }
        stream.commit(200)
        stream.begin(201, 201)
        stream.row(.insert, new: ["5", "a"])
        stream.commit(201)
        var touched = DirtySet()
        for transaction in try log.take(stream.buffer.bytes) { touched.touch(transaction) }
        #expect(touched.count == 101)
        #expect(touched.wholeTables.isEmpty)
        let seen = Dispute(log.transactions, source: .before(Position(commit: 300)), target: .before(Position(commit: 201)))
        #expect(seen.excludedTables.isEmpty)
        #expect(seen.excluded == [0: [key("5")]])
        let unseen = Dispute(log.transactions, source: .before(Position(commit: 300)), target: .before(Position(commit: 200)))
        #expect(unseen.excludedTables == [0])
    }

    @Test("K18 O17 the table of a large transaction that is read in part is in dispute until its end is read")
    func readInPart() throws {
        let relation = Stream.relation()
        var log = TouchLog(
            layouts: [ComparisonLayout(table: relation.name, columns: relation.columns)], relations: [7: relation],
            frontier: .zero, limit: 4000)
        var dirty = DirtySet()
        let beginning = Stream()
        beginning.begin(200, 200)
        for row in 1000..<1100 { beginning.row(.insert, new: ["\(row)", "a"]) }
        for part in try log.take(beginning.buffer.bytes) { dirty.touch(part) }
        // Neither view sees it, so its keys are equal in them; they must not be dropped for that.
        #expect(dirty.count > 0)
        let early = log.dispute(source: .before(Position(commit: 150)), target: .before(Position(commit: 150)))
        #expect(early.unsettledTables == [0])
        #expect(early.excludedTables == [0])
        let end = Stream()
        end.commit(200)
        for transaction in try log.take(end.buffer.bytes) { dirty.touch(transaction) }
        #expect(dirty.count == 100)
        let late = log.dispute(source: .before(Position(commit: 300)), target: .before(Position(commit: 300)))
        #expect(late.unsettledTables.isEmpty)
    }

    @Test("K15 a key change dirties both keys, an insert, a delete and an update theirs")
    func keys() throws {
        var log = makeLog()
        let stream = Stream()
        stream.begin(100, 10)
        stream.row(.insert, new: ["1", "a"])
        stream.row(.update, new: ["2", "b"])
        stream.row(.update, old: ["3", nil], new: ["4", "c"])
        stream.row(.delete, old: ["5", nil])
        stream.commit(10)
        let touched = try #require(try log.take(stream.buffer.bytes).first)
        #expect(touched.keys == [0: Set(["1", "2", "3", "4", "5"].map(key))])
        #expect(touched.number == 100)
        #expect(log.frontier == Position(commit: 11))
    }

    @Test("K15 an unchanged value in a key is taken from the old row; without one the whole table is dirty")
    func unchanged() throws {
        var log = makeLog()
        let stream = Stream()
        stream.begin(1, 10)
        stream.row(.update, old: ["3", nil], new: ["~", "c"])
        stream.commit(10)
        stream.begin(2, 20)
        stream.row(.update, new: ["~", "c"])
        stream.commit(20)
        let touched = try log.take(stream.buffer.bytes)
        #expect(touched.map(\.keys) == [[0: [key("3")]], [:]])
        #expect(touched.map(\.wholeTables) == [[], [0]])
    }

    @Test("K15 a truncate and a changed relation dirty the whole table, a repeated relation does not")
    func wholeTable() throws {
        var log = makeLog()
        let stream = Stream()
        stream.begin(1, 10)
        stream.buffer.appendRelation(Stream.relation())
        stream.row(.insert, new: ["1", "a"])
        stream.commit(10)
        stream.begin(2, 20)
        stream.buffer.appendTruncate([7], options: [])
        stream.row(.insert, new: ["1", "a"])
        stream.commit(20)
        stream.begin(3, 30)
        stream.buffer.appendRelation(Stream.relation(columns: ["id", "name", "more"]))
        stream.row(.insert, new: ["1", "a", "b"])
        stream.commit(30)
        stream.buffer.appendRelation(Stream.relation(columns: ["id", "name"]))
        stream.begin(4, 40)
        stream.commit(40)
        stream.begin(5, 50)
        stream.buffer.appendRelation(Stream.relation(8))
        stream.row(.insert, new: ["9", "a"], relation: 8)
        stream.commit(50)
        let touched = try log.take(stream.buffer.bytes)
        #expect(touched.map(\.wholeTables) == [[], [0], [0], [0], [0]])
        #expect(touched[1].keys.isEmpty)
    }

    @Test("tables that are not compared, and abandoned transactions, leave nothing")
    func nothing() throws {
        var log = makeLog()
        let stream = Stream()
        stream.begin(1, 10)
        stream.buffer.appendRelation(Stream.relation(9, name: "other"))
        stream.row(.insert, new: ["1", "a"], relation: 9)
        stream.commit(10)
        stream.begin(2, 20)
        stream.row(.insert, new: ["1", "a"])
        stream.buffer.appendAbandon()
        stream.buffer.appendFrontier(Position(commit: 25), time: .now)
        #expect(try log.take(stream.buffer.bytes).isEmpty)
        #expect(log.frontier == Position(commit: 25))
    }

    @Test("K1 what one view holds and the other not is excluded; what neither holds is only unsettled")
    func snapshotDispute() throws {
        let snapshot = TransactionSnapshot(minimum: 100, maximum: 110, inProgress: [103])
        func transaction(_ number: UInt64, _ commit: UInt64) -> TouchedTransaction {
            TouchedTransaction(number: number, commit: Position(commit: commit), keys: [0: [key("\(number)")]])
        }
        // 103 committed in the log before 104, and the snapshot does not see it yet: position alone would be wrong.
        let dispute = Dispute(
            [transaction(99, 5), transaction(103, 10), transaction(104, 20), transaction(105, 30), transaction(111, 40)],
            source: .transactions(snapshot), target: .before(Position(commit: 25)))
        #expect(dispute.excluded == [0: [key("103"), key("105")]])
        #expect(dispute.unsettled == [0: [key("103"), key("105"), key("111")]])
    }

    @Test("K2 of a source that logs keys, everything not in both views is excluded")
    func stateDispute() throws {
        func transaction(_ commit: UInt64) -> TouchedTransaction {
            TouchedTransaction(number: 0, commit: Position(commit: commit), keys: [0: [key("\(commit)")]])
        }
        let dispute = Dispute(
            [transaction(5), transaction(20), transaction(40)], source: .before(Position(commit: 30)),
            target: .before(Position(commit: 10)))
        #expect(dispute.excluded == [0: [key("20"), key("40")]])
        #expect(dispute.unsettled == dispute.excluded)
    }

    @Test("a snapshot's text is read, and nothing else is")
    func snapshotText() {
        #expect(
            TransactionSnapshot("10:20:12,15") == TransactionSnapshot(minimum: 10, maximum: 20, inProgress: [12, 15]))
        #expect(TransactionSnapshot("10:10:") == TransactionSnapshot(minimum: 10, maximum: 10, inProgress: []))
        for text in ["", "10:20", "20:10:", "10:20:25", "10:20:x", "a:b:c", "-1:2:"] {
            #expect(TransactionSnapshot(text) == nil, "\(text)")
        }
    }

    @Test("K15 a table that was altered is in dispute until the target has what was captured before")
    func altered() throws {
        let stream = Stream()
        for commit in [100, 200, 300] as [UInt64] {
            stream.begin(commit, commit)
            stream.row(.insert, new: ["\(commit)", "a"])
            stream.commit(commit)
        }
        var log = makeLog()
        _ = try log.take(stream.buffer.bytes)
        #expect(log.lastCommit(before: Position(commit: 100)) == nil)
        #expect(log.lastCommit(before: Position(commit: 250)) == Position(commit: 200))
        log.touchWhole(0, at: Position(commit: 200))
        let source = ViewMark.transactions(TransactionSnapshot(minimum: 900, maximum: 900, inProgress: []))
        for (frontier, isDisputed) in [(150, true), (200, true), (201, false)] as [(UInt64, Bool)] {
            let dispute = Dispute(log.transactions, source: source, target: .before(Position(commit: frontier)))
            #expect(dispute.unsettledTables == (isDisputed ? [0] : []) && dispute.excludedTables == dispute.unsettledTables, "\(frontier)")
        }
    }
}
