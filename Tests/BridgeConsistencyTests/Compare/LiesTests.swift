import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Comparison: views that fail")
struct LiesTests {
    private let columns = [column("id", .int32, key: true), column("v", .text)]
    private let source: [TestRow] = (1...200).map { [.integer($0), "x"] }

    private func code(
        _ lie: FakeView.Lie, server: Bool = false
    ) async -> (ErrorCode?, FakeView, FakeView) {
        let rows = source.map { $0[0] == 7 ? [7, "y"] : $0 }
        let (a, b) = (FakeView(source), FakeView(rows, lie: lie))
        do throws(BridgeError) {
            _ = try await TableComparer(pair: pair(layout(columns, serverHash: server ? "toy" : nil)))
                .compare(source: a, target: b)
            return (nil, a, b)
        } catch {
            return (error.code, a, b)
        }
    }

    @Test("a view that changes between two readings makes the check inconclusive")
    func unstable() async {
        // One row, so that the row lost is one of a bucket that is listed.
        let (a, b) = (FakeView([[1, "x"]]), FakeView([[1, "y"]], lie: .secondReadDropsARow))
        await #expect(throws: BridgeError.self) {
            _ = try await TableComparer(pair: pair(layout(columns))).compare(source: a, target: b)
        }
        let hashes = await code(.hashesDisagree, server: true)
        #expect(hashes.0 == .inconclusive)
    }

    @Test("K7 a row that differs is reported also if it cannot be found by its key", arguments: [false, true])
    func findsNothing(_ server: Bool) async throws {
        let rows = source.map { $0[0] == 7 ? [7, "y"] : $0 }
        let outcome = try await TableComparer(pair: pair(layout(columns, serverHash: server ? "toy" : nil)))
            .compare(source: FakeView(source), target: FakeView(rows, lie: .findsNothing))
        #expect(outcome.mismatched == 1 && outcome.samples.map(describe) == ["different "])
        #expect(outcome.samples.first?.key == ["id": "7"])
    }

    @Test("a failure of one side is the comparison's, and closes both streams", arguments: [false, true])
    func failure(_ server: Bool) async {
        let result = await code(.failsInTheMiddle, server: server)
        #expect(result.0 == .connectionLost)
        #expect(result.1.openStreams == 0 && result.2.openStreams == 0)
    }

    @Test("a disputed key that cannot be one of the table is an error, not a row compared")
    func malformedKey() async {
        let comparer = TableComparer(pair: pair(layout(columns)))
        for key in [KeyImage([]), image([1, 2]), KeyImage([0, 1, 0x69, 0, 0, 0, 8, 1])] {
            await #expect(throws: BridgeError.self) {
                _ = try await comparer.compare(source: FakeView(source), target: FakeView(source), disputed: [key])
            }
        }
    }
}
