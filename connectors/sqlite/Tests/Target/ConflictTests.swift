import BridgeCore
import BridgeSQLite
import BridgeTestSupport
import Testing

/// Changes that the target's data contradicts, and changes that the target refuses.
@Suite("SQLite target: conflicts")
struct ConflictTests {
    private static let described = postgresRelation(7, "t", ["id*:bigint", "v:text", "u:bigint"])
    private static let table = """
        CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'bad'), u INTEGER UNIQUE, own TEXT DEFAULT 'default');
        INSERT INTO t VALUES (5, 'here', 50, 'kept'), (6, 'six', 60, 'kept too'), (7, 'seven', 70, 'kept as well')
        """

    private func fixture() async throws -> (TargetFixture, LinkDescription) {
        let fixture = try TargetFixture()
        let link = fixture.link([Self.described])
        try fixture.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, u INTEGER, own TEXT)")
        try await fixture.startSyncing(link, relations: [Self.described])
        try fixture.execute("DROP TABLE t; " + Self.table)
        return (fixture, link)
    }

    private static let changes: [(kind: ConflictKind, change: @Sendable (BatchWriter) -> Void)] = [
        (.updateFoundNoRow, { $0.update(7, to: [77, "secret", 7700]) }),
        (.deleteFoundNoRow, { $0.delete(7, key: [78, .absent, .absent]) }),
        (.insertFoundRow, { $0.insert(7, [5, "secret", 51]) }),
        (.keyTaken, { $0.update(7, key: [7, .absent, .absent], to: [6, "secret", 70]) }),
    ]
    private static let unique: [@Sendable (BatchWriter) -> Void] = [
        { $0.insert(7, [79, "secret", 50]) }, { $0.update(7, to: [6, "secret", 50]) },
    ]

    private func apply(
        _ batch: ChangeBatch, _ fixture: TargetFixture, _ link: LinkDescription, _ policy: ConflictPolicy
    ) async throws {
        let applier = try await fixture.target.openApplier(link, onConflict: policy)
        do { try await applier.apply(batch) } catch {
            await applier.close()
            throw error
        }
        await applier.close()
    }

    private func batch(_ position: UInt64, filler: Int64 = 3, _ change: (BatchWriter) -> Void) -> ChangeBatch {
        BatchWriter([Self.described]).transaction(position) { writer in
            for row in 0..<filler { writer.insert(7, [.integer(Int64(position) * 100 + row), "f", .null]) }
            change(writer)
            writer.insert(7, [.integer(Int64(position) * 100 + 99), "f", .null])
        }.batch()
    }

    @Test("P31 P32 stop: each kind is named with table, position and place in its transaction, and no value")
    func stop() async throws {
        let (fixture, link) = try await fixture()
        var all: [(ConflictKind?, (BatchWriter) -> Void)] = Self.changes.map { ($0.kind, $0.change) }
        all += Self.unique.map { (.uniqueValueTaken, $0) }
        all.append((nil, { $0.insert(7, [80, "bad", .null]) }))
        for filler in [Int64(0), 3] {
            for (kind, change) in all {
                for policy in kind == nil || kind == .uniqueValueTaken ? ConflictPolicy.allCases : [.stop] {
                    let error = await failure { try await apply(batch(10, filler: filler, change), fixture, link, policy) }
                    #expect(error?.conflictKind == kind, "\(String(describing: error))")
                    #expect(error?.isOfChange == true)
                    #expect(error?.changePosition == Position(commit: 10, ordinal: UInt64(filler)), "\(String(describing: kind)) \(policy)")
                    #expect(error?.value(.table) == "t")
                    #expect(error.map { "\($0)".contains("secret") } == false)
                }
            }
        }
        #expect(try fixture.rows("SELECT count(*) FROM t") == ["i:3"])
        #expect(try await fixture.target.conflictHistory(link, limit: 10).total == 0)
    }

    @Test("P31 skip: the change is left out and recorded once, what is around it is applied")
    func skip() async throws {
        let (fixture, link) = try await fixture()
        for (number, (_, change)) in Self.changes.enumerated() {
            try await apply(batch(UInt64(10 + number), change), fixture, link, .skip)
        }
        let history = try await fixture.target.conflictHistory(link, limit: 10)
        #expect(history.total == 4)
        #expect(history.newest.map(\.position) == (10..<14).map { Position(commit: $0, ordinal: 3) })
        #expect(history.newest.map(\.reason) == Self.changes.map(\.kind.rawValue))
        #expect(history.newest.map(\.key) == [77, 78, 5, 7].map { "{\"id\":\($0)}" })
        #expect(history.newest.allSatisfy { $0.outcome == .skipped && $0.recordedAt != nil })
        #expect(
            try fixture.rows("SELECT * FROM t WHERE id < 100 ORDER BY id")
                == ["i:5|t:here|i:50|t:kept", "i:6|t:six|i:60|t:kept too", "i:7|t:seven|i:70|t:kept as well"])
        #expect(try fixture.rows("SELECT count(*) FROM t") == ["i:19"])
        #expect(try await fixture.target.conflictHistory(link, limit: 1).newest.map(\.position.commit) == [13])
    }

    @Test("P31 overwrite: rows become the source's, columns of the target's own stay, and each is recorded")
    func overwrite() async throws {
        let (fixture, link) = try await fixture()
        try await apply(
            batch(10) {
                $0.insert(7, [5, "new", 51])
                $0.update(7, to: [77, "made", 77])
                $0.update(7, to: [77, "changed", 78])
                $0.delete(7, key: [78, .absent, .absent])
                $0.update(7, key: [7, .absent, .absent], to: [6, .unchanged, 66])
                $0.update(7, key: [88, .absent, .absent], to: [77, "moved", 79])
            }, fixture, link, .overwrite)
        #expect(
            try fixture.rows("SELECT * FROM t WHERE id < 100 ORDER BY id")
                == ["i:5|t:new|i:51|t:kept", "i:6|t:seven|i:66|t:kept as well", "i:77|t:moved|i:79|t:default"])
        let history = try await fixture.target.conflictHistory(link, limit: 10)
        #expect(
            history.newest.map(\.reason) == [
                "insert_found_row", "update_found_no_row", "delete_found_no_row", "key_taken", "update_found_no_row",
            ])
        #expect(history.newest.map(\.position.ordinal) == [3, 4, 6, 7, 8])
        #expect(history.newest.allSatisfy { $0.outcome == .overwritten })
    }

    @Test("P31 P12 overwrite stops where a value is not known, or a row would go that is not the link's or not named")
    func overwriteStops() async throws {
        let (fixture, link) = try await fixture()
        let before = try fixture.rows("SELECT * FROM t ORDER BY id")
        let changes: [(ConflictKind, (BatchWriter) -> Void)] = [
            (.updateFoundNoRow, { $0.update(7, to: [77, .unchanged, 7]) }),
            (.uniqueValueTaken, { $0.insert(7, [5, "x", 60]) }),
            (.uniqueValueTaken, { $0.update(7, to: [77, "x", 60]) }),
        ]
        for (kind, change) in changes {
            let error = await failure { try await apply(batch(10, change), fixture, link, .overwrite) }
            #expect(error?.conflictKind == kind && error?.changePosition?.ordinal == 3, "\(String(describing: error))")
        }
        var filtered = link
        filtered.mappings[0].targetFilter = "id <> 5 AND id <> 6"
        for change in [Self.changes[2], Self.changes[3]] {
            let error = await failure { try await apply(batch(10, change.change), fixture, filtered, .overwrite) }
            #expect(error?.conflictKind == change.kind)
        }
        #expect(try fixture.rows("SELECT * FROM t ORDER BY id") == before)
    }

    @Test("P32 what was left out before is recorded with the checkpoint, and goes with the link's records")
    func leftOut() async throws {
        let (fixture, link) = try await fixture()
        // Records that an earlier version made have no place for it.
        try fixture.execute("DROP TABLE _bridge_conflict")
        var batch = batch(10) { _ in }
        batch.leftOut = [
            ConflictRecord(
                position: Position(commit: .max, ordinal: 2), commitTime: Timestamp(microseconds: 7), table: "t",
                change: "insert", reason: "change_refused", outcome: .passedOver, key: "{}")
        ]
        try await apply(batch, fixture, link, .stop)
        let found = try await fixture.target.conflictHistory(link, limit: 10).newest
        #expect(found.map(\.position) == [Position(commit: .max, ordinal: 2)])
        #expect(found.map(\.outcome) == [.passedOver])
        try await fixture.target.removeLink(link)
        #expect(try fixture.rows("SELECT name FROM sqlite_master WHERE name LIKE '\\_bridge%' ESCAPE '\\'") == [])
    }
}
