import BridgeCore
import BridgeTestSupport
import Testing

@Suite("Core")
struct CoreTests {
    @Test("every error code has a hint, and exit statuses are those of the command line's contract")
    func errors() {
        #expect(ErrorCode.allCases.allSatisfy { !$0.hint.isEmpty })
        #expect(Set(ExitStatus.allCases.map(\.rawValue)) == [0, 1, 2, 64, 65, 69, 70, 74, 75, 77, 78, 130])
        let error = BridgeError(.conflict, "a row is in the way", context: [.init(.table, "users")])
        #expect(error.adding(.table, "other").description == "a row is in the way (table: users)")
        #expect(error.adding(.position, "0/1").description == "a row is in the way (table: users, position: 0/1)")
    }

    @Test("P3 positions order by commit, then by ordinal, and survive being stored")
    func positions() {
        let positions = [Position(commit: 1), Position(commit: 1, ordinal: 4), Position(commit: 2), Position(commit: .max)]
        #expect(positions.shuffled().sorted() == positions)
        for position in positions { #expect(Position(storedForm: position.storedForm) == position) }
        for text in ["", "a", "1.2.3", "-1", "1.", "99999999999999999999999"] { #expect(Position(storedForm: text) == nil) }
    }

    @Test("numbers are read from text, and from nothing that only looks like it")
    func numbers() {
        func read<Value>(_ text: String, _ body: (UnsafeRawBufferPointer) -> Value?) -> Value? {
            Array(text.utf8).withUnsafeBytes(body)
        }
        func real(_ text: String) -> Double? { read(text) { NumberText.real($0, single: false) } }
        #expect(read("-9223372036854775808") { NumberText.integer($0) } == .min)
        #expect(read("9223372036854775807") { NumberText.integer($0) } == .max)
        for text in ["", "-", "9223372036854775808", "-9223372036854775809", "1 ", "+1", "--1", "1.0", "0x1"] {
            #expect(read(text) { NumberText.integer($0) } == nil, "\(text)")
        }
        #expect(real("0.1") == 0.1 && real("-1e300") == -1e300 && real("1.") == 1 && real("5e-324") == .leastNonzeroMagnitude)
        #expect(real("NaN")?.isNaN == true && real("Infinity") == .infinity && real("-Infinity") == -.infinity)
        for text in ["", " 1", "1 ", "0x1p3", "inf", "nan", "infinity", "1e", "--1", String(repeating: "1", count: 64)] {
            #expect(real(text) == nil, "\(text)")
        }
        #expect(read("0.1") { NumberText.real($0, single: true) } == Double(Float(0.1)))
        let decimals: [(Double, String)] = [
            (12.5, "12.5"), (5, "5.0"), (-0.25, "-0.25"), (1e20, "100000000000000000000"), (-1.5e20, "-150000000000000000000"),
            (1.5e-7, "0.00000015"), (-1e-7, "-0.0000001"), (1.2345678901234567e19, "12345678901234567000"),
            (.nan, "NaN"), (.infinity, "Infinity"), (-.infinity, "-Infinity"),
        ]
        for (value, text) in decimals { #expect(NumberText.decimal(value) == text) }
    }

    @Test("timestamps are written in RFC 3339, before 1970 too")
    func timestamps() {
        #expect(Timestamp(microseconds: 0).rfc3339 == "1970-01-01T00:00:00.000000Z")
        #expect(Timestamp(microseconds: -1).rfc3339 == "1969-12-31T23:59:59.999999Z")
        #expect(Timestamp(microseconds: 951_782_400_000_000).rfc3339 == "2000-02-29T00:00:00.000000Z")
        #expect(Timestamp(microseconds: 1_735_689_599_123_456).rfc3339 == "2024-12-31T23:59:59.123456Z")
    }

    @Test("logical types survive their names")
    func logicalTypes() {
        let types: [LogicalType] = [
            .boolean, .int16, .int32, .int64, .float32, .float64, .numeric(precision: nil, scale: nil),
            .numeric(precision: 10, scale: 2), .text, .varchar(20), .varchar(nil), .character(3), .bytes, .uuid, .json,
            .jsonb, .timestampWithTimeZone, .timestamp, .date, .time, .interval, .dynamic, .other("public.mood"),
        ]
        for type in types { #expect(LogicalType(name: type.name) == type) }
        #expect(LogicalType(name: "timestamp(3) with time zone") == .timestampWithTimeZone)
        #expect(LogicalType(name: "integer[]") == .other("integer[]"))
        #expect(LogicalType(name: "numeric(10,2)[]") == .other("numeric(10,2)[]"))
    }

    @Test("a journaled relation is read back as it was")
    func relations() throws {
        let relation = Relation(
            id: 7, engine: EngineName(rawValue: "postgresql"), form: .native,
            name: TableName(schema: "public", name: "we\"ird"), identity: .full,
            columns: [
                .init(name: "id", isKey: true, typeName: "bigint", type: .int64),
                .init(name: "ä", isKey: false, typeName: "numeric(10,2)", type: .numeric(precision: 10, scale: 2)),
            ])
        let buffer = RecordBuffer()
        buffer.appendRelation(relation)
        var cursor = RecordCursor(buffer.bytes)
        let record = try #require(try cursor.next())
        #expect(record.kind == .relation)
        #expect(try Relation(payload: record.payload) == relation)
        #expect(try cursor.next() == nil)
    }

    @Test("J5 mutated records are refused or read, never trapped on")
    func fuzz() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2_000 {
            let buffer = RecordBuffer()
            let start = buffer.beginRow(.update, relation: 3, old: .key)
            for _ in 0..<2 {
                buffer.beginRowImage(columns: 3)
                buffer.appendCell(integer: Int64(bitPattern: random.next()))
                buffer.appendCell(.null)
                buffer.appendCell(real: 0.5)
            }
            buffer.endRecord(start)
            buffer.appendCommit(
                TransactionEnd(position: Position(commit: 1), end: 2, commitTime: .now, changes: 1))
            var bytes = Array(buffer.bytes)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            bytes.withUnsafeBytes { raw in
                var cursor = RecordCursor(raw)
                do {
                    while let record = try cursor.next() {
                        _ = try? record.transactionEnd()
                        _ = try? record.truncation()
                        _ = try? record.message()
                        _ = try? Relation(payload: record.payload)
                        guard let row = try? RowChange(record) else { continue }
                        var cells = row.new?.cells
                        while let cell = try cells?.next() { _ = cell.integer ?? 0 }
                    }
                } catch { #expect((error as? BridgeError)?.code == .recordMalformed) }
            }
        }
    }

    @Test("a quote with a combining mark behind it is doubled like any other")
    func quoting() {
        let mark = "\u{301}"
        #expect(Array(quoteLiteral("a'\(mark)b").utf8) == Array("'a''\(mark)b'".utf8))
        #expect(Array(quoteIdentifier("a\"\(mark)b").utf8) == Array("\"a\"\"\(mark)b\"".utf8))
        #expect(quoteLiteral("") == "''")
        #expect(quoteIdentifier("x") == "\"x\"")
    }
}
