import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL


/// Prints its seed, so that a failure can be run again: `BRIDGE_FUZZ_SEED`, `BRIDGE_FUZZ_ROUNDS`.
@Suite struct DecoderFuzzTests {
    /// A stream's messages, made by hand from the manual's message formats.
    static func messages() -> [[UInt8]] {
        func text(_ value: String) -> [UInt8] { [0x74] + big(UInt32(value.utf8.count)) + Array(value.utf8) }
        func big<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
        func name(_ value: String) -> [UInt8] { Array(value.utf8) + [0] }
        func column(_ value: String, _ oid: UInt32, key: Bool = false) -> [UInt8] {
            [key ? 1 : 0] + name(value) + big(oid) + big(Int32(-1))
        }
        let columns = column("id", 23, key: true) + column("f", 701) + column("b", 17) + column("at", 1184) + column("e", 99_999)
        let relation = [0x52] + big(UInt32(7)) + name("public") + name("t") + [0x64] + big(UInt16(5)) + columns
        let row = big(UInt16(5)) + text("12") + text("1.5") + text("\\x0aff") + text("2024-01-02 03:04:05.6+00") + [0x75]
        let key = big(UInt16(5)) + text("12") + [0x6E, 0x6E, 0x6E, 0x6E]
        let begin = [0x42] + big(UInt64(100)) + big(Int64(5)) + big(UInt32(9))
        let commit = [0x43, 0] + big(UInt64(100)) + big(UInt64(120)) + big(Int64(5))
        let message: [UInt8] = [0x4D, 1] + big(UInt64(1)) + name("app") + big(UInt32(2)) + [1, 2]
        return [
            relation, begin, [0x49] + big(UInt32(7)) + [0x4E] + row, [0x55] + big(UInt32(7)) + [0x4B] + key + [0x4E] + row,
            [0x55] + big(UInt32(7)) + [0x4F] + row + [0x4E] + row, [0x44] + big(UInt32(7)) + [0x4B] + key,
            [0x54] + big(UInt32(1)) + [1] + big(UInt32(7)), message, [0x4F] + big(UInt64(1)) + name("o"),
            [0x59] + big(UInt32(99_999)) + name("public") + name("e"), commit,
        ]
    }

    private func decode(_ messages: [[UInt8]], form: ValueForm) throws -> (RecordBuffer, [PgOutputDecoder.Step]) {
        var decoder = PgOutputDecoder(form: form, durable: Position(commit: 50), nextTransaction: 10)
        let buffer = RecordBuffer()
        var steps: [PgOutputDecoder.Step] = []
        for message in messages {
            var step = try message.withUnsafeBytes { try decoder.decode($0, into: buffer) }
            if case .needsTypes(let references) = step {
                for reference in references { decoder.provide(ResolvedType(name: "public.e", logical: .other("public.e")), for: reference) }
                step = try message.withUnsafeBytes { try decoder.decode($0, into: buffer) }
                if case .needsTypes = step { Issue.record("a type is asked for twice") }
            }
            steps.append(step)
        }
        return (buffer, steps)
    }

    @Test("a stream is decoded into records that can be read", arguments: [ValueForm.native, .canonical])
    func wellFormed(form: ValueForm) throws {
        let (buffer, steps) = try decode(Self.messages(), form: form)
        #expect(steps.count { $0 == .change } == 6)
        var kinds: [RecordKind] = []
        var cursor = RecordCursor(buffer.bytes)
        while let record = try cursor.next() {
            kinds.append(record.kind)
            if record.kind == .commit { #expect(try record.transactionEnd().changes == 6) }
            if [.insert, .update, .delete].contains(record.kind) { _ = try RowChange(record) }
        }
        #expect(kinds == [.begin, .relation, .insert, .update, .update, .delete, .truncate, .message, .commit])
    }

    @Test("a transaction that the journal has is passed over, its relation is not", arguments: [49 as UInt64, 100, 101])
    func passedOver(durable: UInt64) throws {
        var decoder = PgOutputDecoder(form: .native, durable: Position(commit: durable), nextTransaction: 10)
        decoder.provide(ResolvedType(name: "e", logical: .other("e")), for: TypeReference(oid: 99_999, modifier: -1))
        let buffer = RecordBuffer()
        for message in Self.messages() { _ = try message.withUnsafeBytes { try decoder.decode($0, into: buffer) } }
        // It commits at 100: before 101, not before 100.
        #expect(buffer.isEmpty == (durable == 101))
    }

    @Test("mutated messages throw or decode, and what they leave can be read", arguments: [ValueForm.native, .canonical])
    func fuzz(form: ValueForm) async throws {
        // On a thread of its own: the other tests need the cooperative pool meanwhile.
        try await BlockingWork().run { try fuzzBlocking(form) }
    }

    private func fuzzBlocking(_ form: ValueForm) throws {
        let seed = environment("BRIDGE_FUZZ_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        let rounds = environment("BRIDGE_FUZZ_ROUNDS").flatMap { Int($0) } ?? 2_000
        print("fuzzing the pgoutput decoder: BRIDGE_FUZZ_SEED=\(seed) BRIDGE_FUZZ_ROUNDS=\(rounds)")
        var random = SeededGenerator(seed: seed)
        let original = Self.messages()
        var refused = 0
        for round in 0..<rounds {
            var messages = original
            for _ in 0..<Int.random(in: 1...3, using: &random) { mutate(&messages, &random) }
            var decoder = PgOutputDecoder(form: form, durable: Position(commit: 50), nextTransaction: 10)
            let buffer = RecordBuffer()
            do {
                for message in messages {
                    for _ in 0..<2 {
                        let before = buffer.count
                        let step = try message.withUnsafeBytes { try decoder.decode($0, into: buffer) }
                        guard case .needsTypes(let references) = step else { break }
                        #expect(buffer.count == before)
                        for reference in references {
                            decoder.provide(ResolvedType(name: "e", logical: .other("e")), for: reference)
                        }
                    }
                }
            } catch let error as BridgeError {
                refused += 1
                #expect(error.code == .streamMalformed, "seed \(seed), round \(round)")
            }
            var cursor = RecordCursor(buffer.bytes)
            while let record = try cursor.next() {
                if [.insert, .update, .delete].contains(record.kind) { _ = try RowChange(record) }
                if record.kind == .relation { _ = try Relation(payload: record.payload) }
            }
        }
        // Mutations that change only names and values decode; most do not.
        #expect(refused > rounds / 4 && refused < rounds)
    }

    func mutate(_ messages: inout [[UInt8]], _ random: inout SeededGenerator) {
        let which = Int.random(in: messages.indices, using: &random)
        let size = messages[which].count
        switch Int.random(in: 0..<6, using: &random) {
        case 0 where size > 0: messages[which][Int.random(in: 0..<size, using: &random)] = .random(in: 0...255, using: &random)
        case 1 where size > 0: messages[which].removeLast(Int.random(in: 1...size, using: &random))
        case 2: messages[which] += (0..<Int.random(in: 1...9, using: &random)).map { _ in .random(in: 0...255, using: &random) }
        case 3 where size > 4:
            // A length or a count of an extreme value.
            let at = Int.random(in: 0..<size - 4, using: &random)
            let value: [UInt8] = [[255, 255, 255, 255], [127, 255, 255, 255], [0, 0, 0, 0], [128, 0, 0, 0]].randomElement(using: &random) ?? []
            messages[which].replaceSubrange(at..<at + 4, with: value)
        case 4: messages.swapAt(which, Int.random(in: messages.indices, using: &random))
        case 5 where messages.count > 1: messages.remove(at: which)
        default: messages.insert(messages[which], at: which)
        }
    }

    @Test("transaction numbers are widened by the nearer epoch, also round the wrap")
    func wideNumbers() {
        let epoch: UInt64 = 1 << 32
        for (reference, number, wide) in [
            (100, 90, 90), (100, 110, 110), (epoch + 5, 0xFFFF_FFF0, 0xFFFF_FFF0), (epoch - 5, 3, epoch + 3),
            (5 * epoch + 10, 20, 5 * epoch + 20), (5 * epoch + 10, 0xFFFF_FFFF, 5 * epoch - 1), (10, 0xFFFF_FFFF, 0xFFFF_FFFF),
            (.max >> 1, 3, (.max >> 1) + 4),
        ] as [(UInt64, UInt32, UInt64)] {
            var numbers = TransactionNumbers(reference: reference)
            #expect(numbers.widen(number) == wide, "\(number) near \(reference)")
        }
    }

    @Test("positions have the server's spelling, and a page's header is not part of the log's end")
    func positions() throws {
        #expect(LogSequenceNumber.text(0x16_B374_8D0F) == "16/B3748D0F" && LogSequenceNumber.text(0) == "0/0")
        #expect(LogSequenceNumber.parse("16/B3748D0F") == 0x16_B374_8D0F)
        for text in ["", "/", "1", "1/", "G/0", "1/2/3", "-1/0", "100000000/0"] { #expect(LogSequenceNumber.parse(text) == nil) }
        #expect(WALPages.endOfLastRecord(8_192 * 3 + 24) == 8_192 * 3)
        #expect(WALPages.endOfLastRecord(8_192 * 3 + 40) == 8_192 * 3)
        #expect(WALPages.endOfLastRecord(8_192 * 3 + 48) == 8_192 * 3 + 48)
    }
}
