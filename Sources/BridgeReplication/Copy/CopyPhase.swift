import BridgeCore
import Logging

/// The first picture of the tables: every table that is not recorded as done is loaded from a snapshot, in parts where it
/// is large and both ends can, several at a time; then the indexes that were dropped for it are built again.
///
/// A table that was finished stays finished, whatever happens to the rest. The parts of a table come from one snapshot,
/// because the applier leaves out a table's changes before one position: as long as the snapshot lives a part that failed
/// is copied again by itself, and without it the whole table.
struct CopyPhase: Sendable {
    let configuration: LinkConfiguration
    let source: any SourceConnector
    let target: any TargetConnector
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    private var link: LinkDescription { configuration.link }

    /// Copies what is left, then moves the link to `syncing`. Returns early when a stop is requested.
    func run() async throws(BridgeError) {
        try await Retrying(
            work: "the copy", patience: configuration.patience, board: board, stop: stop, logger: logger
        ).run { (backoff) async throws(BridgeError) in
            guard try await copyRemaining(&backoff) else { return }
            let indexes = IndexPhase(
                configuration: configuration, target: target, board: board, stop: stop, logger: logger)
            guard try await indexes.run() else { return }
            try Failpoint.copyFinished.hit()
            try await target.finishCopy(link)
            board.update { $0.phase = .syncing }
        }
    }

    /// True when every table is done.
    private func copyRemaining(_ backoff: inout Backoff) async throws(BridgeError) -> Bool {
        guard let state = try await target.linkState(link) else {
            throw BridgeError(.internalFault, "the target lost its records of the link")
        }
        let mappings = link.mappings.filter { state.tables[$0.source]?.state != .done }
        guard !mappings.isEmpty else {
            reset(board, state, [])
            return true
        }
        // The picture is taken before the tables are described: a column that is added in between is then copied, and
        // not filled by a change that the copy is thought to hold.
        guard let origin = state.origin else {
            throw BridgeError(.internalFault, "the target lost its record of what the capture began at")
        }
        let snapshot = try await source.openSnapshot(link, origin: origin)
        let failure: BridgeError?
        do throws(BridgeError) {
            let work = WorkList(try await plan(mappings, state, snapshot))
            failure = await copy(work, from: snapshot)
            if failure != nil, work.hasProgressed { backoff.reset() }
        } catch { failure = error }
        await snapshot.close()
        if let failure { throw failure }
        return !stop.isRequested
    }

    /// Cuts the tables into parts, and makes the target ready for those that come in several transactions.
    private func plan(
        _ mappings: [TableMapping], _ state: LinkState, _ snapshot: any SourceSnapshot
    ) async throws(BridgeError) -> [CopyUnit] {
        let schemas = try await source.describeTables(link.mappings.map(\.source))
        var tables: [CopiedTable] = []
        for mapping in mappings {
            guard let schema = schemas.first(where: { $0.name == mapping.source }) else {
                throw BridgeError(
                    .tableMissing, "a table of the migration is no longer on the source",
                    context: [.init(.table, mapping.source.description)])
            }
            tables.append(CopiedTable(schema: schema, mapping: mapping))
        }
        reset(board, state, schemas)
        let plans = try await snapshot.planParts(tables, partBytes: configuration.copyPartBytes)
        guard plans.count == tables.count else {
            throw BridgeError(.internalFault, "the source planned other tables than were asked for")
        }
        var copies: [(bytes: Int64, units: [CopyUnit])] = []
        for (table, parts) in zip(tables, plans) {
            guard !stop.isRequested else { return [] }
            copies.append(try await units(table, parts))
        }
        // Large tables first, so that the last worker is not left alone with the largest.
        return copies.sorted { $0.bytes > $1.bytes }.flatMap(\.units)
    }

    private func units(
        _ table: CopiedTable, _ parts: [CopyPart]
    ) async throws(BridgeError) -> (bytes: Int64, units: [CopyUnit]) {
        let bytes = parts.reduce(0) { $0 + $1.bytes }
        let format = try await target.chooseCopyFormat(
            source.copyFormats(table.schema), source: table.schema, mapping: table.mapping)
        var load: (any PartedLoad)?
        if bytes > configuration.copyPartBytes {
            load = try await target.openParts(
                link, mapping: table.mapping, parts: parts.count, droppingIndexes: configuration.dropsIndexesForCopy)
        }
        let chosen = load == nil ? [.whole(bytes: bytes)] : parts
        let copy = TableCopy(table, format: format, load: load, parts: chosen.count)
        return (bytes, chosen.map { CopyUnit(table: copy, part: $0) })
    }

    private func reset(_ board: ProgressBoard, _ state: LinkState, _ schemas: [TableSchema]) {
        board.update { progress in
            progress.activity = .copying
            progress.phase = .copying
            progress.trouble = nil
            progress.tables = link.mappings.map { mapping in
                let table = state.tables[mapping.source]
                let isDone = table?.state == .done
                let known = progress.tables.first { $0.name == mapping.source }?.rowsEstimated
                return LinkProgress.Table(
                    name: mapping.source, state: isDone ? .done : .pending, rowsDone: isDone ? table?.rows ?? 0 : 0,
                    rowsEstimated: schemas.first { $0.name == mapping.source }?.estimatedRows ?? known)
            }
        }
    }

    /// Works the parts off with a bounded number of workers; the first failure that cannot be mended ends all.
    private func copy(_ work: WorkList, from snapshot: any SourceSnapshot) async -> BridgeError? {
        let worker = CopyWorker(
            configuration: configuration, source: source, target: target, snapshot: snapshot, work: work, board: board,
            stop: stop, logger: logger)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<min(configuration.copyJobs, target.maximumParallelLoads, work.count) {
                group.addTask { await worker.run() }
            }
        }
        return work.failure
    }
}
