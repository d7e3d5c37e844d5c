import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// What a report tells of the tables' definitions, for a gate to compare with those of later.
@Suite("Definitions in a check's report", .serialized)
struct SchemaReportTests {
    private static let alteration = "ALTER TABLE accounts ADD COLUMN extra integer"

    @Test("C10 a report tells what each table was defined as on both sides, and one that builds upon it the same", arguments: Pair.wanted)
    func told(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts, .items])
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            let (source, target) = try await checked.fingerprints()
            #expect(first.tables.map(\.sourceSchema) == source && first.tables.map(\.targetSchema) == target, "\(first.summary)")
            #expect(first.tables.allSatisfy { $0.sourceSchema != nil && $0.targetSchema != nil })
            try await checked.target.execute("CREATE UNIQUE INDEX extra ON accounts(id, email)")
            let second = try await checked.check(.incremental)
            // SQLite's watch sees every alteration by itself.
            #expect(second.verdict == (pair.target is SQLiteEngine ? .inconclusive : .consistent), "\(second.summary)")
            // It has not looked at rows that nobody changed: what the alteration did to them is unknown.
            #expect(second.tables[0].targetSchema == first.tables[0].targetSchema)
            #expect(second.tables[0].sourceSchema == first.tables[0].sourceSchema)
            let present = try await checked.fingerprints().target
            #expect(present[0] != target[0] && present[1] == target[1])
            let sample = try await checked.check(.sample)
            #expect(sample.tables.map(\.targetSchema) == present)
            let whole = try await checked.check()
            #expect(whole.tables.map(\.targetSchema) == present, "\(whole.summary)")
            let third = try await checked.check(.incremental)
            #expect(third.tables.map(\.targetSchema) == present)
        }
    }

    @Test("C10 what is altered while a check goes on is not told as what was checked", arguments: Pair.wanted)
    func alteredMeanwhile(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.whileSyncing { _ in
            let before = try await checked.fingerprints()
            let probe = ViewProbe(onFirstView: { try? await checked.target.execute(Self.alteration) })
            // Whatever its verdict.
            let report = try await checked.makeCheck(.full, probe: probe).run()
            #expect(report.tables.map(\.targetSchema) == before.target)
            #expect(try await checked.fingerprints().target != before.target)
        }
    }

    @Test("C10 a side that refuses leaves the fields empty, and the check its verdict", arguments: Pair.wanted)
    func refused(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.whileSyncing { _ in
            let report = try await checked.makeCheck(.full, probe: ViewProbe(refusingCutover: .target)).run()
            #expect(report.verdict == .consistent && report.gate.isOpen, "\(report.summary)")
            #expect(report.tables.map(\.targetSchema) == [nil])
            #expect(report.tables.map(\.sourceSchema) == (try await checked.fingerprints().source))
        }
    }

    @Test("C10 C18 a fence check, which the application waits for, does not ask", arguments: Pair.wanted)
    func fence(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [.accounts])
        try await checked.whileSyncing { _ in
            let (full, fence) = (ViewProbe(), ViewProbe())
            _ = try await checked.makeCheck(.full, probe: full).run()
            #expect(full.all.cutovers == 2)
            let report = try await checked.makeCheck(.fence, probe: fence).run()
            #expect(report.verdict == .consistent, "\(report.summary)")
            #expect(fence.all.cutovers == 0)
            #expect(report.tables.map(\.sourceSchema) == [nil] && report.tables.map(\.targetSchema) == [nil])
        }
    }
}

extension CheckedPair {
    /// What the tables are defined as now, in the order of the link.
    func fingerprints() async throws -> (source: [String?], target: [String?]) {
        func read(_ side: any Connector, _ tables: [TableName]) async throws -> [String?] {
            let session = try await side.openCutover(migration: link.migration)
            let found = try await session.schemaFingerprints(of: tables)
            await session.close()
            return tables.map { found[$0] }
        }
        return (
            try await read(try source.makeSource(), link.mappings.map(\.source)),
            try await read(try target.makeTarget(), link.mappings.map(\.target))
        )
    }
}
