import BridgeCore
import Testing

@testable import BridgeConsistency

@Suite("Check identifier")
struct CheckIdentifierTests {
    @Test("K22 names of checks sort by time, to the microsecond, and are known as such")
    func order() {
        let times: [Int64] = [0, 1, 35, 36, 999_999, 1_000_000, 1_795_240_740_000_000, 1_795_240_740_000_001]
        let names = times.map { CheckIdentifier.make(at: Timestamp(microseconds: $0)) }
        #expect(names == names.sorted())
        #expect(Set(names).count == times.count)
        #expect(names.allSatisfy { CheckIdentifier.isValid($0) })
        #expect(CheckIdentifier.make(at: Timestamp(microseconds: 0)) == "19700101T000000Z-0000")
        #expect(CheckIdentifier.make(at: Timestamp(microseconds: 999_999)) == "19700101T000000Z-lflr")
    }

    @Test("K22 nothing else is taken for a name", arguments: ["", "../../../../etc/passw", "19700101T000000Z-00é0", "19700101T000000Z-000", "19700101T000000Z-00000", "19700101X000000Z-0000"])
    func other(_ text: String) { #expect(!CheckIdentifier.isValid(text)) }
}
