import BridgeConformance
import BridgeConsistency
import BridgeCore
import BridgeTestEngines
import BridgeTestSupport
import Testing

/// Keys of every type that `bridge schema apply` maps between the engines: what the two sides spell in two ways is one row.
@Suite("Keys of all types between real databases", .serialized)
struct KeyTypeTests {
    @Test("K3 K9 K14 K16 random keys of all types: no false alarm, and exactly the planted rows are named", arguments: Pair.wanted)
    func property(_ pair: Pair) async throws {
        let (random, seed) = SeededGenerator.named("key types, \(pair)")
        var made = random
        let shape = KeyShape.all(source: pair.source, target: pair.target)
        let checked = try await CheckedPair(pair, tables: [], names: shape.map(\.name) + ["marker"])
        var world = KeyWorld(checked, shape)
        try await world.makeSource(&made)
        try await checked.applySchema()
        let (started, rest) = (world, made)
        try await checked.whileSyncing { _ in
            var (world, generator) = (started, rest)
            let full = try await checked.check { $0.showValues = true }
            #expect(full.verdict == .consistent && full.gate.isOpen, "seed \(seed): \(full.summary)")
            for round in 0..<(environment("BRIDGE_KEY_ROUNDS").flatMap { Int($0) } ?? 1) {
                // Replicated: dirty keys that settle.
                try await world.writeSource(&generator)
                try await world.expect([], "seed \(seed), round \(round), replicated")
                // Written by others on the target: named row by row.
                let foreign = try await world.writeTarget(&generator, seen: true)
                try await world.expect(foreign, "seed \(seed), round \(round), by others")
                try await world.restoreTarget(seen: true)
                try await world.expect([], "seed \(seed), round \(round), restored")
                // Unseen, but on rows that the source wrote as well since the last check.
                try await world.writeSource(&generator)
                let planted = try await world.writeTarget(&generator, seen: false)
                try await world.expect(planted, "seed \(seed), round \(round), planted")
                try await world.restoreTarget(seen: false)
                try await world.expect([], "seed \(seed), round \(round), mended")
            }
            let planted = try await world.writeTarget(&generator, seen: false)
            try await world.expect(planted, mode: .full, "seed \(seed), in full")
        }
    }

    @Test("K3 a key that was removed and one that is equal to it and on its way are no difference")
    func equalKeys() async throws {
        let checked = try await CheckedPair(
            Pair(source: PostgreSQLEngine(), target: PostgreSQLEngine()), tables: [], names: ["amounts"])
        try await checked.source.execute(
            "CREATE TABLE amounts (id numeric PRIMARY KEY, v text); INSERT INTO amounts VALUES (5, 'a'), (6, 'b');")
        try await checked.applySchema()
        try await checked.whileSyncing { runner in
            #expect(try await checked.check().verdict == .consistent)
            try await checked.source.execute("DELETE FROM amounts WHERE id = 5;")
            try await waitUntil { try await checked.count("SELECT count(*) FROM amounts") == 1 }
            let report = await runner.betweenTransactions { _, _ -> CheckReport? in
                try? await checked.source.execute("INSERT INTO amounts VALUES (5.0, 'c');")
                return try? await checked.check(.incremental)
            }
            let behind = try #require(report ?? nil)
            #expect(behind.verdict == .inconclusive, "\(behind.summary)")
            #expect(behind.tables[0].sourceOnly == 0)
            try await waitUntil { try await checked.count("SELECT count(*) FROM amounts") == 2 }
            #expect(try await checked.check(.incremental).verdict == .consistent)
        }
    }

    @Test(
        "K9 an SQLite target's names in another letter case are the same names",
        arguments: Pair.wanted.filter { $0.target is SQLiteEngine })
    func letterCase(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [], names: ["Users"])
        let isPostgres = pair.source is PostgreSQLEngine
        try await checked.source.execute(
            """
            CREATE TABLE "Users" ("Id" \(isPostgres ? "bigint" : "INTEGER") NOT NULL, "Part" \(isPostgres ? "text" : "TEXT") NOT NULL,
              "eMail" \(isPostgres ? "text" : "TEXT"), PRIMARY KEY ("Id", "Part"));
            INSERT INTO "Users" VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', NULL);
            """)
        try await checked.target.execute("CREATE TABLE USERS (EMAIL TEXT, part TEXT NOT NULL, ID INTEGER NOT NULL, PRIMARY KEY (ID, part));")
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.tables.map(\.status) == [.consistent] && first.tables.map(\.rowsCompared) == [3], "\(first.summary)")
            try await checked.target.execute("UPDATE users SET email = 'x' WHERE id = 2;")
            let found = try await checked.check(.incremental)
            #expect(found.tables.first?.samples.map(\.key) == [["Id": "2", "Part": "b"]], "\(found.summary)")
            #expect(found.tables.first?.samples.first?.columns == ["eMail"])
        }
    }

    @Test("K13 changes of a table that was renamed on an SQLite source are looked at", arguments: Pair.wanted.filter { $0.source is SQLiteEngine })
    func renamed(_ pair: Pair) async throws {
        let checked = try await CheckedPair(pair, tables: [], names: ["users"])
        try await checked.source.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, w TEXT, u TEXT); INSERT INTO users VALUES (1, 'a', 'a');")
        let type = pair.target is PostgreSQLEngine ? ("bigint", "text") : ("INTEGER", "TEXT")
        try await checked.target.execute("CREATE TABLE users (id \(type.0) PRIMARY KEY, w \(type.1), u \(type.1));")
        try await checked.whileSyncing { _ in
            try await checked.source.execute("ALTER TABLE users RENAME TO people;")
            let first = try await checked.check()
            #expect(first.tables.map(\.status) == [.consistent], "\(first.summary)")
            try await checked.source.execute("UPDATE people SET u = 'b';")
            try await waitUntil { try await checked.count("SELECT count(*) FROM users WHERE u = 'b'") == 1 }
            try await checked.target.plant("UPDATE users SET w = 'planted'")
            let found = try await checked.check(.incremental)
            #expect(found.tables.map(\.mismatched) == [1], "\(found.summary)")
        }
    }

    @Test("K9 K16 a key that the source spells freely is found on it by the target's spelling")
    func freeSpelling() async throws {
        let pair = Pair(source: SQLiteEngine(), target: PostgreSQLEngine())
        let checked = try await CheckedPair(pair, tables: [], names: ["u"])
        try await checked.source.execute(
            """
            CREATE TABLE u (k TEXT PRIMARY KEY NOT NULL, w TEXT);
            INSERT INTO u VALUES ('00112233-4455-6677-8899-AABBCCDDEEFF', 'a'), ('{00112233445566778899aabbccddee00}', 'b');
            """)
        try await checked.target.execute("CREATE TABLE u (k uuid PRIMARY KEY, w text)")
        try await checked.whileSyncing { _ in
            let first = try await checked.check()
            #expect(first.tables.map(\.status) == [.consistent], "\(first.summary)")
            try await checked.target.execute("UPDATE u SET w = 'x' WHERE w = 'a'")
            let found = try await checked.check(.incremental)
            #expect(found.tables.map { [$0.mismatched, $0.sourceOnly, $0.targetOnly] } == [[1, 0, 0]], "\(found.summary)")
            try await checked.target.execute("UPDATE u SET w = 'a' WHERE w = 'x'; DELETE FROM u WHERE w = 'b'")
            let missing = try await checked.check(.incremental)
            #expect(missing.tables.map(\.status) != [.consistent], "\(missing.summary)")
        }
    }
}
