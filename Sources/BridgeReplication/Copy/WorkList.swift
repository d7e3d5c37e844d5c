import BridgeCore
import Synchronization

/// A table on its way: what its parts share.
final class TableCopy: Sendable {
    let schema: TableSchema
    let mapping: TableMapping
    let format: CopyFormat
    /// nil for a table that is loaded as a whole.
    let load: (any PartedLoad)?
    private let state: Mutex<State>

    private struct State {
        var remaining: Int
        var rows: Int64 = 0
        var position: Position?
    }

    init(_ table: CopiedTable, format: CopyFormat, load: (any PartedLoad)?, parts: Int) {
        schema = table.schema
        mapping = table.mapping
        self.format = format
        self.load = load
        state = Mutex(State(remaining: parts))
    }

    /// Counts a part that is on the target.
    /// - Returns: the table's rows once the last part is there.
    func finished(_ part: LoadedPart) throws(BridgeError) -> Int64? {
        let (fits, total) = state.withLock { state -> (Bool, Int64?) in
            let fits = (state.position ?? part.position) == part.position && state.remaining > 0
            state.position = part.position
            state.rows += part.rows
            state.remaining -= 1
            return (fits, state.remaining == 0 ? state.rows : nil)
        }
        guard fits else { throw BridgeError(.internalFault, "the parts of a table come from different snapshots") }
        return total
    }
}

/// What a worker does at a time.
struct CopyUnit: Sendable {
    let table: TableCopy
    let part: CopyPart
}

/// The parts of all tables, which several workers take from, until one fails.
final class WorkList: Sendable {
    private struct State {
        var remaining: ArraySlice<CopyUnit>
        var failure: BridgeError?
        var hasProgressed = false
    }
    let count: Int
    private let state: Mutex<State>

    init(_ units: [CopyUnit]) {
        count = units.count
        state = Mutex(State(remaining: units[...]))
    }

    func next() -> CopyUnit? { state.withLock { $0.failure == nil ? $0.remaining.popFirst() : nil } }
    func progressed() { state.withLock { $0.hasProgressed = true } }
    func fail(_ error: BridgeError) { state.withLock { $0.failure = $0.failure ?? error } }
    var failure: BridgeError? { state.withLock { $0.failure } }
    /// Whether something has been copied for good.
    var hasProgressed: Bool { state.withLock { $0.hasProgressed } }
}
