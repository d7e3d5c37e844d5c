import BridgeCore
import Logging
import Synchronization

/// Builds the indexes again that the target dropped for the copy, several at a time. It needs no snapshot, so the source
/// is left alone meanwhile.
struct IndexPhase: Sendable {
    let configuration: LinkConfiguration
    let target: any TargetConnector
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    private var link: LinkDescription { configuration.link }

    /// True when every index is there; false when a stop was requested first.
    func run() async throws(BridgeError) -> Bool {
        let indexes = try await target.droppedIndexes(link)
        guard !indexes.isEmpty else { return !stop.isRequested }
        logger.info("building the indexes that waited for the rows", metadata: ["indexes": "\(indexes.count)"])
        show(indexes)
        let list = IndexList(indexes)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<min(configuration.copyJobs, target.maximumParallelLoads, indexes.count) {
                group.addTask { await self.work(through: list) }
            }
        }
        guard !stop.isRequested else { return false }
        if let failure = list.failure { throw failure }
        return true
    }

    private func work(through list: IndexList) async {
        while !stop.isRequested, let index = list.next() {
            do throws(BridgeError) {
                try await build(index)
                show(list.built(index))
            } catch {
                list.fail(error.adding(.table, index.table.description))
            }
        }
    }

    private func build(_ index: DroppedIndex) async throws(BridgeError) {
        let restoration = try await target.restoration(of: index, link)
        let registration = stop.onRequest { restoration.cancel() }
        defer { stop.forget(registration) }
        try await restoration.run()
        logger.info("index built", metadata: ["table": "\(index.table)", "index": "\(index.name)"])
    }

    private func show(_ open: [DroppedIndex]) {
        board.update { progress in
            for place in progress.tables.indices {
                progress.tables[place].isIndexing = open.contains { $0.table == progress.tables[place].name }
            }
        }
    }
}

/// The indexes that several workers take from, until one fails.
private final class IndexList: Sendable {
    private struct State {
        var next: ArraySlice<DroppedIndex>
        var missing: [DroppedIndex]
        var failure: BridgeError?
    }
    private let state: Mutex<State>

    init(_ indexes: [DroppedIndex]) { state = Mutex(State(next: indexes[...], missing: indexes)) }

    func next() -> DroppedIndex? { state.withLock { $0.failure == nil ? $0.next.popFirst() : nil } }
    func fail(_ error: BridgeError) { state.withLock { $0.failure = $0.failure ?? error } }
    var failure: BridgeError? { state.withLock { $0.failure } }

    /// - Returns: those that are still missing.
    func built(_ index: DroppedIndex) -> [DroppedIndex] {
        state.withLock { state in
            state.missing.removeAll { $0 == index }
            return state.missing
        }
    }
}
