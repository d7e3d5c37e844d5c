import BridgeCore
import BridgeReplication
import BridgeTestSupport
import Testing

/// Builds journals by hand.
private struct Script {
    let buffer = RecordBuffer()

    static func relation(_ id: UInt32, _ name: String, columns: Int = 1) -> Relation {
        Relation(
            id: id, engine: EngineName(rawValue: "test"), form: .canonical, name: TableName(name: name), identity: .key,
            columns: (0..<columns).map { .init(name: "c\($0)", isKey: $0 == 0, typeName: "bigint", type: .int64) })
    }

    func relation(_ relation: Relation) -> Script {
        buffer.appendRelation(relation)
        return self
    }

    func begin(_ commit: UInt64) -> Script {
        buffer.appendBegin(
            TransactionStart(transaction: 0, position: Position(commit: commit), commitTime: Timestamp(microseconds: 1)))
        return self
    }

    func insert(_ relation: UInt32, _ value: Int64, columns: Int = 1) -> Script {
        let start = buffer.beginRow(.insert, relation: relation)
        buffer.beginRowImage(columns: columns)
        for _ in 0..<columns { buffer.appendCell(integer: value) }
        buffer.endRecord(start)
        return self
    }

    func truncate(_ relations: [UInt32]) -> Script {
        buffer.appendTruncate(relations, options: [])
        return self
    }

    func commit(_ commit: UInt64, changes: UInt64 = 1) -> Script {
        buffer.appendCommit(
            TransactionEnd(
                position: Position(commit: commit), end: commit + 1, commitTime: Timestamp(microseconds: 1),
                changes: changes))
        return self
    }

    func message(_ text: String, prefix: String = "bridge.marker") -> Script {
        Array(text.utf8).withUnsafeBytes { buffer.appendMessage(prefix: prefix, content: $0) }
        return self
    }

    func abandon() -> Script {
        buffer.appendAbandon()
        return self
    }
}

/// A batch's records in words, reading rows with the relation that is in force where they stand.
private func words(_ batch: ChangeBatch?) throws -> [String] {
    guard let batch else { return [] }
    var relations = batch.relations
    var cursor = RecordCursor(batch.records.bytes)
    var words: [String] = []
    while let record = try cursor.next() {
        switch record.kind {
        case .relation:
            let relation = try Relation(payload: record.payload)
            relations[relation.id] = relation
        case .begin: words.append("begin \(try record.transactionStart().position.commit)")
        case .commit: words.append("commit \(try record.transactionEnd().position.commit)")
        case .truncate: words.append("truncate \(try record.truncation().relations)")
        case .insert:
            let row = try RowChange(record)
            let relation = try #require(relations[row.relation])
            var cells = try #require(row.new).cells
            #expect(row.new?.columnCount == relation.columns.count)
            words.append("\(relation.name)=\(try cells.next()?.integer ?? -1)")
        default: words.append("\(record.kind)")
        }
    }
    return words
}

extension BatchBuilder {
    /// Consumes a whole script, which stays alive meanwhile.
    @discardableResult
    fileprivate mutating func consume(_ script: Script) throws(BridgeError) -> Action {
        defer { withExtendedLifetime(script) {} }
        return try consume(script.buffer.bytes).action
    }

    /// Consumes all of a script as the applier's loop does; gives the batches that had to end on the way.
    fileprivate mutating func consumeAll(_ script: Script) throws -> [[String]] {
        defer { withExtendedLifetime(script) {} }
        var (taken, offset): ([[String]], Int) = ([], 0)
        while offset < script.buffer.count {
            offset += try consume(UnsafeRawBufferPointer(rebasing: script.buffer.bytes[offset...])).consumed
            while isFull { taken.append(try words(takeBatch(replacement: RecordBuffer()))) }
        }
        return taken
    }
}

private func builder(
    bound: Int = 1 << 20, applied: UInt64 = 0, copied: [String: UInt64] = [:], relations: [Relation] = [],
    passedOver: [PassedChange] = []
) -> BatchBuilder {
    BatchBuilder(
        bound: bound, applied: Position(commit: applied),
        copied: Dictionary(uniqueKeysWithValues: copied.map { (TableName(name: $0), Position(commit: $1)) }),
        relations: Dictionary(uniqueKeysWithValues: relations.map { ($0.id, $0) }), passedOver: passedOver,
        output: RecordBuffer())
}

private func passed(_ commit: UInt64, _ ordinal: UInt64, _ table: String = "users", change: String = "insert") -> PassedChange {
    PassedChange(
        source: table,
        record: ConflictRecord(
            position: Position(commit: commit, ordinal: ordinal), commitTime: Timestamp(microseconds: 1), table: table,
            change: change, reason: "change_refused", outcome: .passedOver, key: "{}"))
}

/// Where the source counts a batch's changes.
private func places(_ batch: ChangeBatch?) throws -> [String] {
    guard let batch else { return [] }
    var locator = ChangeLocator(batch.places)
    var cursor = RecordCursor(batch.records.bytes)
    var places: [String] = []
    while let record = try cursor.next() {
        switch record.kind {
        case .insert, .truncate:
            let place = locator.change(at: record.offset, in: batch.records.bytes).position
            #expect(locator.change(at: cursor.offset - 1, in: batch.records.bytes).position == place)
            #expect(batch.places.opening != nil || record.offset > 0)
            places.append("\(place.commit).\(place.ordinal)")
        default: break
        }
    }
    return places
}

@Suite("Batch builder")
struct BatchBuilderTests {
    private let users = Script.relation(1, "users")
    private let orders = Script.relation(2, "orders")

    @Test("P25 consecutive transactions merge into one batch that ends at the last commit")
    func merges() throws {
        let script = Script().relation(users).begin(10).insert(1, 1).commit(10).begin(20).insert(1, 2).commit(20)
            .begin(30).insert(1, 3)
        var batches = builder()
        let (consumed, _) = try batches.consume(script.buffer.bytes)
        #expect(consumed == script.buffer.count)
        let batch = batches.takeBatch(replacement: RecordBuffer())
        #expect(try words(batch) == ["begin 10", "users=1", "commit 10", "begin 20", "users=2", "commit 20"])
        #expect(batch?.checkpoint?.position.commit == 20)
        #expect(batch?.checkpoint?.frontier.commit == 21)
        #expect(batch?.transactions == 2)
        #expect(batch?.rows == 2)
        #expect(batches.takeBatch(replacement: RecordBuffer()) == nil)
        try batches.consume(Script().commit(30))
        let rest = batches.takeBatch(replacement: RecordBuffer())
        #expect(try words(rest) == ["begin 30", "users=3", "commit 30"])
        #expect(rest?.rows == 1)
    }

    @Test("P10 a batch ends before the transaction that brings a table's new shape, and only before that")
    func newShape() throws {
        var batches = builder()
        let script = Script().begin(10).relation(users).insert(1, 1).commit(10).begin(20).relation(users).relation(orders).insert(1, 2).commit(20)
            .begin(30).insert(1, 3).relation(Script.relation(1, "users", columns: 2)).insert(1, 4, columns: 2).commit(30).begin(40).insert(1, 5, columns: 2).commit(40)
        var consumed = try batches.consume(script.buffer.bytes).consumed
        #expect(consumed < script.buffer.count && batches.isFull)
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 10", "users=1", "commit 10", "begin 20", "users=2", "commit 20"])
        #expect(!batches.isFull)
        consumed += try batches.consume(UnsafeRawBufferPointer(rebasing: script.buffer.bytes[consumed...])).consumed
        #expect(consumed == script.buffer.count && !batches.isFull)
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 30", "users=3", "users=4", "commit 30", "begin 40", "users=5", "commit 40"])
    }

    @Test("P24 what the checkpoint holds already is left out, also when reading begins inside it")
    func skipsApplied() throws {
        let script = Script().insert(1, 0).commit(10).begin(20).insert(1, 1).commit(20).begin(21).insert(1, 2).commit(21)
        var batches = builder(applied: 21, relations: [users])
        try batches.consume(script)
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 21", "users=2", "commit 21"])
    }

    @Test("P20 rows that a table's copy holds are left out, those of other tables stay")
    func skipsCopied() throws {
        let script = Script().relation(users).relation(orders)
            .begin(10).insert(1, 1).insert(2, 1).truncate([1, 2]).commit(10)
            .begin(50).insert(1, 2).insert(2, 2).commit(50)
        var batches = builder(copied: ["users": 50])
        try batches.consume(script)
        let batch = batches.takeBatch(replacement: RecordBuffer())
        #expect(
            try words(batch) == [
                "begin 10", "orders=1", "truncate [2]", "commit 10", "begin 50", "users=2", "orders=2", "commit 50",
            ])
        #expect(batch?.rows == 3)
    }

    @Test("S10 rows of a source that logs keys are applied even if the transaction began before the table's copy")
    func keepsStates() throws {
        let script = Script().relation(users).begin(10)
        let start = script.buffer.beginRow(.upsert, relation: 1)
        script.buffer.beginRowImage(columns: 1)
        script.buffer.appendCell(integer: 5)
        script.buffer.endRecord(start)
        var batches = builder(copied: ["users": 50])
        #expect(!batches.holdsStates)
        try batches.consume(script.commit(90))
        #expect(batches.holdsStates)
        #expect(batches.takeBatch(replacement: RecordBuffer())?.rows == 1)
    }

    @Test("P20 a relation that first appears inside a transaction is held to its copy too")
    func skipsCopiedLateRelation() throws {
        let script = Script().begin(10).relation(users).insert(1, 1).relation(orders).insert(2, 1).commit(10)
        var batches = builder(copied: ["users": 50])
        try batches.consume(script)
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 10", "orders=1", "commit 10"])
        // A transaction behind every copy brings its relation with it.
        try batches.consume(Script().begin(60).relation(users).insert(1, 2).commit(60))
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 60", "users=2", "commit 60"])
    }

    @Test("R2 a transaction larger than the bound is handed out in parts, with a checkpoint only at its end")
    func splits() throws {
        var script = Script().relation(users).begin(10)
        for value in 0..<100 { script = script.insert(1, Int64(value)) }
        script = script.commit(10, changes: 100)
        var batches = builder(bound: 500)
        var offset = 0
        var parts: [ChangeBatch] = []
        while offset < script.buffer.count {
            let (consumed, _) = try batches.consume(UnsafeRawBufferPointer(rebasing: script.buffer.bytes[offset...]))
            offset += consumed
            while batches.isFull, let part = batches.takeBatch(replacement: RecordBuffer()) { parts.append(part) }
        }
        if let last = batches.takeBatch(replacement: RecordBuffer()) { parts.append(last) }
        #expect(parts.count > 3)
        #expect(parts.dropLast().allSatisfy { $0.checkpoint == nil && $0.records.count < 600 })
        #expect(parts.last?.checkpoint?.position.commit == 10)
        #expect(parts.reduce(0) { $0 + $1.rows } == 100)
        let all = try parts.flatMap { try words($0) }
        #expect(all.count == 102)
    }

    @Test("R1 an abandoned transaction leaves nothing; one that was handed out in part is rolled back")
    func abandons() throws {
        var batches = builder(bound: 200, relations: [users])
        let small = Script().begin(10).insert(1, 1).abandon().begin(10).insert(1, 1).commit(10)
        let action = try batches.consume(small)
        guard case .none = action else { throw Unexpected() }
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 10", "users=1", "commit 10"])

        var large = Script().begin(20)
        for _ in 0..<20 { large = large.insert(1, 2) }
        try batches.consume(large)
        #expect(batches.takeBatch(replacement: RecordBuffer())?.checkpoint == nil)
        let second = try batches.consume(Script().abandon())
        guard case .rollback = second else { throw Unexpected() }
        try batches.consume(Script().begin(20).insert(1, 3).commit(20))
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 20", "users=3", "commit 20"])
    }

    @Test("R1 an abandoned transaction does not take back the one before it, of which a part was handed out")
    func abandonsOnlyItself() throws {
        var batches = builder(bound: 200, relations: [users])
        var script = Script().begin(10)
        for _ in 0..<8 { script = script.insert(1, 1) }
        try batches.consume(script)
        #expect(batches.takeBatch(replacement: RecordBuffer())?.checkpoint == nil)
        let action = try batches.consume(Script().insert(1, 2).commit(10, changes: 9).begin(20).insert(1, 3).abandon())
        guard case .none = action else { throw Unexpected() }
        let rest = batches.takeBatch(replacement: RecordBuffer())
        #expect(rest?.checkpoint?.position.commit == 10)
        #expect(try words(rest).suffix(2) == ["users=2", "commit 10"])
    }

    @Test("C6 the last marker of a batch goes with its checkpoint, and a transaction of nothing else is a batch")
    func markers() throws {
        var batches = builder(relations: [users])
        try batches.consume(
            Script().begin(10).insert(1, 1).message("first").commit(10).begin(20).message("second").commit(20)
                .begin(30).insert(1, 2).commit(30).begin(40).message("third"))
        #expect(batches.takeBatch(replacement: RecordBuffer())?.checkpoint?.marker == "second")
        #expect(!batches.hasComplete)
        try batches.consume(Script().commit(40))
        let alone = batches.takeBatch(replacement: RecordBuffer())
        #expect(alone?.checkpoint?.marker == "third")
        #expect(alone?.checkpoint?.frontier.commit == 41)
        #expect(try words(alone) == ["begin 40", "commit 40"])
        try batches.consume(Script().begin(50).insert(1, 3).commit(50))
        #expect(batches.takeBatch(replacement: RecordBuffer())?.checkpoint?.marker == nil)
    }

    @Test("C6 a marker of a transaction that is void, on the target already, or not bridge's own is none")
    func noMarkers() throws {
        var batches = builder(applied: 20, relations: [users])
        let nul = "a\u{0}b", long = String(repeating: "x", count: 300)
        try batches.consume(
            Script().message("outside").begin(10).message("applied").commit(10).begin(20).message("void").abandon()
                .begin(20).insert(1, 1).message("another's", prefix: "app").message("").message(nul).message(long).commit(20))
        let batch = batches.takeBatch(replacement: RecordBuffer())
        #expect(try words(batch) == ["begin 20", "users=1", "commit 20"])
        #expect(batch?.checkpoint?.marker == nil)
    }

    @Test("C6 a marker in a transaction that is handed out in parts comes with the last part")
    func markerOfLargeTransaction() throws {
        var batches = builder(bound: 200, relations: [users])
        var script = Script().begin(10).message("large")
        for value in 0..<20 { script = script.insert(1, Int64(value)) }
        try batches.consume(script)
        let part = batches.takeBatch(replacement: RecordBuffer())
        #expect(part != nil && part?.checkpoint == nil)
        try batches.consume(Script().commit(10, changes: 21))
        #expect(batches.takeBatch(replacement: RecordBuffer())?.checkpoint?.marker == "large")
        // Handed out in part, then void: the one that comes in its place has no marker.
        var void = builder(bound: 200, relations: [users])
        try void.consume(script)
        #expect(void.takeBatch(replacement: RecordBuffer())?.checkpoint == nil)
        try void.consume(Script().abandon())
        try void.consume(Script().begin(10).insert(1, 1).commit(10))
        #expect(void.takeBatch(replacement: RecordBuffer())?.checkpoint?.marker == nil)
    }

    @Test("C6 whatever the cuts, parts, voids and restarts, a marker never comes before anything that stands before it")
    func markersNeverEarly() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<300 { try Self.playMarkers(&random) }
    }

    /// Plays a random journal into batches, now and then beginning anew at the last checkpoint, and looks at what the target
    /// would hold whenever it comes to have a marker.
    private static func playMarkers(_ random: inout SeededGenerator) throws {
        var script = Script().relation(Script.relation(1, "users"))
        var (value, commit): (Int64, UInt64) = (0, 10)
        var before: [String: Set<Int64>] = [:]
        var committed: Set<Int64> = []
        for _ in 0..<Int.random(in: 1...20, using: &random) {
            if Int.random(in: 0..<4, using: &random) == 0 {
                script = script.begin(commit).insert(1, -1).message("void \(commit)").insert(1, -1).abandon()
            }
            script = script.begin(commit)
            var rows: Set<Int64> = []
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                value += 1
                script = script.insert(1, value)
                rows.insert(value)
            }
            committed.formUnion(rows)
            if Bool.random(using: &random) {
                script = script.message("marker \(commit)")
                before["marker \(commit)"] = committed
            }
            script = script.commit(commit)
            commit += UInt64.random(in: 1...10, using: &random)
        }
        let bytes = script.buffer.bytes
        var target: (rows: Set<Int64>, open: Set<Int64>, checkpoint: Checkpoint?, marker: String?) = ([], [], nil, nil)
        var restarts = Int.random(in: 0...3, using: &random)
        while true {
            var batches = BatchBuilder(
                bound: Int.random(in: 40...400, using: &random), applied: target.checkpoint?.frontier ?? .zero, copied: [:],
                relations: [1: Script.relation(1, "users")], output: RecordBuffer())
            target.open = []
            var offset = 0
            var isCut = false
            while !isCut, offset < bytes.count || batches.hasComplete {
                if offset < bytes.count {
                    let (consumed, action) = try batches.consume(UnsafeRawBufferPointer(rebasing: bytes[offset...]))
                    offset += consumed
                    if case .rollback = action { target.open = [] }
                }
                while batches.isFull || (batches.hasComplete && (offset == bytes.count || Bool.random(using: &random))),
                    let batch = batches.takeBatch(replacement: RecordBuffer())
                {
                    for word in try words(batch) where word.hasPrefix("users=") {
                        target.open.insert(try #require(Int64(word.dropFirst("users=".count))))
                    }
                    guard let checkpoint = batch.checkpoint else { continue }
                    target.rows.formUnion(target.open)
                    target.open = []
                    target.checkpoint = checkpoint
                    if let marker = checkpoint.marker {
                        target.marker = marker
                        let expected = try #require(before[marker])
                        #expect(expected.isSubset(of: target.rows))
                    }
                }
                if restarts > 0, Int.random(in: 0..<10, using: &random) == 0 {
                    restarts -= 1
                    isCut = true
                }
            }
            guard isCut else { break }
        }
        #expect(target.rows == committed)
        let last = before.keys.max { UInt64($0.dropFirst(7)) ?? 0 < UInt64($1.dropFirst(7)) ?? 0 }
        #expect(target.marker == last)
    }

    @Test("P9 rows are read with the columns that were in force where they stand, across batch borders")
    func relationsChange() throws {
        let wide = Script.relation(1, "users", columns: 2)
        let script = Script().relation(users).begin(10).insert(1, 1).commit(10)
            .begin(20).insert(1, 2).relation(wide).insert(1, 3, columns: 2).commit(20)
            .begin(30).insert(1, 4, columns: 2)
        var batches = builder()
        #expect(try batches.consumeAll(script) == [["begin 10", "users=1", "commit 10"]])
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 20", "users=2", "users=3", "commit 20"])
        try batches.consume(Script().commit(30))
        #expect(try words(batches.takeBatch(replacement: RecordBuffer())) == ["begin 30", "users=4", "commit 30"])

        // A tail that holds the old and the new shape starts from the old one.
        var tail = builder(relations: [users])
        let both = Script().begin(10).insert(1, 1).commit(10).begin(20).insert(1, 2).relation(wide).insert(1, 3, columns: 2)
        #expect(try tail.consumeAll(both) == [["begin 10", "users=1", "commit 10"]])
        try tail.consume(Script().commit(20))
        #expect(try words(tail.takeBatch(replacement: RecordBuffer())) == ["begin 20", "users=2", "users=3", "commit 20"])

        // What an abandoned transaction told of a table stays known.
        var abandoned = builder(relations: [users])
        let void = Script().begin(10).insert(1, 1).commit(10).begin(20).relation(wide).insert(1, 3, columns: 2).abandon()
            .begin(20).insert(1, 3, columns: 2).commit(20)
        #expect(try abandoned.consumeAll(void) == [["begin 10", "users=1", "commit 10"]])
        #expect(try words(abandoned.takeBatch(replacement: RecordBuffer())) == ["begin 20", "users=3", "commit 20"])
    }

    @Test("J5 records that are cut off or nested wrongly are refused")
    func malformed() {
        var batches = builder(relations: [users])
        #expect(throws: BridgeError.self) { try batches.consume(Script().begin(10).begin(20)) }
        var other = builder(relations: [users])
        let whole = Script().begin(10).insert(1, 1).commit(10).buffer
        #expect(throws: BridgeError.self) {
            try other.consume(UnsafeRawBufferPointer(rebasing: whole.bytes[..<(whole.count - 1)]))
        }
    }
}

private struct Unexpected: Error {
}

@Suite("Batch builder: changes that are passed over")
struct PassedChangeTests {
    private let users = Script.relation(1, "users")
    private let orders = Script.relation(2, "orders")

    @Test("P32 a change that is to be passed over is left out of its transaction and told with the batch that ends it")
    func passesOver() throws {
        let script = Script().relation(users).relation(orders)
            .begin(10).insert(1, 1).insert(1, 2).insert(2, 3).truncate([1, 2]).insert(1, 4).commit(10)
            .begin(20).insert(1, 5).commit(20)
        let decisions = [passed(20, 0), passed(10, 1), passed(10, 3, change: "truncate"), passed(5, 0), passed(15, 0)]
        var batches = builder(passedOver: decisions)
        try batches.consume(script)
        let batch = batches.takeBatch(replacement: RecordBuffer())
        #expect(
            try words(batch) == ["begin 10", "users=1", "orders=3", "users=4", "commit 10", "begin 20", "commit 20"])
        #expect(batch?.leftOut.map(\.position) == [decisions[1], decisions[2], decisions[0]].map(\.record.position))
        #expect(try places(batch) == ["10.0", "10.2", "10.4"])
        #expect(batch?.rows == 3)
    }

    @Test("P32 changes are counted as the journal counts them, whatever is left out for the copy's sake")
    func countsChanges() throws {
        let script = Script().relation(users).relation(orders)
            .begin(10).insert(1, 1).insert(1, 2).insert(2, 3).truncate([1]).truncate([1, 2]).insert(2, 4).commit(10)
            .begin(60).insert(1, 5).insert(2, 6).commit(60)
        var batches = builder(copied: ["users": 50])
        try batches.consume(script)
        #expect(try places(batches.takeBatch(replacement: RecordBuffer())) == ["10.2", "10.4", "10.5", "60.0", "60.1"])
    }

    @Test("P32 a change is passed over and counted in a transaction that is cut into parts")
    func passesOverInParts() throws {
        let relation = Script.relation(1, "users", columns: 40)
        var script = Script().relation(relation).begin(10)
        for row in 0..<12 { script = script.insert(1, Int64(row), columns: 40) }
        script = script.commit(10).begin(20).insert(1, 99, columns: 40).commit(20)
        for cut in 0..<12 {
            var batches = builder(bound: 2_200, passedOver: [passed(10, UInt64(cut))])
            var found: [String] = []
            var leftOut: [Position] = []
            var parts = 0
            var offset = 0
            func take() throws {
                while let batch = batches.takeBatch(replacement: RecordBuffer()) {
                    parts += batch.checkpoint == nil ? 1 : 0
                    found += try places(batch)
                    leftOut += batch.leftOut.map(\.position)
                    #expect(batch.leftOut.count <= 1)
                }
            }
            while offset < script.buffer.count {
                let rest = UnsafeRawBufferPointer(rebasing: script.buffer.bytes[offset...])
                offset += try batches.consume(rest).consumed
                if batches.isFull { try take() }
            }
            try take()
            #expect(parts >= 2)
            #expect(leftOut == [Position(commit: 10, ordinal: UInt64(cut))])
            #expect(found == (0..<12).filter { $0 != cut }.map { "10.\($0)" } + ["20.0"], "\(cut)")
        }
    }

    @Test("P32 a transaction that a crash cut off and that comes again loses its change in both")
    func passesOverAgain() throws {
        let script = Script().relation(users).begin(5).insert(1, 9).commit(5)
            .begin(10).insert(1, 1).insert(1, 2).abandon()
            .begin(10).insert(1, 1).insert(1, 2).insert(1, 3).commit(10)
        var batches = builder(passedOver: [passed(10, 1)])
        try batches.consume(script)
        let batch = batches.takeBatch(replacement: RecordBuffer())
        #expect(try words(batch) == ["begin 5", "users=9", "commit 5", "begin 10", "users=1", "users=3", "commit 10"])
        #expect(batch?.leftOut.count == 1)
        #expect(try places(batch) == ["5.0", "10.0", "10.2"])
    }

    @Test("P32 another change in the place of one that is to be passed over is never left out")
    func otherChange() throws {
        for decision in [passed(10, 0, "orders"), passed(10, 0, change: "delete")] {
            var batches = builder(passedOver: [decision])
            let error = #expect(throws: BridgeError.self) {
                try batches.consume(Script().relation(users).begin(10).insert(1, 1).commit(10))
            }
            #expect(error?.code == .journalForeign)
        }
    }
}
