import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

/// One fault: the same rows but for it, and how it must be reported.
struct Fault: Sendable, CustomTestStringConvertible {
    var name: String
    var columns: [Relation.Column]
    var source: [TestRow]
    var target: [TestRow]
    /// Kinds with the columns named, in any order.
    var expected: [String]

    var testDescription: String { name }

    /// A fault in one value of a column.
    static func value(_ name: String, _ type: LogicalType, _ a: TestCell, _ b: TestCell) -> Fault {
        Fault(
            name: name, columns: [column("id", .int32, key: true), column("v", type)],
            source: [[1, a], [2, nil], [3, a]], target: [[1, a], [2, nil], [3, b]], expected: ["different v"])
    }

    static let three = [column("id", .int32, key: true), column("a", .text), column("b", .text)]

    static let all: [Fault] = [
        value("byte flip", .text, "abcd", "abce"),
        value("trailing space", .text, "x", "x "),
        value("NULL against ''", .text, nil, ""),
        value("NULL against NaN", .float64, nil, .real(Double.nan)),
        value("NaN against Infinity", .float64, .real(Double.nan), .real(Double.infinity)),
        value("last bit of a float", .float64, .real(0.1), .real((0.1).nextUp)),
        value(
            "one microsecond", .timestampWithTimeZone, "2024-05-06 07:08:09.000000Z", "2024-05-06 07:08:09.000001Z"),
        value("a time zone", .timestampWithTimeZone, "2024-05-06 07:08:09.000000Z", "2024-05-06 08:08:09.000000Z"),
        value("NFC against NFD", .text, .text("\u{e9}"), .text("e\u{301}")),
        value("letter case", .text, "Abc", "abc"),
        value("1 mon against 30 days", .interval, "1 mon", "30 days"),
        value("array bounds", .other("integer[]"), "{1,2}", "[0:1]={1,2}"),
        value("one bit of bytea", .bytes, .blob([1, 2, 3]), .blob([1, 2, 2])),
        value("numeric by one unit", .numeric(precision: nil, scale: nil), "10.00", "10.01"),
        value("-0 against 0", .float64, .real(-0.0), .real(0.0)),
        value("numeric scale", .numeric(precision: nil, scale: nil), "1.0", "1.00"),
        value("json spacing", .json, "{\"a\": 1}", "{\"a\":1}"),
        value("padding of unbounded bpchar", .character(nil), "a ", "a"),
        value("integer against text of it", .dynamic, 5, "5"),
        value("text against blob", .dynamic, "5", .blob([0x35])),
        Fault(
            name: "deleted row", columns: three, source: [[1, "a", "b"], [2, "c", "d"]], target: [[1, "a", "b"]],
            expected: ["missing "]),
        Fault(
            name: "extra row", columns: three, source: [[1, "a", "b"]], target: [[1, "a", "b"], [2, "c", "d"]],
            expected: ["extra "]),
        Fault(
            name: "update on the wrong key", columns: three, source: [[1, "new", "b"], [2, "old", "b"]],
            target: [[1, "old", "b"], [2, "new", "b"]], expected: ["different a", "different a"]),
        Fault(
            name: "columns swapped within a row", columns: three, source: [[1, "x", "y"]], target: [[1, "y", "x"]],
            expected: ["different a,b"]),
        Fault(
            name: "a value moved into the next column", columns: three, source: [[1, "xy", "z"]],
            target: [[1, "x", "yz"]], expected: ["different a,b"]),
        Fault(
            name: "values swapped between rows", columns: three, source: [[1, "x", "k"], [2, "y", "l"]],
            target: [[1, "y", "k"], [2, "x", "l"]], expected: ["different a", "different a"]),
        Fault(
            name: "a duplicate pair without a key", columns: [column("a", .text)], source: [["p"], ["q"], ["q"]],
            target: [["p"], ["q"]], expected: ["missing "]),
        Fault(
            name: "duplicates that XOR cannot see", columns: [column("a", .text)], source: [["p"], ["q"], ["q"]],
            target: [["p"], ["r"], ["r"]], expected: ["missing ", "missing ", "extra ", "extra "]),
        Fault(
            name: "faults that cancel", columns: [column("id", .int32, key: true), column("n", .int64)],
            source: [[1, 10], [2, 20]], target: [[1, 11], [2, 19]], expected: ["different n", "different n"]),
        Fault(
            name: "one side empty", columns: three, source: [[1, "a", "b"]], target: [], expected: ["missing "]),
    ]
}

func describe(_ sample: CheckReport.Sample) -> String {
    "\(sample.kind.rawValue) \(sample.columns.joined(separator: ","))"
}

@Suite("Comparison: faults")
struct FaultTests {
    static let methods: [TablePair.Method] = [.client, .server]

    @Test("K7 K8 every fault is found by default, on both ways", arguments: Fault.all, methods)
    func found(_ fault: Fault, _ method: TablePair.Method) async throws {
        let pair = pair(layout(fault.columns, serverHash: method == .server ? "toy" : nil))
        #expect(pair.method == method)
        let comparer = TableComparer(pair: pair)
        let (source, target) = (FakeView(fault.source, seed: 3), FakeView(fault.target, seed: 4))
        let outcome = try await comparer.compare(source: source, target: target)
        #expect(outcome.samples.map(describe).sorted() == fault.expected.sorted())
        #expect(outcome.mismatched + outcome.sourceOnly + outcome.targetOnly == fault.expected.count)
        #expect(outcome.equalByPolicy.isEmpty && !outcome.samplesCut)
        #expect(source.openStreams == 0 && target.openStreams == 0)

        let same = try await comparer.compare(source: source, target: FakeView(fault.source, seed: 9))
        #expect(same.isEqual && same.matching == fault.source.count && same.samples.isEmpty)
    }

    @Test("K7 every fault in a keyed table is found by looking its keys up", arguments: Fault.all)
    func foundByKey(_ fault: Fault) async throws {
        let pair = pair(layout(fault.columns))
        let rows = Set(fault.source + fault.target)
        let keys = Array(Set(rows.map { pair.hasKey ? image([$0[0]]) : image($0) }))
        let outcomes = try await TableComparer(pair: pair).compare(
            keys: keys + keys, source: FakeView(fault.source), target: FakeView(fault.target))
        #expect(outcomes.map(\.key) == keys)
        let found = outcomes.compactMap { $0.difference.map(describe) }.sorted()
        // Rows without a key that are there twice are one key.
        #expect(pair.hasKey ? found == fault.expected.sorted() : Set(found) == Set(fault.expected))
    }

    @Test("K20 two empty sides are equal", arguments: methods)
    func empty(_ method: TablePair.Method) async throws {
        let pair = pair(layout(Fault.three, serverHash: method == .server ? "toy" : nil))
        let outcome = try await TableComparer(pair: pair).compare(source: FakeView([]), target: FakeView([]))
        #expect(outcome == ChunkOutcome())
    }

    @Test("K20 columns that cannot be compared are named and left out")
    func incomparable() async throws {
        let source = layout(
            [column("id", .int32, key: true), column("a", .timestamp), column("b", .text), column("c", .text)],
            incomparable: ["c": "why"])
        var target = source
        target.columns[1] = column("a", .timestampWithTimeZone)
        target.incomparable = [:]
        let pair = pair(source, target)
        #expect(pair.incomparable.keys.sorted() == ["a", "c"] && pair.incomparable["c"] == "why")
        let outcome = try await TableComparer(pair: pair).compare(
            source: FakeView([[1, "2024-01-01 00:00:00", "x", "p"]]),
            target: FakeView([[1, "2024-01-01 00:00:00.000000Z", "y", "q"]]))
        #expect(outcome.samples.map(\.columns) == [["b"]])
    }

    @Test("K22 keys and hashes are in samples, values only on request", arguments: [false, true])
    func values(_ shows: Bool) async throws {
        let columns = [column("id", .bytes, key: true), column("v", .text)]
        let comparer = TableComparer(
            pair: pair(layout(columns, order: nil)), showValues: shows, describePosition: { mark in
                if case .before(let position) = mark { "at \(position.commit)" } else { nil }
            })
        let outcome = try await comparer.compare(
            source: FakeView([[.blob([0xAB]), "secret"]]), target: FakeView([[.blob([0xAB]), nil], [.blob([1]), "x"]]))
        let different = try #require(outcome.samples.first { $0.kind == .different })
        #expect(different.key == ["id": "\\xab"] && different.position == "at 77")
        #expect(different.sourceHash?.count == 32 && different.sourceHash != different.targetHash)
        #expect(different.sourceValues == (shows ? ["id": "\\xab", "v": "secret"] : nil))
        #expect(different.targetValues == (shows ? ["id": "\\xab", "v": nil] : nil))
        let extra = try #require(outcome.samples.first { $0.kind == .extra })
        #expect(extra.targetValues == (shows ? ["id": "\\x01", "v": "x"] : nil) && extra.sourceHash == nil)

        let keyless = TableComparer(pair: pair(layout([column("v", .text)])), showValues: shows)
        let second = try await keyless.compare(source: FakeView([["secret"]]), target: FakeView([]))
        #expect(second.samples.map(\.key) == [[:]])
        #expect(second.samples.first?.sourceValues == (shows ? ["v": "secret"] : nil))
    }
}
