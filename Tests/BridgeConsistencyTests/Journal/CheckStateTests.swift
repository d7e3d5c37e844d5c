import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeConsistency

@Suite("The state that a check leaves")
struct CheckStateTests {
    private func key(_ id: Int) -> KeyImage { image([.integer(Int64(id))]) }
    private func sample(_ id: Int) -> CheckReport.Sample { .init(kind: .different, key: ["id": "\(id)"]) }

    private func makeState() -> CheckState {
        let table = CheckState.Table(report: .init(source: "s", target: "t", status: .consistent))
        return CheckState(
            checkId: "x", startedAt: "now", origin: "o", selection: "s", fingerprint: CaptureFingerprint(common: "f", tables: ["a", "b"]), from: 1, journaled: 1,
            foreignBefore: 0, tables: [table, table])
    }

    /// What was saved with each position.
    private struct Saved {
        var dirty: [Int: Set<KeyImage>]
        var suspects: [Int: Set<KeyImage>]
        var next: [UInt8]?
    }

    private func saved(_ state: CheckState, _ dirty: DirtySet, _ suspects: SuspectSet) -> Saved {
        Saved(
            dirty: dirty.keys.mapValues { Set($0.keys) }.filter { !$0.value.isEmpty },
            suspects: suspects.rows.mapValues { Set($0.keys) }.filter { !$0.value.isEmpty }, next: state.tables[0].next)
    }

    private func expectSame(_ read: CheckState?, _ all: [UInt64: Saved], _ what: @autoclosure () -> String) {
        guard let read else { return }
        guard let wanted = all[read.journaled] else {
            Issue.record("\(what()): a position that was never saved")
            return
        }
        let found = saved(read, read.dirty, read.suspects)
        #expect(found.dirty == wanted.dirty, "\(what())")
        #expect(found.suspects == wanted.suspects, "\(what())")
        #expect(found.next == wanted.next, "\(what())")
    }

    @Test("K18 keys that came and went take bounded room between two states, and none is wrong on disk")
    func manyChanges() throws {
        let folder = try TemporaryDirectory(prefix: "state")
        let path = folder.path("check.state")
        let writer = CheckStateWriter(path: path)
        var (state, dirty, suspects) = (makeState(), DirtySet(), SuspectSet())
        dirty.mostChanged = 2000
        for id in 0..<3 { dirty.touch(0, key(id)) }
        try writer.save(state, &dirty, &suspects, asWhole: false)
        for id in 0..<1000 {
            dirty.touch(0, key(id))
            dirty.settle(0, key(id))
        }
        #expect(dirty.changed.isEmpty)
        dirty.touch(1, key(7))
        state.journaled = 2
        try writer.save(state, &dirty, &suspects, asWhole: false)
        dirty.touch(1, key(8))
        try writer.save(state, &dirty, &suspects, asWhole: false)
        let read = try #require(CheckStateReader.read(path, withKeys: true))
        #expect(read.journaled == 2)
        #expect(read.dirty.keys(of: 0).isEmpty)
        #expect(Set(read.dirty.keys(of: 1)) == [key(7), key(8)])
    }

    @Test("K15 a row in doubt stays suspect, also where there is less room than there was")
    func doubt() {
        var suspects = SuspectSet()
        for id in 0..<10 { suspects.found(0, key(id), sample(id)) }
        suspects.limit = 100
        for id in 0..<10 { suspects.doubt(0, key(id)) }
        #expect(suspects.keys(of: 0).count == 10)
        #expect(!suspects.hasDifferences)
        for id in 0..<10 { suspects.clear(0, key(id)) }
        #expect(suspects.footprint == 0)
    }

    @Test("K18 O12 cut anywhere, the state is one that was saved, keys and position together; a flipped byte never gives another")
    func cutsAndFlips() throws {
        let seed = environment("BRIDGE_FUZZ_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        print("BRIDGE_FUZZ_SEED=\(seed)")
        var random = SeededGenerator(seed: seed)
        let folder = try TemporaryDirectory(prefix: "state")
        let file = CheckStateFile(directory: folder.path(""), tables: nil)
        let writer = CheckStateWriter(path: file.path)
        var (state, dirty, suspects) = (makeState(), DirtySet(), SuspectSet())
        var all: [UInt64: Saved] = [:]
        for step in 2..<14 {
            for _ in 0..<Int.random(in: 0...6, using: &random) {
                let (table, id) = (Int.random(in: 0...1, using: &random), Int.random(in: 0..<12, using: &random))
                switch Int.random(in: 0...6, using: &random) {
                case 0...2: dirty.touch(table, key(id))
                case 3: dirty.settle(table, key(id))
                case 4: suspects.found(table, key(id), sample(id))
                case 5: suspects.clear(table, key(id))
                default: suspects.clear(table)
                }
            }
            state.journaled = UInt64(step)
            state.tables[0].next = key(step).bytes
            state.tables[0].chunks.append(to: key(step), rows: 3)
            all[state.journaled] = saved(state, dirty, suspects)
            try writer.save(state, &dirty, &suspects, asWhole: false)
        }
        let whole = try Data(contentsOf: URL(fileURLWithPath: file.path))
        let full = try #require(read(whole))
        #expect(full.journaled == 13)
        #expect(full.tables[0].chunks == state.tables[0].chunks)
        expectSame(full, all, "whole")
        var found: Set<UInt64> = []
        for length in 0..<whole.count {
            let state = read(whole.prefix(length))
            if let state { found.insert(state.journaled) }
            expectSame(state, all, "seed \(seed), cut to \(length)")
        }
        // Each addition is fallen back to; the first saving is no addition.
        #expect(found == Set(2...12))
        for place in whole.indices {
            var broken = whole
            broken[place] ^= 1 << Int.random(in: 0...7, using: &random)
            expectSame(read(broken), all, "seed \(seed), flipped \(place)")
        }
        // Damage that no crash leaves.
        var damaged = whole
        damaged[60] ^= 1
        #expect(read(damaged) == nil)
    }

    private func read(_ data: Data) -> CheckState? {
        Array(data).withUnsafeBytes { CheckStateReader.read($0, withKeys: true) }
    }

    @Test("K18 what is written for a chunk does not grow with the keys that are dirty; the file stays below twice the state")
    func cost() throws {
        let folder = try TemporaryDirectory(prefix: "state")
        let file = CheckStateFile(directory: folder.path(""), tables: nil)
        let writer = CheckStateWriter(path: file.path, least: 0)
        var (state, dirty, suspects) = (makeState(), DirtySet(), SuspectSet())
        for id in 0..<50_000 { dirty.touch(0, key(id)) }
        try writer.save(state, &dirty, &suspects, asWhole: false)
        let whole = writer.written
        for chunk in 0..<1000 {
            for id in 0..<10 { dirty.touch(0, key(100_000 + chunk * 10 + id)) }
            state.journaled += 1
            let before = writer.written
            try writer.save(state, &dirty, &suspects, asWhole: false)
            let size = try #require(try FileManager.default.attributesOfItem(atPath: file.path)[.size] as? Int)
            #expect(size < 2 * (whole + 10_000 * 100) + 10_000)
            if chunk < 100 { #expect(writer.written - before < 10_000) }
        }
        #expect(writer.written < 5 * whole, "\(writer.written) bytes for a state of \(whole)")
        #expect(file.read()?.dirty.count == 60_000)
        #expect(file.readHead()?.journaled == 1001)
    }

    @Test("K18 a state that is broken or complete is not fallen back from")
    func wholes() throws {
        let folder = try TemporaryDirectory(prefix: "state")
        let file = CheckStateFile(directory: folder.path(""), tables: nil)
        let writer = CheckStateWriter(path: file.path)
        var (state, dirty, suspects) = (makeState(), DirtySet(), SuspectSet())
        dirty.touch(0, key(1))
        try writer.save(state, &dirty, &suspects, asWhole: false)
        state.broken = "why"
        try writer.save(state, &dirty, &suspects, asWhole: true)
        let whole = try Data(contentsOf: URL(fileURLWithPath: file.path))
        for length in 0..<whole.count { #expect(read(whole.prefix(length)) == nil) }
        #expect(read(whole)?.broken == "why")
    }
}

@Suite("Chunks that are compared again")
struct ChunkMapTests {
    private func bound(_ id: Int) -> KeyImage { image([.integer(Int64(id))]) }

    @Test("K14 a key is placed in the chunk that has its row, also after neighbours became one", arguments: [5, 1023, 1024, 1025, 3000])
    func places(_ count: Int) throws {
        let pair = pair(layout([column("id", .int64, key: true), column("v", .text)]))
        var map = ChunkMap()
        for chunk in 0..<count {
            map.append(to: bound((chunk + 1) * 10), rows: 10)
            if chunk % 7 == 0 { map.compareAgain(map.count - 1) }
        }
        #expect(map.count <= ChunkMap.most)
        #expect(map.rowsAll == Int64(count) * 10)
        #expect(try ChunkFinder(pair, map).place(of: bound(count * 10)) == .ahead)
        map.append(to: nil, rows: 7)
        let finder = ChunkFinder(pair, map)
        #expect(finder.knowsOrder)
        for id in [-5, 0, 9, 10, 11, 19, count * 10 - 1, count * 10, count * 10 + 50] {
            // As the stream of an engine's own text has it, too.
            for cell in [TestCell.integer(Int64(id)), .native("\(id)")] {
                guard case .chunk(let number) = try finder.place(of: image([cell])) else {
                    Issue.record("\(id) is in no chunk")
                    continue
                }
                if let from = map.from(number) { #expect(Int64(id) >= KeyRange.integer(KeyRange.firstCell(from)!.1)) }
                if let to = map.to(number) { #expect(Int64(id) < KeyRange.integer(KeyRange.firstCell(to)!.1)) }
            }
        }
        let copy = try JSONDecoder().decode(ChunkMap.self, from: JSONEncoder().encode(map))
        #expect(copy == map)
        // A chunk that was marked is within one that is.
        for chunk in stride(from: 0, to: count, by: 7) {
            guard case .chunk(let number) = try finder.place(of: bound(chunk * 10)) else { continue }
            #expect(map.again.contains(number))
        }
    }

    @Test("K14 a chunk that had no rows is pending too while it is to be compared again, and its rows are counted anew")
    func empty() {
        var map = ChunkMap()
        map.append(to: nil, rows: 0)
        #expect(map.rowsAgain == 0)
        map.compareAgain(0)
        #expect(map.rowsAgain == 1)
        map.compared(0, rows: 40)
        #expect(map.rowsAgain == 0)
        #expect(map.rows == [40])
    }

    @Test("K14 without an order that is known here no key is placed")
    func unknown() throws {
        let ordered = pair(layout([column("id", .text, key: true)], order: "pg:c:de_DE:2"))
        var map = ChunkMap()
        map.append(to: image(["m"]), rows: 10)
        map.append(to: nil, rows: 10)
        #expect(try ChunkFinder(ordered, map).place(of: image(["a"])) == .unknown)
        let plain = pair(layout([column("id", .text, key: true)], order: nil))
        var one = ChunkMap()
        #expect(try ChunkFinder(plain, one).place(of: image(["a"])) == .ahead)
        one.append(to: nil, rows: 10)
        #expect(try ChunkFinder(plain, one).place(of: image(["a"])) == .chunk(0))
        // Chunks that were cut when there was an order.
        #expect(try ChunkFinder(plain, map).place(of: image(["z"])) == .unknown)
    }
}
