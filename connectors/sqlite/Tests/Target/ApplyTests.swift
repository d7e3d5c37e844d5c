import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import GRDB
import Testing

@Suite struct ApplyTests {
    static let users = postgresRelation(7, "users", ["id*:bigint", "email:text", "bio:text"])

    static let usersTable = """
        CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, bio TEXT, seen INTEGER NOT NULL DEFAULT 5);
        """

    @Test("P24 rows, key changes and the checkpoint are committed together")
    func plainChanges() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let batch = BatchWriter([Self.users])
            .transaction(10) { writer in
                writer.insert(7, [1, "a", "x"])
                writer.insert(7, [2, "b", nil])
                writer.insert(7, [3, "c", "z"])
                writer.update(7, to: [1, "a2", "x2"])
                writer.update(7, key: [2, .absent, .absent], to: [20, "b", "moved"])
                writer.delete(7, key: [3, .absent, .absent])
            }.batch()
        try await applier.apply(batch)
        #expect(try fixture.rows("SELECT * FROM users ORDER BY id") == ["i:1|t:a2|t:x2|i:5", "i:20|t:b|t:moved|i:5"])
        let state = try await fixture.target.linkState(fixture.link([Self.users]))
        #expect(state?.phase == .syncing)
        #expect(state?.checkpoint?.position == Position(commit: 10))
        #expect(state?.checkpoint?.frontier == Position(commit: 11))
        #expect(state?.origin?.identity == ["system": "1"])
        await applier.close()
    }

    @Test("P12 an unchanged value survives, also beside a key change")
    func unchangedValues() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let batch = BatchWriter([Self.users])
            .transaction(10) { writer in
                writer.insert(7, [1, "a", "long"])
                writer.insert(7, [2, "b", "longer"])
                writer.update(7, to: [1, "a2", .unchanged])
                writer.update(7, key: [2, .absent, .absent], to: [3, .unchanged, .unchanged])
                writer.update(7, to: [1, .unchanged, .unchanged])
            }.batch()
        try await applier.apply(batch)
        #expect(
            try fixture.rows("SELECT id, email, bio FROM users ORDER BY id") == ["i:1|t:a2|t:long", "i:3|t:b|t:longer"])
        await applier.close()
    }

    @Test("P12 a value that is needed and was not sent stops the link")
    func missingValues() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let changes: [(BatchWriter) -> Void] = [
            { $0.insert(7, [1, "a", .unchanged]) },
            { $0.insert(7, [1, "a", .absent]) },
            { $0.update(7, to: [.unchanged, "a", "b"]) },
            { $0.delete(7, key: [.absent, "a", "b"]) },
            { $0.delete(7, key: [nil, .absent, .absent]) },
        ]
        for (number, change) in changes.enumerated() {
            let batch = BatchWriter([Self.users]).transaction(10, change).batch()
            let error = await failure { try await applier.apply(batch) }
            #expect(error?.code == .valueMissing, "change \(number)")
        }
        await applier.close()
    }

    @Test("P31 an update or delete that finds no row and an insert that finds one are conflicts with table and position")
    func conflicts() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        try await applier.apply(
            BatchWriter([Self.users]).transaction(10) { $0.insert(7, [1, "secret@example.org", "x"]) }.batch())
        let changes: [(BatchWriter) -> Void] = [
            { $0.update(7, to: [99, "q", "q"]) },
            { $0.delete(7, key: [99, .absent, .absent]) },
            { $0.insert(7, [1, "other", "y"]) },
            { $0.insert(7, [5, "secret@example.org", "y"]) },
            {
                $0.insert(7, [5, "five", "y"])
                $0.update(7, key: [5, .absent, .absent], to: [1, "five", "y"])
            },
        ]
        for (number, change) in changes.enumerated() {
            let error = await failure {
                try await applier.apply(BatchWriter([Self.users]).transaction(77, change).batch())
            }
            #expect(error?.code == .conflict, "change \(number)")
            #expect(error?.value(.table) == "users")
            #expect(error?.value(.position)?.hasPrefix("77") == true)
            #expect(error.map { !"\($0)".contains("secret") } == true)
        }
        #expect(try fixture.rows("SELECT id FROM users") == ["i:1"])
        #expect(
            try await fixture.target.linkState(fixture.link([Self.users]))?.checkpoint?.position == Position(commit: 10))
        await applier.close()
    }

    @Test("P25 a unique swap between rows, which the source checks at commit only, succeeds")
    func uniqueSwap() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        try await applier.apply(
            BatchWriter([Self.users]).transaction(10) { writer in
                for id in 1...5 { writer.insert(7, [.integer(Int64(id)), .text("u\(id)"), .text("bio\(id)")]) }
            }.batch())
        try fixture.execute("UPDATE users SET seen = id * 100")
        try await applier.apply(
            BatchWriter([Self.users])
                .transaction(11) { writer in
                    // A ring: every value moves one row on.
                    for id in 1...5 {
                        writer.update(7, to: [.integer(Int64(id)), .text("u\(id % 5 + 1)"), .unchanged])
                    }
                }
                .transaction(12) { writer in
                    // A row that waits for its place is updated again, another one leaves, and one comes in its stead.
                    writer.update(7, to: [1, "u3", "first"])
                    writer.update(7, to: [1, "u4", "second"])
                    writer.delete(7, key: [3, .absent, .absent])
                    writer.update(7, to: [2, "u2", .unchanged])
                    writer.insert(7, [6, "u5", "new"])
                    writer.delete(7, key: [4, .absent, .absent])
                }.batch())
        #expect(
            try fixture.rows("SELECT id, email, bio, seen FROM users ORDER BY id") == [
                "i:1|t:u4|t:second|i:100", "i:2|t:u2|t:bio2|i:200", "i:5|t:u1|t:bio5|i:500", "i:6|t:u5|t:new|i:5",
            ])
        await applier.close()
    }

    @Test("P13 identity FULL: NULL matches NULL and one of several equal rows is touched")
    func fullIdentity() async throws {
        let relation = postgresRelation(8, "log", ["a:bigint", "b:text", "c:jsonb"], identity: .full)
        let fixture = try TargetFixture("CREATE TABLE log(a INTEGER, b TEXT, c TEXT)")
        let applier = try await fixture.applier([relation])
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in
                for _ in 0..<3 { writer.insert(8, [1, nil, "{}"]) }
                writer.insert(8, [nil, nil, nil])
                writer.update(8, whole: [1, nil, "{}"], to: [2, "x", .unchanged])
                writer.delete(8, whole: [1, nil, "{}"])
                writer.delete(8, whole: [nil, nil, nil])
            }.batch())
        #expect(try fixture.rows("SELECT * FROM log ORDER BY a") == ["i:1|null|t:{}", "i:2|t:x|t:{}"])
        let error = await failure {
            try await applier.apply(BatchWriter([relation]).transaction(11) { $0.delete(8, whole: [1, "", "{}"]) }.batch())
        }
        #expect(error?.code == .conflict)
        await applier.close()
    }

    @Test("P29 other column order, extra and generated columns, names that need quotes")
    func otherShapes() async throws {
        let relation = postgresRelation(9, "Odd \"t", ["select*:integer", "two words:text", "total:integer"])
        let fixture = try TargetFixture(
            """
            CREATE TABLE "Odd ""t"("two words" TEXT, extra TEXT DEFAULT 'kept', "select" INTEGER PRIMARY KEY,
                total INTEGER GENERATED ALWAYS AS ("select" * 10) STORED)
            """)
        let applier = try await fixture.applier([relation])
        try await applier.apply(
            BatchWriter([relation]).transaction(10) { writer in
                writer.insert(9, [4, "w", 1])
                writer.update(9, to: [4, "v", 2])
            }.batch())
        #expect(try fixture.rows("SELECT * FROM \"Odd \"\"t\"") == ["t:v|t:kept|i:4|i:40"])
        await applier.close()
    }

    @Test("P11 a truncate empties all its tables")
    func truncate() async throws {
        let other = postgresRelation(8, "posts", ["id*:bigint"])
        let fixture = try TargetFixture(Self.usersTable + "CREATE TABLE posts(id INTEGER PRIMARY KEY)")
        let applier = try await fixture.applier([Self.users, other])
        try await applier.apply(
            BatchWriter([Self.users, other]).transaction(10) { writer in
                writer.insert(7, [1, "a", "b"])
                writer.insert(8, [1])
                writer.truncate([7, 8])
                writer.insert(8, [2])
            }.batch())
        #expect(try fixture.rows("SELECT id FROM users") == [])
        #expect(try fixture.rows("SELECT id FROM posts") == ["i:2"])
        await applier.close()
    }

    @Test("S11 triggers do not fire, a fence does not stop the applier, and foreign keys are not checked")
    func triggersAreOff() async throws {
        let fixture = try TargetFixture(
            Self.usersTable + """
                CREATE TABLE log(what);
                CREATE TRIGGER t1 AFTER INSERT ON users BEGIN INSERT INTO log VALUES(NEW.id); END;
                CREATE TRIGGER fence BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'fenced'); END;
                CREATE TABLE posts(id INTEGER PRIMARY KEY, user INTEGER NOT NULL REFERENCES users(id));
                """)
        let posts = postgresRelation(8, "posts", ["id*:bigint", "user:bigint"])
        let applier = try await fixture.applier([Self.users, posts])
        try await applier.apply(
            BatchWriter([Self.users, posts]).transaction(10) { writer in
                writer.insert(8, [1, 1])
                writer.insert(7, [1, "a", "b"])
            }.batch())
        #expect(try fixture.rows("SELECT * FROM log") == [])
        #expect(try fixture.rows("SELECT id FROM users") == ["i:1"])
        await applier.close()
    }

    @Test("P9 P10 a new relation is applied by name, a missing column pauses the link until the target is altered")
    func relationChanges() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let wider = postgresRelation(7, "users", ["bio:text", "id*:bigint", "age:integer", "email:text"])
        func batch() -> ChangeBatch {
            let writer = BatchWriter([Self.users])
            writer.begin(10)
            writer.insert(7, [1, "a", "x"])
            writer.buffer.appendRelation(wider)
            writer.insert(7, ["y", 2, 30, "b"])
            return writer.commit().batch()
        }
        let error = await failure { try await applier.apply(batch()) }
        #expect(error?.code == .schemaChanged)
        #expect(error?.value(.table) == "users")
        #expect(error?.value(.column) == "age")
        #expect(try fixture.rows("SELECT id FROM users") == [])
        try fixture.execute("ALTER TABLE users ADD COLUMN age INTEGER")
        try await applier.apply(batch())
        #expect(
            try fixture.rows("SELECT id, email, bio, age FROM users") == ["i:1|t:a|t:x|null", "i:2|t:b|t:y|i:30"])
        await applier.close()
    }

    @Test("P24 a transaction in parts stays invisible until its end, and a rollback leaves nothing")
    func largeTransaction() async throws {
        let relation = postgresRelation(7, "users", ["id*:bigint", "email:text", "bio:text"])
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([relation])
        for attempt in 0..<2 {
            var row: Int64 = 0
            let parts = 20
            for part in 0..<parts {
                let writer = BatchWriter([relation])
                if part == 0 { writer.begin(10) }
                for _ in 0..<10_000 {
                    row += 1
                    writer.insert(7, [.integer(row), .text("user \(row)"), nil])
                }
                if part < parts - 1 {
                    try await applier.apply(writer.batch(checkpoint: false))
                } else if attempt == 0 {
                    try await applier.rollback()
                } else {
                    writer.commit()
                    try await applier.apply(
                        ChangeBatch(
                            records: writer.buffer, relations: [7: relation],
                            checkpoint: Checkpoint(
                                position: Position(commit: 10), frontier: Position(commit: 11),
                                commitTime: Timestamp(microseconds: 0)), rows: 10_000, transactions: 1))
                }
                if part == parts / 2 { #expect(try fixture.rows("SELECT count(*) FROM users") == ["i:0"]) }
            }
            #expect(try fixture.rows("SELECT count(*) FROM users") == [attempt == 0 ? "i:0" : "i:200000"])
        }
        await applier.close()
    }

    @Test("R1 one applier at a time, in this process or another; the lock ends with its holder")
    func oneApplier() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let link = fixture.link([Self.users])
        #expect(await failure { _ = try await fixture.target.openApplier(link) }?.code == .alreadyRunning)
        let other = SQLiteTarget(path: fixture.path)
        #expect(await failure { _ = try await other.openApplier(link) }?.code == .alreadyRunning)
        await applier.close()
        let second = try await other.openApplier(link)
        #expect(await failure { _ = try await fixture.target.openApplier(link) }?.code == .alreadyRunning)
        await second.close()
    }

    @Test("R1 a writer that does not let go is serverBusy, and the batch can be applied again")
    func busyTarget() async throws {
        let fixture = try TargetFixture(Self.usersTable, busyTimeout: 50)
        let applier = try await fixture.applier([Self.users])
        let batch = BatchWriter([Self.users]).transaction(10) { $0.insert(7, [1, "a", "b"]) }.batch()
        let holder = try fixture.open()
        try await holder.writeWithoutTransaction { database in try database.execute(sql: "BEGIN IMMEDIATE") }
        #expect(await failure { try await applier.apply(batch) }?.code == .serverBusy)
        try await holder.writeWithoutTransaction { database in try database.execute(sql: "ROLLBACK") }
        try await applier.apply(batch)
        #expect(try fixture.rows("SELECT id FROM users") == ["i:1"])
        await applier.close()
    }

    @Test("P24 positions of all 64 bits are kept exactly, and a checkpoint that another hand moved is noticed")
    func checkpoints() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let link = fixture.link([Self.users])
        try await applier.apply(BatchWriter([Self.users]).transaction(UInt64.max - 1) { _ in }.batch())
        #expect(try await fixture.target.linkState(link)?.checkpoint?.position == Position(commit: UInt64.max - 1))
        let back = BatchWriter([Self.users]).transaction(5) { _ in }.batch()
        #expect(await failure { try await applier.apply(back) }?.code == .internalFault)
        try fixture.execute("UPDATE _bridge_link SET position = '5'")
        let next = BatchWriter([Self.users]).transaction(UInt64.max - 1) { $0.insert(7, [1, "a", "b"]) }.batch()
        #expect(await failure { try await applier.apply(next) }?.code == .checkpointForeign)
        #expect(try fixture.rows("SELECT id FROM users") == [])
        await applier.close()
    }

    @Test("a damaged batch throws and changes nothing")
    func damagedBatches() async throws {
        let fixture = try TargetFixture(Self.usersTable)
        let applier = try await fixture.applier([Self.users])
        let whole = BatchWriter([Self.users]).transaction(10) { writer in
            writer.insert(7, [1, "a", "b"])
            writer.update(7, key: [1, .absent, .absent], to: [2, "b", .unchanged])
        }.batch()
        for length in 1..<whole.records.count {
            let cut = RecordBuffer()
            cut.append(UnsafeRawBufferPointer(rebasing: whole.records.bytes[..<length]))
            var batch = whole
            batch.records = cut
            // Cut between two records it is a batch without its end, which nothing here can tell.
            guard let error = await failure({ try await applier.apply(batch) }) else {
                try fixture.execute("DELETE FROM users; UPDATE _bridge_link SET position = '1', frontier = '1'")
                continue
            }
            #expect([.recordMalformed, .checkpointForeign].contains(error.code), "cut at \(length)")
        }
        let narrow = BatchWriter([Self.users]).transaction(10) { $0.insert(7, [1, "a"]) }.batch()
        #expect(await failure { try await applier.apply(narrow) }?.code == .recordMalformed)
        let unknown = BatchWriter([Self.users]).transaction(10) { $0.insert(6, [1, "a"]) }.batch()
        #expect(await failure { try await applier.apply(unknown) }?.code == .recordMalformed)
        await applier.close()
    }
}
