import BridgeCore
import Testing

@testable import BridgeConsistency

@Suite("Comparison: equal values in other spellings")
struct NormaliserTests {
    struct Spelling: Sendable, CustomTestStringConvertible {
        var source: LogicalType
        var target: LogicalType
        var a: TestCell
        var b: TestCell
        var areEqual: Bool
        var testDescription: String { "\(source.name) \(a.engineText), \(target.name) \(b.engineText)" }

        init(_ source: LogicalType, _ target: LogicalType, _ a: TestCell, _ b: TestCell, _ areEqual: Bool = true) {
            self.source = source
            self.target = target
            self.a = a
            self.b = b
            self.areEqual = areEqual
        }
    }

    static let numeric = LogicalType.numeric(precision: nil, scale: nil)

    static let spellings: [Spelling] = [
        .init(.int32, .int64, 5, 5),
        .init(.boolean, .int16, 1, 1),
        .init(.boolean, .int16, 1, 0, false),
        .init(.int32, .text, -5, "-5"),
        .init(.int32, .text, -5, "-6", false),
        .init(.int64, .text, .integer(.min), "-9223372036854775808"),
        .init(.int64, .text, .integer(.max), "9223372036854775808", false),
        .init(.int32, .dynamic, 5, "5", false),
        .init(.boolean, .text, 1, "t"),
        .init(.boolean, .text, 1, "f", false),
        .init(.int32, .float64, 3, .real(3.0)),
        .init(.int64, .float64, .integer(1 << 53 + 1), .real(Double(1 << 53)), false),
        .init(.float64, .dynamic, .real(3.0), 3),
        .init(.float64, .dynamic, .real(-0.0), 0, false),
        .init(.float64, .dynamic, .real(.nan), .real(.nan)),
        .init(.float64, .dynamic, .real(.nan), nil, false),
        .init(.float32, .float64, .real(Double(Float(0.1))), .real(0.1), false),
        .init(.float32, .text, .real(Double(Float(0.1))), "0.1"),
        .init(.float64, .text, .real(0.1), "0.1"),
        .init(.float64, .text, .real(0.0), " 0", false),
        .init(.float64, .text, .real(-.infinity), "-Infinity"),
        .init(numeric, .dynamic, "12", 12),
        .init(numeric, .dynamic, "12.0", 12, false),
        .init(numeric, .dynamic, "1.0", "1.00", false),
        .init(numeric, .dynamic, "1.5", .real(1.5), false),
        .init(numeric, numeric, "1.5", .real(1.5)),
        .init(numeric, numeric, "1.50", .real(1.5), false),
        .init(numeric, numeric, "-100000000000000000000", .real(-1e20)),
        .init(numeric, numeric, "0.00000015", .real(1.5e-7)),
        .init(numeric, numeric, "0.1000000000000000055511151231257827", .real(0.1), false),
        .init(numeric, numeric, "Infinity", .real(.infinity)),
        .init(numeric, numeric, "5", 5),
        .init(numeric, numeric, "5.0", 5, false),
        .init(numeric, .numeric(precision: 12, scale: 2), .real(1.5), "1.50"),
        .init(numeric, .numeric(precision: 12, scale: 2), .real(-12.25), "-12.25"),
        .init(numeric, .numeric(precision: 12, scale: 2), 5, "5.00"),
        .init(numeric, .numeric(precision: 12, scale: 2), 5, "5.01", false),
        .init(numeric, .numeric(precision: 12, scale: 2), "5.0", "5.00", false),
        .init(numeric, .text, "-0.50", "-0.50"),
        .init(numeric, .text, "0.5", ".5", false),
        .init(numeric, .text, "7", "007", false),
        .init(numeric, .text, "5", "+5", false),
        .init(numeric, .text, "5", "5.", false),
        .init(numeric, .text, "0", "00", false),
        .init(numeric, .text, "0.05", "0.05"),
        .init(numeric, .text, "-100", "-100"),
        .init(.int32, .text, 7, "007", false),
        .init(.int32, .text, 0, "-0", false),
        .init(numeric, .text, "0", "-0", false),
        .init(numeric, .text, "NaN", "NaN"),
        .init(.int32, numeric, 5, "5"),
        .init(.int32, numeric, 5, "5.0", false),
        .init(.numeric(precision: 9, scale: 2), .numeric(precision: 12, scale: 4), "1.50", "1.5000"),
        .init(.numeric(precision: 9, scale: 2), .numeric(precision: 12, scale: 4), "1.50", "1.5001", false),
        .init(.numeric(precision: 9, scale: 2), numeric, "1.50", "1.5", false),
        .init(.numeric(precision: 9, scale: 2), .text, "7.00", "7"),
        .init(.numeric(precision: 9, scale: 2), .dynamic, "7.00", 7),
        .init(.numeric(precision: 9, scale: 2), .text, "7.00", "7.01", false),
        .init(.numeric(precision: 9, scale: 2), .text, "7.00", "007", false),
        .init(.bytes, .text, .blob([0xDE, 0xAD]), "\\xDEad"),
        .init(.bytes, .text, .blob([0xDE, 0xAD]), "\\xDEa", false),
        .init(.bytes, .dynamic, .blob([0x41]), "A", false),
        .init(
            .uuid, .dynamic, "00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF"),
        .init(.uuid, .text, "00112233-4455-6677-8899-aabbccddeeff", "{00112233445566778899aabbccddeeff}"),
        .init(.uuid, .text, "00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefe", false),
        .init(.uuid, .text, "00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeef", false),
        .init(.timestampWithTimeZone, .dynamic, "2024-05-06 07:08:09.500000Z", "2024-05-06T09:08:09.5+02:00"),
        .init(.timestampWithTimeZone, .text, "2024-05-06 07:08:09.000000Z", "2024-05-06 07:08:09+00"),
        .init(.timestampWithTimeZone, .text, "2023-12-31 23:30:00.000000Z", "2024-01-01 00:30:00+01"),
        .init(.timestampWithTimeZone, .text, "2024-02-29 12:00:00.000000Z", "2024-02-29 07:30:00-0430"),
        .init(.timestampWithTimeZone, .text, "0044-03-15 00:00:00.000000Z BC", "0044-03-15 00:00:00+00 BC"),
        .init(.timestampWithTimeZone, .text, "0044-03-15 00:00:00.000000Z BC", "0044-03-15 00:00:00+00", false),
        .init(.timestampWithTimeZone, .text, "infinity", "infinity"),
        .init(.timestampWithTimeZone, .text, "infinity", "-infinity", false),
        .init(.timestampWithTimeZone, .text, "2024-05-06 07:08:09.000000Z", "2024-05-06 07:08:09.0000001Z", false),
        .init(.timestampWithTimeZone, .text, "2024-05-06 07:08:09.000000Z", "2024-05-06 07:08:09", false),
        .init(.timestampWithTimeZone, .dynamic, "1970-01-01 00:00:00.000000Z", 0, false),
        .init(.timestamp, .dynamic, "2024-05-06 07:08:09", "2024-05-06T07:08:09.000"),
        .init(.timestamp, .dynamic, "2024-05-06 07:08:09", "2024-05-06T07:08:09Z", false),
        .init(.timestamp, .text, "2023-02-29 00:00:00", "2023-03-01 00:00:00", false),
        .init(.date, .text, "2024-05-06", "2024-05-06"),
        .init(.date, .text, "2024-05-06", "2024-05-07", false),
        .init(.time, .dynamic, "07:08:00", "07:08"),
        .init(.time, .text, "24:00:00", "00:00:00", false),
        .init(.jsonb, .dynamic, "{\"a\": 1, \"bb\": [true, null]}", "{\"bb\":[true,null],\"a\":1}"),
        .init(.json, .jsonb, "{\"a\":1,\"a\":2}", "{\"a\": 2}"),
        .init(.json, .jsonb, "{\"a\":1,\"a\":2}", "{\"a\": 1}", false),
        .init(.json, .jsonb, "\"\\u00e9\\ud83d\\ude00\\/\"", "\"é😀/\""),
        .init(.json, .jsonb, "[1e2,1.50e1,1e-2,-0,0.00]", "[100, 15.0, 0.01, 0, 0.00]"),
        .init(.json, .jsonb, "[1.0]", "[1.00]", false),
        .init(.json, .jsonb, "[1]", "[\"1\"]", false),
        .init(.jsonb, .text, "{\"a\": 1}", "{\"a\": 1", false),
        .init(.json, .text, "{\"a\":1}", "{\"a\": 1}", false),
        .init(.character(5), .dynamic, "ab   ", "ab"),
        .init(.character(5), .character(8), "ab   ", "ab      "),
        .init(.character(5), .text, "ab   ", " ab", false),
        .init(.varchar(5), .text, "ab ", "ab", false),
        .init(.other("mood"), .text, "happy", "happy"),
        .init(.other("shop.count"), .int32, "5", 5),
        .init(.interval, .text, "1 mon", "30 days", false),
    ]

    private func compare(
        _ spelling: Spelling, _ policies: EqualityPolicies = []
    ) async throws -> (ChunkOutcome, [KeyOutcome]) {
        let (source, target) = (
            layout([column("id", .int32, key: true), column("v", spelling.source)]),
            layout([column("id", .int32, key: true), column("v", spelling.target)])
        )
        let pair = pair(source, target, policies: policies)
        #expect(pair.incomparable.isEmpty)
        let comparer = TableComparer(pair: pair)
        let (left, right) = (FakeView([[1, spelling.a], [2, nil]]), FakeView([[1, spelling.b], [2, nil]]))
        return (
            try await comparer.compare(source: left, target: right),
            try await comparer.compare(keys: [image([1])], source: left, target: right)
        )
    }

    @Test("K5 K9 values in other spellings are equal by declaration, and others are not", arguments: spellings)
    func spelling(_ spelling: Spelling) async throws {
        let (outcome, keys) = try await compare(spelling)
        #expect(outcome.isEqual == spelling.areEqual)
        #expect(outcome.samples.map(\.columns) == (spelling.areEqual ? [] : [["v"]]))
        #expect((keys.first?.difference == nil) == spelling.areEqual && keys.count == 1)
        #expect(outcome.equalByPolicy.isEmpty)
    }

    static let byPolicy: [(EqualityPolicies, Spelling)] = [
        (.negativeZero, .init(.float64, .float64, .real(-0.0), .real(0.0))),
        (.negativeZero, .init(.dynamic, .dynamic, .real(-0.0), .real(0.0))),
        (.negativeZero, .init(numeric, .text, "-0.0", "0.0")),
        (.numericScale, .init(numeric, numeric, "1.0", "1.00")),
        (.numericScale, .init(numeric, .text, "1", "1.00")),
        (.jsonSpacing, .init(.json, .json, "{\"a\": [1, \"x y\"]}", "{\"a\":[1,\"x y\"]}")),
        (.characterPadding, .init(.character(nil), .character(nil), "a  ", "a")),
    ]

    @Test("K8 what only a policy makes equal is counted under its name", arguments: byPolicy)
    func policy(_ policy: EqualityPolicies, _ spelling: Spelling) async throws {
        for on in [policy, .all] {
            let (outcome, keys) = try await compare(spelling, on)
            #expect(outcome.isEqual && outcome.matching == 2 && outcome.rowsCompared == 2)
            #expect(outcome.equalByPolicy == [policy.names[0]: 1])
            #expect(keys.map(\.equalByPolicy) == [Set(policy.names)] && keys[0].difference == nil)
        }
        let (without, keys) = try await compare(spelling, EqualityPolicies.all.subtracting(policy))
        #expect(without.mismatched == 1 && without.equalByPolicy.isEmpty)
        #expect(keys[0].difference != nil)
    }

    @Test("K8 a policy hides nothing else", arguments: [
        Spelling(.float64, .float64, .real(-1.0), .real(1.0)), Spelling(numeric, numeric, "10", "1"),
        Spelling(numeric, numeric, "0.01", "0.1"), Spelling(.json, .json, "[1, 2]", "[12]"),
        Spelling(.json, .text, "1 2", "12"), Spelling(.json, .json, "\"a b\"", "\"ab\""),
        Spelling(.json, .json, "\"a\\\" b\"", "\"a\\\"b\""),
        Spelling(.character(nil), .character(nil), " a", "a"), Spelling(.text, .text, "a ", "a"),
        Spelling(.float64, .float64, .real(-0.0), nil),
    ])
    func policyHidesNothing(_ spelling: Spelling) async throws {
        let (outcome, _) = try await compare(spelling, .all)
        #expect(outcome.mismatched == 1 && outcome.equalByPolicy.isEmpty)
    }

    @Test("K8 rows equal by several policies are told apart, with a key and without", arguments: [true, false])
    func severalPolicies(_ hasKey: Bool) async throws {
        let columns = [
            column("id", .int32, key: hasKey), column("r", .float64), column("j", .json), column("n", Self.numeric),
        ]
        let pair = pair(layout(columns), policies: .all)
        #expect(pair.method == .client)
        let outcome = try await TableComparer(pair: pair).compare(
            source: FakeView([
                [1, .real(-0.0), "[1, 2]", "1"], [2, .real(-0.0), "[]", "1"], [3, .real(1.0), "[]", "1.0"], [4, .real(1.0), "[]", "1"],
            ]),
            target: FakeView([
                [1, .real(0.0), "[1,2]", "1"], [2, .real(0.0), "[]", "1"], [3, .real(1.0), "[]", "1"], [4, .real(2.0), "[]", "1"],
            ]))
        #expect(outcome.matching == 3)
        #expect(outcome.equalByPolicy == ["negative_zero": 2, "json_spacing": 1, "numeric_scale": 1])
        #expect(outcome.mismatched == (hasKey ? 1 : 0) && outcome.sourceOnly == (hasKey ? 0 : 1))
    }

    @Test("K9 S15 against a column that holds decimals as numbers, zeros at the end say nothing", arguments: [true, false])
    func scaleless(_ isSource: Bool) async throws {
        let columns = [column("id", .int32, key: true), column("n", Self.numeric)]
        var file = layout(columns)
        file.scaleless = ["n"]
        let pair = isSource ? pair(file, layout(columns)) : pair(layout(columns), file)
        let numbers = FakeView([[1, .real(19.9)], [2, 5], [3, .real(19.9)], [4, 5], [5, .real(-.infinity)]])
        let decimals = FakeView([[1, "19.90"], [2, "5.00"], [3, "19.91"], [4, "50"], [5, "-Infinity"]])
        let outcome = try await TableComparer(pair: pair).compare(
            source: isSource ? numbers : decimals, target: isSource ? decimals : numbers)
        #expect(outcome.matching == 3 && outcome.mismatched == 2 && outcome.equalByPolicy.isEmpty)
    }

    @Test("K9 S15 a decimal beside a column that holds numbers, whatever it is planned as, is compared as a number", arguments: [
        LogicalType.int64, .float64, .text, .dynamic, .numeric(precision: 10, scale: 2),
    ])
    func decimalBesideNumbers(_ planned: LogicalType) async throws {
        for isSource in [true, false] {
            var file = layout([column("id", .int32, key: true), column("n", planned)])
            file.scaleless = ["n"]
            let server = layout([column("id", .int32, key: true), column("n", .numeric(precision: 12, scale: 2))])
            let pair = isSource ? pair(file, server) : pair(server, file)
            #expect(pair.incomparable.isEmpty)
            let numbers = FakeView([[1, .real(19.9)], [2, 5], [3, .real(5.0)], [4, .real(19.9)], [5, 5], [6, "NaN"], [7, .real(-0.0)], [8, nil]])
            let decimals = FakeView([[1, "19.90"], [2, "5.00"], [3, "5.00"], [4, "19.91"], [5, "50.00"], [6, "NaN"], [7, "0.00"], [8, nil]])
            let outcome = try await TableComparer(pair: pair).compare(
                source: isSource ? numbers : decimals, target: isSource ? decimals : numbers)
            #expect(outcome.matching == 5 && outcome.mismatched == 3 && outcome.equalByPolicy.isEmpty)
        }
        // A column that is no number's, or of bytes and truth values, is what it was.
        let server = layout([column("id", .int32, key: true), column("n", Self.numeric)])
        var flags = layout([column("id", .int32, key: true), column("n", .boolean)])
        flags.scaleless = ["n"]
        #expect(pair(flags, server).incomparable.keys.sorted() == ["n"])
        #expect(pair(layout([column("id", .int32, key: true), column("n", .float64)]), server).incomparable.keys.sorted() == ["n"])
        // Text beside such a column is no decimal, so its zeros are a part of it.
        var file = layout([column("id", .int32, key: true), column("n", Self.numeric)])
        file.scaleless = ["n"]
        let words = layout([column("id", .int32, key: true), column("n", .text)])
        let outcome = try await TableComparer(pair: pair(words, file)).compare(
            source: FakeView([[1, "5"], [2, "5.0"]]), target: FakeView([[1, 5], [2, 5]]))
        #expect(outcome.matching == 1 && outcome.mismatched == 1)
    }

    @Test("policies that no column could need do not cost the servers' hashing")
    func policiesAndMethod() {
        let columns = [column("id", .int32, key: true), column("r", .float64)]
        let served = layout(columns, serverHash: "toy")
        #expect(pair(served, policies: .numericScale).method == .server)
        #expect(pair(served, policies: .negativeZero).method == .client)
        #expect(pair(served, layout(columns, serverHash: "toy 2")).method == .client)
        #expect(pair(served, layout(columns, order: "utf8", serverHash: "toy")).usesRanges == false)
    }

    @Test("K20 types that have nothing in common cannot be compared", arguments: [
        (LogicalType.timestamp, LogicalType.timestampWithTimeZone), (.date, .timestamp), (.uuid, .int32),
        (.boolean, .float64), (.float64, numeric), (.bytes, .int32), (.interval, .time), (.jsonb, .int64),
    ])
    func incomparable(_ a: LogicalType, _ b: LogicalType) {
        for (a, b) in [(a, b), (b, a)] {
            let key = column("id", .int32, key: true)
            #expect(pair(layout([key, column("v", a)]), layout([key, column("v", b)])).incomparable.keys.sorted() == ["v"])
        }
    }
}
