import BridgeCore
import Testing

@testable import BridgeConsistency

@Suite("Comparison: what a key is called on both sides")
struct KeyNameTests {
    private static func pair(_ source: LogicalType, _ target: LogicalType) -> TablePair {
        func layout(_ type: LogicalType) -> ComparisonLayout {
            ComparisonLayout(
                table: TableName(name: "t"),
                columns: [Relation.Column(name: "k", isKey: true, typeName: type.name, type: type)])
        }
        let mapping = TableMapping(source: TableName(name: "t"), target: TableName(name: "t"))
        return TablePair(mapping: mapping, source: layout(source), target: layout(target))
    }

    private static func key(_ cell: TestCell) -> KeyImage {
        let buffer = RecordBuffer(capacity: 64)
        buffer.beginRowImage(columns: 1)
        cell.append(to: buffer)
        return KeyImage(Array(buffer.bytes))
    }

    private static let numeric = LogicalType.numeric(precision: nil, scale: nil)

    @Test("K9 a suspect in one side's spelling is in dispute when the journal has its key in the other's", arguments: [
        (numeric, numeric, TestCell.integer(5), TestCell.text("5"), true),
        (numeric, numeric, .real(12.5), .text("12.5"), true),
        (numeric, numeric, .text("5.0"), .text("5"), false),
        (.int64, numeric, .integer(5), .text("5"), true),
        (.text, .uuid, .text("00112233-4455-6677-8899-AABBCCDDEEFF"), .text("00112233-4455-6677-8899-aabbccddeeff"), true),
        (.int64, .float64, .integer(5), .real(5.0), true),
        (.int64, .int64, .integer(5), .integer(6), false),
        (.text, .text, .text("a"), .text("A"), false),
        (.dynamic, .dynamic, .integer(5), .text("5"), false),
    ])
    func disputed(_ source: LogicalType, _ target: LogicalType, _ a: TestCell, _ b: TestCell, _ isOne: Bool) throws {
        let pair = Self.pair(source, target)
        for (journaled, suspected) in [(a, b), (b, a)] {
            let disputed = try DisputedKeys([Self.key(journaled)], pair)
            #expect(try disputed.leaving([Self.key(suspected)]).isEmpty == isOne)
            #expect(try pair.distinct([Self.key(journaled), Self.key(suspected)]).count == (isOne ? 1 : 2))
        }
    }

    @Test("K16 only a source that has values as text may hide a row from the target's spelling")
    func spellings() {
        #expect(Self.pair(.text, .uuid).spellsFreely(.source))
        #expect(!Self.pair(.text, .uuid).spellsFreely(.target))
        #expect(Self.pair(.uuid, .text).spellsFreely(.target))
        #expect(!Self.pair(.uuid, .text).spellsFreely(.source))
        #expect(!Self.pair(Self.numeric, Self.numeric).spellsFreely(.source))
        #expect(!Self.pair(.text, .text).spellsFreely(.source))
        #expect(!Self.pair(.int64, .int64).spellsFreely(.source))
    }
}
