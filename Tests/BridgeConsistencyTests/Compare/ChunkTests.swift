import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Comparison: chunks")
struct ChunkTests {
    static let columns = [column("id", .int64, key: true), column("v", .text)]

    private func comparer(_ server: Bool, order: String? = "integer", limits: CompareLimits = .init()) -> TableComparer {
        TableComparer(pair: pair(layout(Self.columns, order: order, serverHash: server ? "toy" : nil)), limits: limits)
    }

    @Test("disputed keys are left out and nothing else", arguments: [false, true], ["integer", "other"])
    func disputed(_ server: Bool, _ order: String) async throws {
        let source: [TestRow] = (1...300).map { [.integer($0), "x"] }
        var target = source.filter { $0[0] != 50 && $0[0] != 60 } + [[1000, "new"], [1001, "new"]]
        for index in target.indices where [.integer(5), .integer(6), .integer(299)].contains(target[index][0]) {
            target[index][1] = "changed"
        }
        // Canonical and native, twice, beyond the range, and of no row.
        let disputed = [image([5]), image([.native("5")]), image([50]), image([50]), image([.native("1000")]), image([299]),
            image([7777])]
        let found = try await comparer(server, order: order).compare(
            source: FakeView(source, seed: 1), target: FakeView(target, seed: 2), disputed: disputed)
        #expect(found.samples.map { "\(describe($0)) \($0.key["id"].flatMap { $0 } ?? "")" }.sorted() == [
            "different v 6", "extra  1001", "missing  60",
        ])
        #expect(found.matching == 300 - 5 && found.rowsCompared == 298)

        let ranged = try await comparer(server, order: order).compare(
            source: FakeView(source, seed: 1), target: FakeView(target, seed: 2), from: image([7]), to: image([299]),
            disputed: disputed)
        #expect(ranged.samples.map { "\(describe($0)) \($0.key["id"].flatMap { $0 } ?? "")" } == ["missing  60"])
        #expect(ranged.matching == 292 - 2 && ranged.rowsCompared == 291)
    }

    @Test("the servers' digests are enough where all is equal but disputed keys")
    func digestOnly() async throws {
        let source: [TestRow] = (1...300).map { [.integer($0), "x"] }
        let target = source.map { $0[0] == 5 ? [5, "changed"] : $0 }
        let (a, b) = (FakeView(source), FakeView(target))
        let outcome = try await comparer(true).compare(
            source: a, target: b, from: image([2]), to: image([200]), disputed: [image([5]), image([250])])
        #expect(outcome.isEqual && outcome.matching == 197 && a.listings == 0 && a.reads == 0)
    }

    @Test("a disputed key does not hide a row whose key only counts as equal to it")
    func shadow() async throws {
        let upper: TestCell = "00112233-4455-6677-8899-AABBCCDDEEFF"
        let lower: TestCell = "00112233-4455-6677-8899-aabbccddeeff"
        let pair = pair(
            layout([column("id", .uuid, key: true)], order: nil), layout([column("id", .dynamic, key: true)], order: nil))
        let comparer = TableComparer(pair: pair)
        let (source, target) = (FakeView([[lower]]), FakeView([[lower], [upper]]))
        let outcome = try await comparer.compare(source: source, target: target, disputed: [image([lower])])
        #expect(outcome.targetOnly == 1)
        let keys = try await comparer.compare(
            keys: [image([lower]), image([upper])], source: source, target: target)
        #expect(keys.map { $0.difference?.kind } == [nil, .extra])
    }

    @Test("K5 the order in which rows come does not matter", arguments: [false, true])
    func order(_ server: Bool) async throws {
        let rows: [TestRow] = (1...2000).map { [.integer($0), .text("value \($0)")] }
        for seed in 0..<5 {
            let outcome = try await comparer(server).compare(
                source: FakeView(rows, seed: UInt64(seed)), target: FakeView(rows, seed: UInt64(seed + 100)))
            #expect(outcome.isEqual && outcome.matching == 2000)
        }
    }

    @Test("K6 K18 with every row different memory is bounded, all is told, samples are cut", arguments: [false, true])
    func everyRowDiffers(_ server: Bool) async throws {
        let folder = try TemporaryDirectory()
        let rows: Int64 = 6000
        let source: [TestRow] = (1...rows).map { [.integer($0), .text(String(repeating: "a", count: 50))] }
        let target: [TestRow] = (1...rows).map { [.integer($0 + 10), .text(String(repeating: "b", count: 50))] }
        var limits = CompareLimits(samples: 7, memory: 64 << 10, findBatch: 100, spillDirectory: folder.path)
        var told: [String: Int] = [:]
        var keys: Set<String> = []
        let outcome = try await comparer(server, limits: limits).compare(
            source: FakeView(source), target: FakeView(target)
        ) { sample, _ in
            told[describe(sample), default: 0] += 1
            keys.insert("\(sample.kind) \(sample.key)")
        }
        #expect(told == ["different v": Int(rows) - 10, "missing ": 10, "extra ": 10])
        #expect(keys.count == Int(rows) + 10)
        #expect(outcome.mismatched == rows - 10 && outcome.sourceOnly == 10 && outcome.targetOnly == 10)
        #expect(outcome.rowsCompared == rows + 10 && outcome.matching == 0)
        #expect(outcome.samples.count == 7 && outcome.samplesCut)

        // The file is really used, and its folder is really that one.
        limits.spillDirectory = folder.path("nowhere")
        await #expect(throws: BridgeError.self) {
            _ = try await self.comparer(server, limits: limits).compare(source: FakeView(source), target: FakeView(target))
        }
        // Nothing stays behind.
        #expect(try folder.isEmpty)
    }

    @Test("K9 K18 rows whose keys are all spelled otherwise are matched, also through the file", arguments: [64 << 10, 8 << 20])
    func otherSpellings(_ memory: Int) async throws {
        func uuid(_ number: Int, upper: Bool) -> TestCell {
            let digits = String(number, radix: 16)
            let text = "abcdef00-0000-0000-0000-" + String(repeating: "0", count: 12 - digits.count) + digits
            return .text(upper ? text.uppercased() : text)
        }
        let source: [TestRow] = (0..<3000).map { [uuid($0, upper: false), "2024-01-01 00:00:00.000000Z"] }
        var target: [TestRow] = (0..<3000).map { [uuid($0, upper: true), "2024-01-01T02:00:00+02:00"] }
        target[17][1] = "2024-01-01T02:00:00.000001+02:00"
        target.remove(at: 30)
        let comparer = TableComparer(
            pair: pair(
                layout([column("id", .uuid, key: true), column("at", .timestampWithTimeZone)], order: nil),
                layout([column("id", .dynamic, key: true), column("at", .dynamic)], order: nil)),
            limits: CompareLimits(memory: memory))
        let (a, b) = (FakeView(source, seed: 5), FakeView(target, seed: 6))
        let outcome = try await comparer.compare(source: a, target: b, disputed: [source[5], source[30]].map { image([$0[0]]) })
        // The source's spelling finds no row on the target: what is disputed there cannot be known.
        #expect(outcome.samples.map(describe).sorted() == ["different at", "extra "])
        #expect(outcome.samples.first { $0.kind == .extra }?.key == ["id": .some(uuid(5, upper: true).engineText)])
        #expect(outcome.matching == 2997)
    }

    @Test("a stopped comparison ends with an error and leaves nothing open")
    func stopped() async throws {
        let rows: [TestRow] = (1...100).map { [.integer($0), "x"] }
        let (a, b) = (FakeView(rows), FakeView(rows))
        let comparer = comparer(false)
        let task = Task { () -> ErrorCode? in
            withUnsafeCurrentTask { $0?.cancel() }
            do throws(BridgeError) {
                _ = try await comparer.compare(source: a, target: b)
                return nil
            } catch {
                return error.code
            }
        }
        #expect(await task.value == .interrupted)
        #expect(a.openStreams == 0 && b.openStreams == 0)
    }

    @Test("K18 few keys are looked up at once where rows are large")
    func largeRows() async throws {
        let big = String(repeating: "a", count: 100_000)
        let source: [TestRow] = (1...40).map { [.integer($0), .text(big + "x")] }
        let target: [TestRow] = (1...40).map { [.integer($0), .text(big + "y")] }
        for server in [false, true] {
            let (a, b) = (FakeView(source), FakeView(target))
            let comparer = comparer(server, limits: CompareLimits(memory: 1 << 20))
            let outcome = try await comparer.compare(source: a, target: b) { _, _ in }
            #expect(outcome.mismatched == 40 && a.largestFind <= 8 && b.largestFind <= 8)
            let keys = try await comparer.compare(keys: source.map { image([$0[0]]) }, source: a, target: b)
            #expect(keys.count == 40 && keys.allSatisfy { $0.difference?.columns == ["v"] } && a.largestFind <= 16)
        }
    }

    @Test("K7 many equal rows without a key take no more memory than one", arguments: [1, 100])
    func manyDuplicates(_ kinds: Int64) async throws {
        let source: [TestRow] = (0..<20_000).map { [.integer($0 % kinds)] }
        let target = Array(source.dropLast(3))
        let folder = try TemporaryDirectory()
        let comparer = TableComparer(
            pair: pair(layout([column("v", .int64)])),
            limits: CompareLimits(memory: 32 << 10, spillDirectory: folder.path("nowhere")))
        // A spill would fail.
        let outcome = try await comparer.compare(source: FakeView(source), target: FakeView(target))
        #expect(outcome.sourceOnly == 3 && outcome.targetOnly == 0 && outcome.matching == 19_997)
    }

    @Test("a difference handler's failure ends the comparison")
    func handlerFails() async throws {
        let outcome: ErrorCode?
        do throws(BridgeError) {
            _ = try await comparer(false).compare(source: FakeView([[1, "a"]]), target: FakeView([])) {
                _, _ throws(BridgeError) in throw BridgeError(.diskFull, "full")
            }
            outcome = nil
        } catch {
            outcome = error.code
        }
        #expect(outcome == .diskFull)
    }
}

extension TemporaryDirectory {
    /// Whether nothing is in it.
    var isEmpty: Bool { get throws { try FolderListing.names(path).isEmpty } }
}
