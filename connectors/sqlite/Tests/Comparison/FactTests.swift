import BridgeCore
import BridgeTestSupport
import Foundation
import GRDB
import Testing

@testable import BridgeSQLite

@Suite("SQLite comparison: facts about tables")
struct FactTests {
    @Test("K12 indexes, constraints and counters are told, and which foreign keys do not hold")
    func facts() async throws {
        let sql = """
            CREATE TABLE p(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT NOT NULL UNIQUE CHECK (length(b) > 1));
            CREATE TABLE c(x TEXT, y INT REFERENCES p(a) ON DELETE CASCADE, z TEXT, CONSTRAINT pk PRIMARY KEY(y, x),
                           CONSTRAINT named FOREIGN KEY(z) REFERENCES p(b) DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID;
            CREATE UNIQUE INDEX i ON c(lower(z)) WHERE x > 'a';
            INSERT INTO p VALUES(7, 'ab'); DELETE FROM p; INSERT INTO p VALUES(3, 'cd'); INSERT INTO c VALUES('q', 3, 'nobody');
            """
        let compared = try await ComparedSource(sql, tables: ["p", "c"])
        let facts = try await compared.session.facts()
        let parent = try #require(facts[0])
        #expect(parent.sequences == [.init(column: "a", lastValue: 7)])
        #expect(parent.schema.columns.map(\.type) == [.int64, .text])
        #expect(parent.constraints.map { "\($0.kind) \($0.columns) \($0.definition) \($0.isValidated)" } == [
            "primaryKey [\"a\"] PRIMARY KEY (\"a\") true", "unique [\"b\"] UNIQUE (\"b\") true",
            "check [\"b\"] CHECK (length(b) > 1) true", "notNull [\"a\"] NOT NULL true", "notNull [\"b\"] NOT NULL true",
        ])
        let child = try #require(facts[1])
        #expect(child.indexes.map(\.schema.name) == ["i"] && child.indexes[0].isValid)
        #expect(child.indexes[0].schema.predicate == "x > 'a'")
        let keys = child.constraints.filter { $0.kind == .foreignKey }
        #expect(keys.map(\.columns) == [["y"], ["z"]])
        #expect(keys.map(\.isValidated) == [true, false])
        #expect(keys[1].name == "named")
        #expect(keys[0].definition == #"FOREIGN KEY ("y") REFERENCES "p"("a") ON DELETE CASCADE ON UPDATE NO ACTION"#)
        #expect(keys[1].definition.hasSuffix("DEFERRABLE INITIALLY DEFERRED"))
        #expect(child.constraints.first { $0.kind == .primaryKey }?.columns == ["y", "x"])
        // A table that is gone has no facts, and then the foreign keys to it prove nothing.
        try compared.database.run("DROP TABLE p")
        let later = try await compared.session.facts()
        #expect(later[0] == nil)
        #expect(later[1]?.constraints.filter { $0.kind == .foreignKey }.map(\.isValidated) == [false, false])
        await compared.close()
    }
}
