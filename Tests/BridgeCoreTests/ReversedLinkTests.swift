import BridgeCore
import Testing

@Suite struct ReversedLinkTests {
    private static func table(_ name: String, _ columns: [String], computed: [String] = []) -> TableSchema {
        TableSchema(
            engine: EngineName(rawValue: "test"), name: TableName(schema: "s", name: name),
            columns: columns.map {
                ColumnSchema(
                    name: $0, typeName: "bigint", type: .int64, generation: computed.contains($0) ? .stored("1") : nil)
            }, primaryKey: ["id"])
    }

    private static let link = LinkDescription(
        migration: "shop", direction: .forward,
        mappings: [
            TableMapping(source: TableName(schema: "s", name: "users"), target: TableName(schema: "s", name: "people")),
            TableMapping(
                source: TableName(schema: "s", name: "orders"), target: TableName(schema: "s", name: "sales"),
                columns: ["id", "sum"], rowFilter: "tenant = 7"),
        ], form: .canonical)

    @Test("C12 the way back has the tables the other way round, and reversed again it is the way forward")
    func reversed() {
        let back = Self.link.reversed
        #expect(back.name == "shop/reverse" && back.identifier == "bridge_shop_reverse" && back.form == .canonical)
        #expect(back.mappings.map(\.source.name) == ["people", "sales"])
        #expect(back.mappings.map(\.target.name) == ["users", "orders"])
        #expect(back.mappings[0].columns == nil && back.mappings[1].columns == ["id", "sum"])
        // The filter chooses nothing any more, and says which rows are the link's.
        #expect(back.mappings.map(\.rowFilter) == [nil, nil])
        #expect(back.mappings.map(\.targetFilter) == [nil, "tenant = 7"])
        #expect(!back.needsCopy && Self.link.needsCopy)
        #expect(back.reversed == Self.link)
        #expect(back.opposite.identifier == Self.link.identifier && Self.link.opposite.name == back.name)
    }

    @Test("C12 columns that only one side has, or computes, do not travel back; without such the list stays open")
    func columnsInCommon() {
        let sources = [Self.table("users", ["id", "a", "b", "c"], computed: ["c"]), Self.table("orders", ["id", "sum"])]
        func columns(_ targets: [TableSchema]) -> [String]? {
            Self.link.reversed(sources: sources, targets: targets).mappings[0].columns
        }
        #expect(columns([Self.table("people", ["b", "id", "a"])]) == nil)
        #expect(columns([Self.table("people", ["id", "a", "b", "own"], computed: ["own"])]) == nil)
        #expect(columns([Self.table("people", ["b", "own", "id", "a"])]) == ["b", "id", "a"])
        #expect(columns([Self.table("people", ["id", "a", "b", "c"])]) == ["id", "a", "b"])
        #expect(columns([]) == nil)
        let listed = Self.link.reversed(sources: sources, targets: [Self.table("sales", ["id", "sum", "own"])])
        #expect(listed.mappings[1].columns == ["id", "sum"])
    }
}
