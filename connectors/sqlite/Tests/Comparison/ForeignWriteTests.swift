import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: the target's view, and writes of others to it")
struct ForeignWriteTests {
    private static let users = postgresRelation(1, "users", ["id*:bigint", "email:text"])
    private static let tags = postgresRelation(2, "tags", ["tag:text", "owner*:bigint", "label*:text"])
    private static let notes = postgresRelation(3, "notes", ["at:text", "note:text"], identity: .full)
    private static let schema = """
        CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT COLLATE NOCASE UNIQUE);
        CREATE TABLE tags(label TEXT, tag TEXT, owner INTEGER, PRIMARY KEY(label, owner)) WITHOUT ROWID;
        CREATE TABLE notes(at TEXT, note TEXT);
        """

    private func target() async throws -> ComparedTarget {
        let target = try await ComparedTarget(Self.schema, [Self.users, Self.tags, Self.notes])
        try await target.watch()
        for table in 0..<3 { _ = try await target.layout(table) }
        return target
    }

    @Test("K1 a target's view holds the checkpoint and exactly the rows before it, while batches are applied")
    func checkpoint() async throws {
        let compared = try await ComparedTarget("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT)", [Self.users])
        let applier = try await compared.fixture.target.openApplier(compared.link)
        let request = ComparisonRequest(layout: try await compared.layout())
        let applying = Task {
            for commit in 10..<400 as Range<UInt64> {
                let writer = BatchWriter([Self.users])
                writer.transaction(commit) { $0.upsert(1, [.integer(Int64(commit)), "x"]) }
                try await applier.apply(writer.batch())
            }
        }
        var marks: Set<UInt64> = []
        while marks.max() ?? 0 < 400 {
            let view = try await compared.session.openView()
            guard case .before(let mark) = view.sees else { break }
            marks.insert(mark.commit)
            let rows = try await allRows(view, request)
            await view.close()
            #expect(UInt64(rows.count) == (mark.commit == 5 ? 0 : mark.commit - 10))
        }
        try await applying.value
        await applier.close()
        #expect(marks.count > 1)
    }

    @Test("a view of a target that is not syncing is refused by name")
    func notSyncing() async throws {
        let fixture = try TargetFixture("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT)")
        let link = fixture.link([Self.users])
        let session = try await fixture.target.openComparison(link, role: .target)
        #expect(session.source == nil)
        #expect(await errorCode { _ = try await session.openView() } == .checkpointForeign)
        _ = try await fixture.target.prepareLink(link)
        #expect(await errorCode { _ = try await session.openView() } == .inconclusive)
        await session.close()
        #expect(await errorCode { _ = try await session.openView() } == .inconclusive)
        #expect(await errorCode { _ = try await session.facts() } == .internalFault)
    }

    @Test("K9 a target's layout has the source's columns under the source's names, with its own types")
    func layout() async throws {
        let target = try await ComparedTarget(Self.schema, [Self.users, Self.tags, Self.notes])
        let layout = try await target.layout(1)
        #expect(layout.columns.map(\.name) == ["tag", "owner", "label"])
        #expect(layout.columns.map(\.isKey) == [false, true, true])
        #expect(layout.columns.map(\.type) == [.text, .int64, .text])
        // The key's index begins with the label, the key as the source has it with the owner.
        #expect(layout.keyOrder == nil)
        #expect(try await target.layout(0).keyOrder == "integer")
        let upper = try await target.session.layout(of: target.link.mappings[0], columns: [column("ID*:bigint"), column("Email:text")])
        #expect(upper.columns.map(\.name) == ["ID", "Email"])
        #expect(upper.columns.map(\.isKey) == [true, false])
        // Only ASCII letters have a case in SQLite's names; two that become one column cannot be compared.
        let twice = await errorCode {
            _ = try await target.session.layout(of: target.link.mappings[0], columns: [column("id*:bigint"), column("ID:bigint")])
        }
        #expect(twice == .targetTableMismatch)
        let missing = await errorCode { _ = try await target.session.layout(of: target.link.mappings[0], columns: [column("x:text")]) }
        #expect(missing == .targetTableMismatch)
        try target.run("DROP TABLE notes")
        #expect(await errorCode { _ = try await target.layout(2) } == .targetTableMissing)
    }

    @Test("K16 every kind of statement is recorded with the keys of all rows that it touches")
    func statements() async throws {
        let target = try await target()
        var seen: Int64 = 0
        func writes(_ sql: String) async throws -> Set<String> {
            try target.run(sql)
            let new = try await target.writes(after: seen)
            seen = try await target.lastNumber()
            return Set(new)
        }
        #expect(try await writes("INSERT INTO users VALUES(1, 'a'), (2, 'b'), (3, 'c')") == ["users[i:1]", "users[i:2]", "users[i:3]"])
        #expect(try await writes("INSERT INTO users(email) VALUES('d')") == ["users[i:4]"])
        #expect(try await writes("UPDATE users SET email = 'e' WHERE id = 4") == ["users[i:4]"])
        #expect(try await writes("UPDATE users SET id = 9 WHERE id = 4") == ["users[i:4]", "users[i:9]"])
        #expect(try await writes("DELETE FROM users WHERE id = 9") == ["users[i:9]"])
        // REPLACE removes rows without a word, unless recursive_triggers is on.
        #expect(try await writes("REPLACE INTO users VALUES(7, 'A')").isSuperset(of: ["users[i:1]", "users[i:7]"]))
        #expect(try await writes("UPDATE OR REPLACE users SET email = 'B' WHERE id = 3").isSuperset(of: ["users[i:2]", "users[i:3]"]))
        #expect(try await writes("UPDATE OR REPLACE users SET id = 3 WHERE id = 7").isSuperset(of: ["users[i:3]", "users[i:7]"]))
        #expect(try await writes("INSERT INTO users VALUES(3, 'z') ON CONFLICT(id) DO UPDATE SET email = 'y'").contains("users[i:3]"))
        #expect(try await writes("INSERT INTO users VALUES(8, 'y') ON CONFLICT(email) DO UPDATE SET id = 11").isSuperset(of: ["users[i:3]", "users[i:11]"]))
        // In the layout's order, not in the key's.
        #expect(try await writes("INSERT INTO tags VALUES('l', 't', 1), (x'31', NULL, 2)") == ["tags[i:1|t:l]", "tags[i:2|x:31]"])
        #expect(try await writes("UPDATE tags SET label = '1', owner = '3' WHERE owner = 2") == ["tags[i:2|x:31]", "tags[i:3|t:1]"])
        #expect(try await writes("DELETE FROM tags") == ["tags[i:1|t:l]", "tags[i:3|t:1]"])
        // Without a key, by whole rows.
        #expect(try await writes("INSERT INTO notes VALUES('now', NULL), ('now', NULL)") == ["notes[t:now|null]"])
        #expect(try await writes("UPDATE notes SET note = 1.5") == ["notes[t:now|null]", "notes[t:now|t:1.5]"])
        #expect(try await writes("DELETE FROM notes") == ["notes[t:now|t:1.5]"])
        #expect(try await writes("SELECT 1").isEmpty)
        // By another process, and what was rolled back by none.
        let path = target.fixture.path
        try ChildProcess.runBlocking(["sqlite3", path], input: "BEGIN; INSERT INTO users VALUES(50, 's'); ROLLBACK; SAVEPOINT s; DELETE FROM users; ROLLBACK TO s; RELEASE s;")
        #expect(try await writes("SELECT 1").isEmpty)
        try ChildProcess.runBlocking(["sqlite3", path], input: "INSERT INTO users VALUES(51, 's');")
        #expect(try await writes("SELECT 1") == ["users[i:51]"])
        // A limit gives the oldest.
        let two = try await target.requireTarget().foreignWrites(after: 0, limit: 2)
        #expect(two.count == 2 && two[0].number < two[1].number)
        let third = try await target.requireTarget().foreignWrites(after: two[1].number, limit: 1)
        #expect(try third.map { try show($0.key?.bytes ?? []) } == ["i:3"])
    }

    @Test("K16 what an applier and a load write is not recorded")
    func applierIsSilent() async throws {
        let fixture = try TargetFixture("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE)")
        let link = fixture.link([Self.users])
        let session = try await fixture.target.openComparison(link, role: .target)
        let target = try #require(session.target)
        try await target.watchForeignWrites()
        _ = try await fixture.target.prepareLink(link)
        try await fixture.target.recordOrigin(link, CaptureOrigin(identity: ["system": "1"], position: Position(commit: 1)))
        let load = try await fixture.target.openLoad(link, mapping: link.mappings[0], columns: Self.users.columns, format: .rows)
        try await load.write(chunk([[1, "a"], [2, "b"]]))
        try await load.finish(position: Position(commit: 1), rows: 2)
        try await fixture.target.finishCopy(link)
        let applier = try await fixture.target.openApplier(link)
        let writer = BatchWriter([Self.users])
        writer.transaction(5) {
            $0.upsert(1, [3, "c"])
            $0.upsert(1, [1, "b2"])
            $0.remove(1, [2, .absent])
        }
        try await applier.apply(writer.batch())
        await applier.close()
        #expect(try fixture.rows("SELECT * FROM users ORDER BY id") == ["i:1|t:b2", "i:3|t:c"])
        #expect(try await target.foreignWrites(after: 0, limit: 10).isEmpty)
        try fixture.execute("DELETE FROM users WHERE id = 3")
        #expect(try await target.foreignWrites(after: 0, limit: 10).count == 1)
        await session.close()
    }

    @Test("K15 a watch that is not whole is found, and made whole again with all of the table suspect")
    func broken() async throws {
        let target = try await target()
        let names = CaptureNames(foreignWritesOf: target.link)
        try target.run("INSERT INTO users VALUES(1, 'a')")
        let seen = try await target.lastNumber()
        #expect(seen > 0)
        // Watching again changes nothing.
        let before = try target.fixture.rows("SELECT name, sql FROM sqlite_master ORDER BY name")
        try await target.watch()
        #expect(try target.fixture.rows("SELECT name, sql FROM sqlite_master ORDER BY name") == before)
        #expect(try await target.writes(after: seen).isEmpty)
        func isBroken(after: Int64) async -> ErrorCode? {
            await errorCode { _ = try await target.requireTarget().foreignWrites(after: after, limit: 10) }
        }
        func madeAgain(_ trigger: String) throws -> String {
            let sql = try target.fixture.rows("SELECT sql FROM sqlite_master WHERE name = '\(trigger)'")
            return "DROP TRIGGER \"\(trigger)\"; \(try #require(sql.first).dropFirst(2))"
        }
        let damages = [
            try madeAgain(names.trigger(1, .afterInsert)), try madeAgain(names.trigger(1, .beforeDelete)),
            "DROP TRIGGER \"\(names.trigger(1, .beforeDelete))\"",
            "DROP TRIGGER \"\(names.trigger(1, .beforeInsert))\"; CREATE TRIGGER \"\(names.trigger(1, .beforeInsert))\" BEFORE INSERT ON users BEGIN SELECT 1; END",
            "ALTER TABLE users RENAME TO old; CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE); INSERT INTO users SELECT * FROM old; DROP TABLE old",
            "CREATE UNIQUE INDEX more ON users(lower(email))",
            "ALTER TABLE users ADD COLUMN other; ALTER TABLE users RENAME email TO e; ALTER TABLE users RENAME other TO email",
        ]
        var last = seen
        for damage in damages {
            try target.run(damage)
            #expect(await isBroken(after: last) == .captureBroken, "\(damage)")
            try await target.watch()
            #expect(try await target.writes(after: last) == ["users[*]"], "\(damage)")
            last = try await target.lastNumber()
            try target.run("UPDATE users SET email = 'x' WHERE id = 1")
            #expect(try await target.writes(after: last) == ["users[i:1]"])
            last = try await target.lastNumber()
        }
        try target.run("DELETE FROM \"\(names.log)\"")
        #expect(await isBroken(after: last) == .captureBroken)
        try await target.watch()
        #expect(Set(try await target.writes()) == ["users[*]", "tags[*]", "notes[*]"])
        // An older number belongs to the log that was emptied.
        #expect(await isBroken(after: last) == .captureBroken)
        try target.run("DROP TABLE tags")
        #expect(await isBroken(after: 0) == .captureBroken)
        #expect(await errorCode { try await target.watch() } == .targetTableMissing)
    }

    @Test("K15 a watch keeps its identity until its log is made anew, and each check has a counter of its own")
    func identity() async throws {
        let compared = try await ComparedTarget(Self.schema, [Self.users, Self.tags, Self.notes])
        let target = try compared.requireTarget()
        #expect(await errorCode { _ = try await target.watchMark(of: "a") } == .captureBroken)
        #expect(await errorCode { _ = try await target.raiseMark(of: "a", inPlaceOf: nil) } == .captureBroken)
        try await compared.watch()
        let names = CaptureNames(foreignWritesOf: compared.link)
        let first = try await target.watchMark(of: "a")
        #expect(first.counter == 0)
        #expect(try await target.raiseMark(of: "a", inPlaceOf: nil) == WatchMark(identity: first.identity, counter: 1))
        #expect(try await target.raiseMark(of: "b", inPlaceOf: nil).counter == 1)
        #expect(try await target.raiseMark(of: "a", inPlaceOf: "b").counter == 2)
        #expect(try await target.watchMark(of: "a").counter == 2)
        #expect(try await target.watchMark(of: "b").counter == 0)
        #expect(try await compared.writes().isEmpty)
        try ChildProcess.runBlocking(["sqlite3", compared.fixture.path], input: "VACUUM; ANALYZE;")
        #expect(try await compared.writes().isEmpty)
        try compared.run("DROP TRIGGER \"\(names.trigger(1, .beforeDelete))\"")
        try await compared.watch()
        #expect(try await target.watchMark(of: "a") == WatchMark(identity: first.identity, counter: 2))
        var identities: Set<String> = [first.identity]
        for damage in ["DROP TABLE \"\(names.log)\"", "DELETE FROM \"\(names.log)\""] {
            try compared.run(damage)
            #expect(await errorCode { _ = try await compared.writes() } == .captureBroken, "\(damage)")
            try await compared.watch()
            #expect(Set(try await compared.writes()) == ["users[*]", "tags[*]", "notes[*]"], "\(damage)")
            #expect(identities.insert(try await target.watchMark(of: "a").identity).inserted, "\(damage)")
        }
        // Without the marks a check that left one knows that the target is not what it was.
        try compared.run("DROP TABLE \"\(names.state)\"")
        #expect(await errorCode { _ = try await compared.writes() } == .captureBroken)
        try await compared.watch()
        #expect(try await target.watchMark(of: "a").counter == 0)
        await compared.session.close()
    }

    @Test("K16 where the link's key is not the target's primary key, a write makes the whole table suspect")
    func otherKey() async throws {
        let relation = postgresRelation(1, "users", ["id:bigint", "email*:text"])
        let target = try await ComparedTarget("CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE)", [relation])
        try await target.watch()
        try target.run("INSERT INTO users VALUES(1, 'a')")
        // No layout was asked for: the primary key is all that is known.
        #expect(try await target.writes() == ["users[i:1]"])
        #expect(try await target.layout().keyOrder == "utf8")
        #expect(try await target.writes() == ["users[*]"])
    }

    @Test("K16 a write to a table or a key that the target spells in another letter case is named as the layout names it")
    func letterCase() async throws {
        let relation = postgresRelation(1, "Users", ["Id*:bigint", "Part*:text", "note:text"])
        let target = try await ComparedTarget("CREATE TABLE USERS(NOTE TEXT, part TEXT, ID INTEGER, PRIMARY KEY(part, ID))", [relation])
        try target.run("INSERT INTO users VALUES('n', 'p', 7)")
        let layout = try await target.layout()
        #expect(layout.columns.map(\.name) == ["Id", "Part", "note"])
        #expect(layout.table == target.link.mappings[0].target)
        try await target.watch()
        try target.run("UPDATE users SET note = 'x'")
        let write = try #require(try await target.requireTarget().foreignWrites(after: 0, limit: 10).last)
        #expect(write.table == layout.table)
        #expect(try write.key.map { try show($0.bytes) } == "i:7|t:p")
        let view = try await target.session.openView()
        let hits = try await found(view, ComparisonRequest(layout: layout), [[7, "p"]])
        #expect(try hits.map { try showCells($0, columns: 3) } == ["i:7|t:p|t:x"])
        await view.close()
    }

    @Test("K15 without a watch nothing is claimed")
    func unwatched() async throws {
        let target = try await ComparedTarget(Self.schema, [Self.users, Self.tags, Self.notes])
        #expect(await errorCode { _ = try await target.writes() } == .captureBroken)
        try await target.watch()
        #expect(try await target.writes().isEmpty)
    }

    @Test("K15 removeLink takes the watch with it, and leaves no trace; a reverse capture stands beside it")
    func noTrace() async throws {
        let target = try await target()
        let reverse = LinkDescription(
            migration: target.link.migration, direction: .reverse,
            mappings: ["users", "tags"].map { TableMapping(source: TableName(name: $0), target: TableName(name: $0)) }, form: .canonical)
        let before = try target.fixture.rows("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%bridge%' ORDER BY name")
        let source = SQLiteSource(path: target.fixture.path)
        _ = try await source.prepareCapture(reverse, replacingLeftovers: false)
        try target.run("INSERT INTO users VALUES(1, 'a'); REPLACE INTO users VALUES(2, 'A')")
        #expect(Set(try await target.writes()) == ["users[i:1]", "users[i:2]"])
        let log = CaptureNames(reverse).log
        #expect(Set(try target.fixture.rows("SELECT k0 FROM \"\(log)\" WHERE tbl = 1")) == ["i:1", "i:2"])
        try await source.removeCapture(reverse)
        try target.run("DELETE FROM users WHERE id = 2")
        #expect(try await target.writes().last == "users[i:2]")
        await source.close()
        await target.session.close()
        try await target.fixture.target.removeLink(target.link)
        #expect(try target.fixture.rows("SELECT name, sql FROM sqlite_master ORDER BY name") == before)
        try await target.fixture.target.removeLink(target.link)
        try target.run("INSERT INTO users VALUES(9, 'z')")
    }
}
