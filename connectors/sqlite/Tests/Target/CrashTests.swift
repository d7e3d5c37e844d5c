import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import Glibc
import Testing

/// The process is killed at every failpoint of the target; what is committed then is a whole checkpoint, and going on
/// from it gives every row once.
@Suite struct CrashTests {
    static let relation = postgresRelation(7, "users", ["id*:bigint", "email:text"])
    static let table = "CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE)"

    /// Applies transactions behind the target's checkpoint, the third of them in two parts.
    static func applyRest(_ target: SQLiteTarget, _ link: LinkDescription) async throws {
        let done = try await target.linkState(link)?.checkpoint?.position ?? .zero
        let applier = try await target.openApplier(link)
        for commit: UInt64 in [10, 20, 30, 40] where Position(commit: commit) > done {
            let writer = BatchWriter([relation])
            writer.begin(commit)
            writer.insert(7, [.integer(Int64(commit)), .text("user \(commit)")])
            if commit == 30 {
                try await applier.apply(writer.batch(checkpoint: false))
                let rest = BatchWriter([relation])
                rest.update(7, to: [10, "changed"])
                rest.buffer.appendCommit(
                    TransactionEnd(
                        position: Position(commit: 30), end: 31, commitTime: Timestamp(microseconds: 0), changes: 2))
                var batch = rest.batch()
                batch.checkpoint = Checkpoint(
                    position: Position(commit: 30), frontier: Position(commit: 31), commitTime: Timestamp(microseconds: 0))
                try await applier.apply(batch)
            } else {
                try await applier.apply(writer.commit().batch())
            }
        }
        await applier.close()
    }

    @Test(
        "P24 R1 killed around a commit, every change is there exactly once",
        arguments: ["apply.begin", "apply.part", "apply.before-commit", "apply.after-commit"], 1...4)
    func applying(failpoint: String, passage: Int) async throws {
        let fixture = try TargetFixture(Self.table)
        let link = fixture.link([Self.relation])
        try await fixture.startSyncing(link, relations: [Self.relation])
        await fixture.target.close()
        let arms = "\(failpoint)=kill@\(passage)"
        let path = fixture.path
        let isKilled = failpoint != "apply.part" || passage == 1
        await #expect(processExitsWith: isKilled ? .signal(SIGKILL) : .exitCode(0)) { [arms = arms as String, path = path as String] in
            setenv("BRIDGE_FAILPOINTS", arms, 1)
            let relation = Self.relation
            let link = LinkDescription(
                migration: "shop", direction: .forward,
                mappings: [TableMapping(source: relation.name, target: TableName(name: "users"))], form: .canonical)
            try await Self.applyRest(SQLiteTarget(path: path), link)
        }
        let rows = try fixture.rows("SELECT id FROM users ORDER BY id")
        let position = try await fixture.target.linkState(link)?.checkpoint?.position.commit ?? 0
        #expect(rows == [10, 20, 30, 40].filter { $0 <= position }.map { "i:\($0)" })
        try await Self.applyRest(fixture.target, link)
        #expect(
            try fixture.rows("SELECT * FROM users ORDER BY id") == [
                "i:10|t:changed", "i:20|t:user 20", "i:30|t:user 30", "i:40|t:user 40",
            ])
    }

    @Test(
        "P20 R1 killed in a load, the table is loaded anew, and once it is done it stays done",
        arguments: ["copy.chunk", "copy.table-before-commit", "copy.table-after-commit"])
    func loading(failpoint: String) async throws {
        let fixture = try TargetFixture(Self.table)
        let link = fixture.link([Self.relation])
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(link, CaptureOrigin(identity: [:], position: .zero))
        await fixture.target.close()
        let arms = failpoint == "copy.chunk" ? "copy.chunk=kill@2" : "\(failpoint)=kill"
        let path = fixture.path
        await #expect(processExitsWith: .signal(SIGKILL)) { [arms = arms as String, path = path as String] in
            setenv("BRIDGE_FAILPOINTS", arms, 1)
            try await Self.load(SQLiteTarget(path: path))
        }
        let state = try await fixture.target.linkState(link)?.tables[Self.relation.name]?.state
        #expect(state == (failpoint == "copy.table-after-commit" ? .done : .loading))
        if state == .loading { try await Self.load(fixture.target) }
        #expect(try fixture.rows("SELECT id FROM users ORDER BY id") == ["i:1", "i:2", "i:3"])
        #expect(try await fixture.target.linkState(link)?.tables[Self.relation.name]?.rows == 3)
    }

    static func load(_ target: SQLiteTarget) async throws {
        let mapping = TableMapping(source: relation.name, target: TableName(name: "users"))
        let link = LinkDescription(migration: "shop", direction: .forward, mappings: [mapping], form: .canonical)
        let load = try await target.openLoad(link, mapping: mapping, columns: relation.columns, format: .rows)
        try await load.write(chunk([[1, "a"], [2, "b"]]))
        try await load.write(chunk([[3, "c"]]))
        try await load.finish(position: Position(commit: 3), rows: 3)
    }
}
