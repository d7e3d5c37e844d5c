import BridgeCore
import BridgePostgreSQL
import BridgeTestSupport
import Testing

/// Random pictures of a source that logs keys, applied in parts and in any order.
@Suite("Applying states")
struct StatePropertyTests {
    private struct Row: Equatable {
        var unique: Int64
        var label: String?
    }

    private static let shapes = [
        "CREATE TABLE t (id bigint PRIMARY KEY, u bigint NOT NULL UNIQUE, label text UNIQUE)",
        "CREATE TABLE t (label text, u bigint NOT NULL, id bigint PRIMARY KEY); CREATE UNIQUE INDEX ON t (u, coalesce(label, '')); CREATE UNIQUE INDEX ON t (lower(label)) WHERE u > 10",
    ]

    @Test("S12 R1 pictures of a source that logs keys leave the picture, whatever order their keys come in")
    func randomPictures() async throws {
        let rounds = environment("BRIDGE_STATE_SEEDS", default: 16)
        let first = environment("BRIDGE_STATE_SEED", default: Int.random(in: 0..<1_000_000))
        for seed in first..<first + rounds {
            var random = SeededGenerator(seed: UInt64(seed))
            let fixture = try await TargetFixture(
                Self.shapes[seed % 2], tables: [(TableName(name: "t"), TargetFixture.name("t"))], form: .canonical)
            try await fixture.begin()
            let applier = try await fixture.openApplier()
            let described = relation(
                1, "t", [("id", "bigint"), ("u", "bigint"), ("label", "text")], form: .canonical, schema: nil)
            var writer = BatchWriter(relations: [described])
            var rows: [Int64: Row] = [:]
            for _ in 0..<6 {
                let before = rows
                let range = Int64.random(in: 10...120, using: &random)
                // Any valid end state will do: what happened in between is not seen.
                for _ in 0..<Int.random(in: 1...200, using: &random) {
                    let id = Int64.random(in: 0..<range, using: &random)
                    rows[id] = nil
                    guard Int.random(in: 0..<10, using: &random) > 2 else { continue }
                    let row = Row(
                        unique: Int64.random(in: 0..<range * 2, using: &random),
                        label: Bool.random(using: &random) ? nil : "l\(Int64.random(in: 0..<range, using: &random))")
                    // As REPLACE does: whoever holds the value goes.
                    for (other, held) in rows
                    where held.unique == row.unique || (row.label != nil && held.label == row.label) {
                        rows[other] = nil
                    }
                    rows[id] = row
                }
                var keys = Set(before.keys).union(rows.keys).filter { before[$0] != rows[$0] }
                // Surplus keys are harmless.
                keys.formUnion((0..<5).map { _ in Int64.random(in: 0..<range, using: &random) })
                writer.begin()
                for id in keys.sorted().shuffled(using: &random) {
                    if let row = rows[id] {
                        writer.upsert(1, [.integer(id), .integer(row.unique), row.label.map { .string($0) } ?? .null])
                    } else {
                        writer.remove(1, [.integer(id), .absent, .absent])
                    }
                    if Int.random(in: 0..<40, using: &random) == 0 {
                        try await applier.apply(writer.take(isPart: true))
                    }
                }
                writer.commit()
                do {
                    try await applier.apply(writer.take())
                } catch {
                    Issue.record("seed \(seed): \(error)")
                    return
                }
                let expected = rows.sorted { $0.key < $1.key }.map { "\($0.key)|\($0.value.unique)|\($0.value.label ?? "-")" }
                let seen = try await fixture.sql("SELECT id, u, coalesce(label, '-') FROM t ORDER BY id")
                #expect(seen == expected.joined(separator: "\n"), "seed \(seed)")
                if seen != expected.joined(separator: "\n") { return }
            }
            await applier.close()
            try await fixture.end()
        }
    }
}
