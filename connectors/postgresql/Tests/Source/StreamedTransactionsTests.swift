import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Does what `StreamIntake` does, with the spill in memory.
private struct MemoryIntake {
    var decoder: PgOutputDecoder
    var streamed = StreamedTransactions()
    let block = RecordBuffer()
    var spill: [UInt32: [UInt8]] = [:]

    init(form: ValueForm = .native, durable: UInt64 = 50) {
        decoder = PgOutputDecoder(form: form, durable: Position(commit: durable), nextTransaction: 10)
    }

    mutating func take(_ message: [UInt8], into buffer: RecordBuffer) throws {
        let before = block.count
        let step: StreamedTransactions.Step
        do {
            step = try message.withUnsafeBytes { try streamed.take($0, into: block) }
        } catch {
            #expect(block.count == before)
            throw error
        }
        switch step {
        case .plain: try decode(message, into: buffer)
        case .taken: break
        case .blockEnded(let number):
            spill[number, default: []] += Array(block.bytes)
            block.removeAll()
        case .cut(let number, let size):
            let kept = spill[number] ?? []
            try #require(size <= kept.count)
            spill[number] = Array(kept.prefix(Int(size)))
        case .discard(let number): spill[number] = nil
        case .commit(let commit):
            let kept = spill.removeValue(forKey: commit.transaction) ?? []
            #expect(commit.length == kept.count)
            try decoder.begin(commit)
            var offset = 0
            while offset < kept.count {
                let size = kept[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
                try decode(Array(kept[offset + 4..<offset + 4 + size]), into: buffer)
                offset += 4 + size
            }
            for description in commit.descriptions { try decode(description, into: buffer) }
            _ = try decoder.end(commit, into: buffer)
        }
    }

    private mutating func decode(_ message: [UInt8], into buffer: RecordBuffer) throws {
        for _ in 0..<2 {
            guard case .needsTypes(let types) = try message.withUnsafeBytes({ try decoder.decode($0, into: buffer) }) else { return }
            for type in types { decoder.provide(ResolvedType(name: "e", logical: .other("e")), for: type) }
        }
    }
}

/// The sorting of protocol version 2, without a server.
@Suite struct StreamedTransactionsTests {
    private static func big<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        withUnsafeBytes(of: value.bigEndian) { Array($0) }
    }
    private static func start(_ number: UInt32, first: Bool) -> [UInt8] { [0x53] + big(number) + [first ? 1 : 0] }
    private static let stop: [UInt8] = [0x45]
    private static func commit(_ number: UInt32, at position: UInt64) -> [UInt8] {
        [0x63] + big(number) + [0] + big(position) + big(position + 8) + big(Int64(5))
    }
    private static func abort(_ number: UInt32, _ part: UInt32) -> [UInt8] { [0x41] + big(number) + big(part) }
    private static func origin(_ name: String) -> [UInt8] { [0x4F] + big(UInt64(0)) + Array(name.utf8) + [0] }
    /// A plain message as it stands in a block.
    private static func inside(_ message: [UInt8], of number: UInt32) -> [UInt8] { [message[0]] + big(number) + message[1...] }
    private static func relation(_ id: UInt32, _ column: String) -> [UInt8] {
        [0x52] + big(id) + Array("public\0t\(id)\0".utf8) + [0x64] + big(UInt16(1)) + [1] + Array(column.utf8) + [0] + big(UInt32(25))
            + big(Int32(-1))
    }
    private static func insert(_ id: UInt32, _ text: String) -> [UInt8] {
        [0x49] + big(id) + [0x4E] + big(UInt16(1)) + [0x74] + big(UInt32(text.utf8.count)) + Array(text.utf8)
    }

    private func lines(_ messages: [[UInt8]]) throws -> [String] {
        var intake = MemoryIntake()
        let buffer = RecordBuffer()
        for message in messages { try intake.take(message, into: buffer) }
        let lines = RecordLines()
        try lines.collect(buffer)
        return lines.lines
    }

    @Test("P16 blocks of several transactions come whole, in the order of their commits, without what was aborted")
    func interleaved() throws {
        let (start, stop) = (Self.start, Self.stop)
        func row(_ text: String, _ number: UInt32) -> [UInt8] { Self.inside(Self.insert(7, text), of: number) }
        let described = { (number: UInt32) in Self.inside(Self.relation(7, "a"), of: number) }
        #expect(
            try lines([
                start(20, true), described(20), row("1", 20), row("s", 21), stop,
                start(30, true), described(30), row("other", 30), stop,
                Self.abort(20, 21),
                // Described once, in a part that is gone.
                start(20, false), row("2", 22), stop,
                start(40, true), described(40), row("never", 40), stop, Self.abort(40, 41), Self.abort(40, 40),
                Self.commit(30, at: 100),
                start(20, false), row("3", 20), stop,
                Self.commit(20, at: 200),
                [0x42] + Self.big(UInt64(300)) + Self.big(Int64(5)) + Self.big(UInt32(50)), Self.insert(7, "plain"),
                [0x43, 0] + Self.big(UInt64(300)) + Self.big(UInt64(308)) + Self.big(Int64(5)),
            ]) == [
                "begin", "relation public.t7: a* text", "insert t7 (other)", "commit 1",
                "begin", "insert t7 (1)", "insert t7 (2)", "insert t7 (3)", "commit 3",
                "begin", "insert t7 (plain)", "commit 1",
            ])
    }

    @Test("P9 P16 a relation that a streamed transaction describes holds there, and for all once it commits")
    func relations() throws {
        let plain = { (position: UInt64, messages: [[UInt8]]) in
            [[0x42] + Self.big(position) + Self.big(Int64(5)) + Self.big(UInt32(50))] + messages
                + [[0x43, 0] + Self.big(position) + Self.big(position + 8) + Self.big(Int64(5))]
        }
        // The part that describes and uses it is taken back: it holds all the same, as the server counts it as sent.
        var messages = [Self.start(20, first: true), Self.inside(Self.relation(7, "a"), of: 21), Self.inside(Self.insert(7, "x"), of: 21), Self.stop]
        messages += [Self.abort(20, 21), Self.commit(20, at: 100)] + plain(200, [Self.insert(7, "1")])
        #expect(try lines(messages) == ["begin", "relation public.t7: a* text", "insert t7 (1)", "commit 1"])
        // What was described to others later is not undone by a commit.
        messages = [Self.start(20, first: true), Self.inside(Self.relation(7, "a"), of: 20), Self.inside(Self.insert(7, "x"), of: 20), Self.stop]
        messages += plain(100, [Self.relation(7, "b"), Self.insert(7, "1")]) + [Self.commit(20, at: 200)] + plain(300, [Self.insert(7, "2")])
        #expect(
            try lines(messages) == [
                "begin", "relation public.t7: b* text", "insert t7 (1)", "commit 1",
                "begin", "relation public.t7: a* text", "insert t7 (x)", "commit 1",
                "begin", "relation public.t7: b* text", "insert t7 (2)", "commit 1",
            ])
        // One that was described in an aborted transaction holds for nobody.
        messages = [Self.start(20, first: true), Self.inside(Self.relation(7, "a"), of: 20), Self.stop, Self.abort(20, 20)]
        #expect(throws: BridgeError.self) { try lines(messages + plain(100, [Self.insert(7, "1")])) }
    }

    @Test("P16 a message says nothing of subtransactions; where an abort leaves one in doubt, the source must hold transactions")
    func messages() throws {
        func row(_ text: String, _ number: UInt32) -> [UInt8] { Self.inside(Self.insert(7, text), of: number) }
        // The server names the transaction as the writer, also of what a subtransaction wrote.
        let message = Self.inside([0x4D, 1] + Self.big(UInt64(1)) + Array("app\0".utf8) + Self.big(UInt32(1)) + [0x6D], of: 20)
        let first = [Self.start(20, first: true), Self.inside(Self.relation(7, "a"), of: 20)]
        let last = [Self.stop, Self.abort(20, 21), Self.commit(20, at: 100)]
        let changes = { (messages: [[UInt8]]) in try lines(first + messages + last).filter { $0.hasPrefix("insert") || $0.hasPrefix("message") } }
        #expect(try changes([row("1", 20), row("s", 21), message, row("s", 21)]) == ["insert t7 (1)"])
        #expect(try changes([message, row("1", 20), row("s", 21)]) == ["message app m", "insert t7 (1)"])
        for doubtful in [[row("1", 20), message], [row("1", 20), message, row("s", 21)], [message, row("1", 20), row("s", 22)]] {
            #expect(performing: { try changes(doubtful) }, throws: { ($0 as? BridgeError)?.code == .streamingRefused })
        }
    }

    @Test("P16 messages that come where they cannot are refused")
    func misplaced() throws {
        let begin = [0x42] + Self.big(UInt64(100)) + Self.big(Int64(5)) + Self.big(UInt32(9))
        let first = [Self.start(20, first: true)]
        for messages in [
            [Self.stop], [Self.start(20, first: false)], [Self.commit(20, at: 100)], [Self.abort(20, 20)], [Self.abort(20, 21)],
            first + first, first + [Self.commit(20, at: 100)], first + [Self.abort(20, 20)], first + [begin], [begin] + first,
            first + [Self.inside(Self.insert(7, "x"), of: 20)], first + [Self.stop] + first, first + [Self.insert(7, "x")],
            first + [[0x49]], first + [[0x52, 0]], first + [[0x54] + Self.big(UInt32(20)) + Self.big(UInt32.max) + [0]], first + [[0x45, 0]],
            first + [Self.stop, Self.commit(20, at: 100), Self.commit(20, at: 200)], first + [Self.stop, begin, Self.commit(20, at: 100)],
        ] {
            #expect(performing: { try lines(messages) }, throws: { ($0 as? BridgeError)?.code == .streamMalformed })
        }
    }

    @Test("P16 P19 a streamed transaction of the other direction's applier is passed over, and its relations hold")
    func origins() throws {
        let link = LinkDescription(migration: "m", direction: .forward, mappings: [], form: .native)
        for (name, isKept) in [("bridge_m_reverse", false), ("bridge_m", true)] {
            var intake = MemoryIntake()
            intake.streamed = StreamedTransactions(link: link)
            let buffer = RecordBuffer()
            for message in [
                Self.start(20, first: true), Self.origin(name), Self.inside(Self.relation(7, "a"), of: 20),
                Self.inside(Self.insert(7, "1"), of: 20), Self.stop, Self.start(20, first: false),
                Self.inside(Self.insert(7, "2"), of: 21), Self.stop, Self.abort(20, 21), Self.commit(20, at: 100),
            ] { try intake.take(message, into: buffer) }
            #expect(buffer.isEmpty == !isKept)
            try intake.take([0x42] + Self.big(UInt64(300)) + Self.big(Int64(5)) + Self.big(UInt32(50)), into: buffer)
            try intake.take(Self.insert(7, "3"), into: buffer)
        }
    }

    @Test("P16 a transaction that commits before what is durable is passed over")
    func durable() throws {
        for (durable, isPassedOver) in [(100 as UInt64, false), (101, true)] {
            var intake = MemoryIntake(durable: durable)
            let buffer = RecordBuffer()
            for message in [
                Self.start(20, first: true), Self.inside(Self.relation(7, "a"), of: 20), Self.inside(Self.insert(7, "1"), of: 20),
                Self.stop, Self.commit(20, at: 100),
            ] { try intake.take(message, into: buffer) }
            #expect(buffer.isEmpty == isPassedOver)
        }
    }

    // MARK: Subtransactions

    /// One session of a server, which writes, opens, releases and rolls back subtransactions.
    private struct Session {
        struct Level {
            var number: UInt32?
            /// Numbers of subtransactions that were released into this one.
            var released: [UInt32] = []
            /// How many writes there were when it began.
            var began: Int
        }
        var next: UInt32
        var levels: [Level]
        var writes: [(number: UInt32, value: Int)] = []

        init(top: UInt32) {
            next = top &+ 1
            levels = [Level(number: top, began: 0)]
        }

        mutating func write(_ value: Int) -> UInt32 {
            for index in levels.indices where levels[index].number == nil {
                levels[index].number = next
                next &+= 1
            }
            let number = levels[levels.count - 1].number ?? 0
            writes.append((number, value))
            return number
        }

        mutating func release() {
            let last = levels.removeLast()
            levels[levels.count - 1].released += last.released + (last.number.map { [$0] } ?? [])
        }

        /// The numbers in the order in which the server names them.
        mutating func rollBack() -> [UInt32] {
            let last = levels.removeLast()
            writes.removeLast(writes.count - last.began)
            return last.released + (last.number.map { [$0] } ?? [])
        }
    }

    @Test("P16 subtransactions are cut off as the server would: random nesting against a model")
    func subtransactions() {
        var (random, seed) = SeededGenerator.named("subtransactions of a streamed transaction")
        for round in 0..<100 {
            // Some begin shortly before the numbers begin anew.
            let top: UInt32 = round % 3 == 0 ? .max - UInt32(random.below(200)) : 1_000
            var session = Session(top: top)
            var stack = SubtransactionStack()
            var kept: [Int] = []
            for value in 0..<400 {
                switch random.below(10) {
                case 0, 1: session.levels.append(.init(number: nil, began: session.writes.count))
                case 2 where session.levels.count > 1: session.release()
                case 3 where session.levels.count > 1:
                    for number in session.rollBack() {
                        if let place = stack.abort(number)?.place { kept.removeLast(kept.count - min(kept.count, Int(place))) }
                    }
                default:
                    stack.note(session.write(value), of: top, at: UInt64(kept.count))
                    kept.append(value)
                }
                #expect(kept == session.writes.map(\.value), "seed \(seed), round \(round)")
            }
        }
    }

    @Test("P16 a million subtransactions are remembered in little, and forgotten where the outermost level writes")
    func manySubtransactions() {
        var stack = SubtransactionStack()
        for number in 0..<1_000_000 as Range<UInt32> { stack.note(number + 2, of: 1, at: UInt64(number)) }
        #expect(stack.count == 1_000_000 && stack.count < StreamIntake.subtransactionLimit)
        #expect(stack.abort(700_002)?.place == 700_000)
        #expect(stack.count == 700_000)
        stack.note(1, of: 1, at: 700_000)
        #expect(stack.count == 0)
        // Released one by one into one that writes in between.
        for number in 0..<1_000 as Range<UInt32> {
            stack.note(3 + number, of: 1, at: UInt64(2 * number))
            stack.note(2, of: 1, at: UInt64(2 * number + 1))
            #expect(stack.count == 1)
        }
        #expect(stack.abort(2)?.place == 0)
    }

    // MARK: Fuzz

    @Test("P16 mutated streams throw or decode, and what they leave can be read", arguments: [ValueForm.native, .canonical])
    func fuzz(form: ValueForm) async throws {
        try await BlockingWork().run { try fuzzBlocking(form) }
    }

    private func fuzzBlocking(_ form: ValueForm) throws {
        let seed = environment("BRIDGE_FUZZ_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        let rounds = environment("BRIDGE_FUZZ_ROUNDS").flatMap { Int($0) } ?? 2_000
        print("fuzzing streamed transactions: BRIDGE_FUZZ_SEED=\(seed) BRIDGE_FUZZ_ROUNDS=\(rounds)")
        var random = SeededGenerator(seed: seed)
        let plain = DecoderFuzzTests.messages()
        // As in a transaction: relation, changes, message, origin, type.
        let body = [plain[0]] + plain[2..<8] + [plain[9]]
        var original = [Self.start(20, first: true), Self.origin("o")] + body.map { Self.inside($0, of: 20) } + [Self.stop]
        original += [Self.start(30, first: true)] + body.map { Self.inside($0, of: 31) } + [Self.stop, Self.abort(30, 31)] + plain
        original += [Self.start(20, first: false)] + body.map { Self.inside($0, of: 22) } + [Self.stop]
        original += [Self.commit(30, at: 200), Self.abort(20, 22), Self.commit(20, at: 300)]
        var refused = 0
        for round in 0..<rounds {
            var messages = original
            for _ in 0..<Int.random(in: 1...3, using: &random) { DecoderFuzzTests().mutate(&messages, &random) }
            var intake = MemoryIntake(form: form)
            let buffer = RecordBuffer()
            do {
                for message in messages { try intake.take(message, into: buffer) }
            } catch let error as BridgeError {
                refused += 1
                // Messages whose subtransaction cannot be told are refused too.
                #expect([.streamMalformed, .streamingRefused].contains(error.code), "seed \(seed), round \(round)")
            }
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() {
                if [.insert, .update, .delete].contains(record.kind) { _ = try RowChange(record) }
            }
        }
        #expect(refused > rounds / 4 && refused < rounds)
    }
}
