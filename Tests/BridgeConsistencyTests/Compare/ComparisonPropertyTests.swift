import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Comparison: against a naive one")
struct ComparisonPropertyTests {
    /// A random table, its faulty copy, and what to compare of it.
    private struct Case {
        var columns: [Relation.Column]
        var keys: [Int]
        var source: [TestRow]
        var target: [TestRow]
        var disputed: [TestRow]
        var from: TestCell?
        var to: TestCell?
        var order: String
    }

    private struct Answer: Equatable {
        var matching = 0
        var differences: [String] = []
    }

    private static func cell(_ type: LogicalType, _ generator: inout SeededGenerator) -> TestCell {
        if generator.chance(10) { return nil }
        switch type {
        case .float64: return .real(generator.pick([0.0, -0.0, .nan, .infinity, 1.5, 0.1]))
        case .bytes: return .blob((0..<generator.below(4)).map { _ in UInt8(generator.below(3)) })
        case .int64: return .integer(Int64(generator.below(5)) - 2)
        default: return .text(String((0..<generator.below(4)).map { _ in generator.pick(["a", "b", " ", "é"]) }.joined()))
        }
    }

    private static func makeCase(_ generator: inout SeededGenerator) -> Case {
        let types: [LogicalType] = [.int64, .text, .float64, .bytes]
        let keyType: LogicalType = generator.chance(60) ? .int64 : .text
        let keyless = generator.chance(20)
        var columns = (0..<1 + generator.below(4)).map { column("c\($0)", generator.pick(types)) }
        var keys: [Int] = []
        if !keyless {
            for part in 0..<(generator.chance(30) ? 2 : 1) {
                columns.insert(column("k\(part)", part == 0 ? keyType : .int64, key: true), at: generator.below(columns.count + 1))
            }
            keys = columns.indices.filter { columns[$0].isKey }
        }
        func key(_ generator: inout SeededGenerator, _ type: LogicalType) -> TestCell {
            let number = generator.below(60)
            return type == .text ? .text("k\(number)") : .integer(Int64(number))
        }
        func row(_ generator: inout SeededGenerator) -> TestRow {
            columns.map { $0.isKey ? key(&generator, $0.type) : cell($0.type, &generator) }
        }
        var source: [TestRow] = []
        var seen: Set<TestRow> = []
        for _ in 0..<generator.below(50) {
            let next = row(&generator)
            if keyless || seen.insert(keys.map { next[$0] }).inserted || generator.chance(1) { source.append(next) }
        }
        var target = source
        for _ in 0..<(generator.chance(30) ? 0 : generator.below(8)) {
            switch generator.below(5) {
            case 0: if !target.isEmpty { target.remove(at: generator.below(target.count)) }
            case 1: target.append(row(&generator))
            case 2: if !target.isEmpty { target.append(generator.pick(target)) }
            default:
                guard !target.isEmpty else { continue }
                let (index, place) = (generator.below(target.count), generator.below(columns.count))
                target[index][place] = columns[place].isKey
                    ? key(&generator, columns[place].type) : cell(columns[place].type, &generator)
            }
        }
        let indexes = keyless ? Array(columns.indices) : keys
        let disputed = (0..<(generator.chance(50) ? 0 : generator.below(12))).map { _ in
            let rows = source + target
            let some = rows.isEmpty || generator.chance(20) ? row(&generator) : generator.pick(rows)
            return indexes.map { index -> TestCell in
                let cell = some[index]
                return generator.chance(30) && !keyless ? .native(cell.engineText) : cell
            }
        }
        let ranged = !keyless && generator.chance(60)
        let first = keys.first.map { columns[$0].type } ?? .int64
        return Case(
            columns: columns, keys: indexes, source: source, target: target, disputed: disputed,
            from: ranged && generator.chance(70) ? key(&generator, first) : TestCell?.none,
            to: ranged && generator.chance(70) ? key(&generator, first) : TestCell?.none,
            order: generator.chance(20) ? "something" : first == .int64 ? "integer" : "utf8")
    }

    private static func precedes(_ a: TestCell, _ b: TestCell) -> Bool {
        switch (a, b) {
        case (.integer(let a), .integer(let b)): a < b
        case (.string(let a), .string(let b)): a.lexicographicallyPrecedes(b)
        default: false
        }
    }

    /// Row by row, without a hash.
    private static func naive(_ it: Case, onlyKey: TestRow? = nil) -> Answer {
        let hasKey = it.columns.contains { $0.isKey }
        func keep(_ row: TestRow) -> Bool {
            let key = it.keys.map { row[$0] }
            if let onlyKey { return zip(key, onlyKey).allSatisfy { $0.isFound(by: $1) } }
            if let from = it.from, precedes(key[0], from) { return false }
            if let to = it.to, !precedes(key[0], to) { return false }
            return !it.disputed.contains { zip(key, $0).allSatisfy { $0.isFound(by: $1) } }
        }
        let left = Dictionary(grouping: it.source.filter(keep)) { row in it.keys.map { row[$0] } }
        let right = Dictionary(grouping: it.target.filter(keep)) { row in it.keys.map { row[$0] } }
        var answer = Answer()
        for key in Set(left.keys).union(right.keys) {
            var a = left[key] ?? []
            var b = right[key] ?? []
            a.removeAll { row in
                guard let index = b.firstIndex(of: row) else { return false }
                b.remove(at: index)
                answer.matching += 1
                return true
            }
            let name = hasKey ? key.map(\.engineText).joined(separator: "/") : ""
            // Which of several rows with one key are paired is left open: only then columns are not compared.
            while hasKey, !a.isEmpty, !b.isEmpty {
                let isOnly = a.count == 1 && b.count == 1
                let (x, y) = (a.removeFirst(), b.removeFirst())
                let columns = it.columns.indices.filter { x[$0] != y[$0] }.map { it.columns[$0].name }
                answer.differences.append("different \(name) \(isOnly ? columns.joined(separator: ",") : "?")")
            }
            answer.differences += a.map { _ in "missing \(name) " } + b.map { _ in "extra \(name) " }
        }
        answer.differences.sort()
        return answer
    }

    private static func text(_ sample: CheckReport.Sample, _ it: Case) -> String {
        let names = it.keys.map { it.columns[$0].name }
        let name = sample.key.isEmpty ? "" : names.map { sample.key[$0].flatMap { $0 } ?? "" }.joined(separator: "/")
        return "\(sample.kind.rawValue) \(name) \(sample.columns.joined(separator: ","))"
    }

    /// Whether each difference found is one expected, columns aside where they were left open.
    private static func fit(_ found: [String], _ expected: [String]) -> Bool {
        guard found.count == expected.count else { return false }
        var open = expected
        for text in found.sorted() {
            let bare = String(text[..<(text.lastIndex(of: " ") ?? text.endIndex)]) + " ?"
            guard let index = open.firstIndex(of: text) ?? open.firstIndex(of: bare) else { return false }
            open.remove(at: index)
        }
        return open.isEmpty
    }

    @Test("K3 K7 random tables, faults, ranges and disputed keys give what a naive comparison gives")
    func property() async throws {
        var (generator, seed) = SeededGenerator.named("comparison property")
        var withDifferences = 0
        for round in 0..<3000 {
            let it = Self.makeCase(&generator)
            let expected = Self.naive(it)
            if !expected.differences.isEmpty { withDifferences += 1 }
            for server in [false, true] {
                let limits = CompareLimits(
                    samples: generator.below(5), memory: generator.chance(50) ? 4096 : 1 << 20,
                    findBatch: 1 + generator.below(9), readBytes: 1 + generator.below(2000))
                let pair = pair(layout(it.columns, order: it.order, serverHash: server ? "toy" : nil, rows: Int64(generator.below(9))))
                let comparer = TableComparer(pair: pair, limits: limits)
                let (source, target) = (
                    FakeView(it.source, seed: generator.next()), FakeView(it.target, seed: generator.next())
                )
                var told: [String] = []
                let outcome = try await comparer.compare(
                    source: source, target: target, from: it.from.map { image([$0]) }, to: it.to.map { image([$0]) },
                    disputed: it.disputed.map { image($0) }
                ) { sample, _ in told.append(Self.text(sample, it)) }
                let context = "seed \(seed), round \(round), server \(server)"
                #expect(Self.fit(told, expected.differences), "\(context): \(told) \(expected.differences)")
                #expect(outcome.matching == expected.matching, "\(context)")
                #expect(outcome.rowsCompared == expected.matching + expected.differences.count, "\(context)")
                #expect(outcome.samples.count == min(limits.samples, told.count), "\(context)")
                #expect(outcome.samplesCut == (told.count > limits.samples), "\(context)")
                guard !server else { continue }
                let keys = it.disputed + it.source.prefix(5).map { row in it.keys.map { row[$0] } }
                let outcomes = try await comparer.compare(keys: keys.map { image($0) }, source: source, target: target)
                #expect(Set(outcomes.map(\.key)) == Set(keys.map { image($0) }) && outcomes.count == Set(keys).count)
                for found in outcomes {
                    guard let key = keys.first(where: { image($0) == found.key }) else { continue }
                    let one = Self.naive(it, onlyKey: key)
                    #expect((found.difference == nil) == one.differences.isEmpty, "\(context): \(one.differences)")
                }
            }
        }
        #expect(withDifferences > 500)
    }
}
