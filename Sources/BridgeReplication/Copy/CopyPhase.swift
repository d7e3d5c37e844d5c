import BridgeCore
import Logging
import Synchronization

/// The first picture of the tables: every table that is not recorded as done is loaded from a snapshot, several at a
/// time. A table that was finished stays finished, whatever happens to the rest.
struct CopyPhase: Sendable {
    let configuration: LinkConfiguration
    let source: any SourceConnector
    let target: any TargetConnector
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    private var link: LinkDescription { configuration.link }

    /// One table's way.
    private struct Job: Sendable {
        let mapping: TableMapping
        let schema: TableSchema
    }

    /// Copies what is left, then moves the link to `syncing`. Returns early when a stop is requested.
    func run() async throws(BridgeError) {
        try await Retrying(
            work: "the copy", patience: configuration.patience, board: board, stop: stop, logger: logger
        ).run { (backoff) async throws(BridgeError) in
            guard try await copyRemaining(&backoff) else { return }
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
        guard !mappings.isEmpty else { return true }
        // The picture is taken before the tables are described: a column that is added in between is then copied, and
        // not filled by a change that the copy is thought to hold.
        let snapshot = try await source.openSnapshot(link)
        let failure: BridgeError?
        do throws(BridgeError) {
            failure = await copy(try await jobs(mappings, state), from: snapshot)
        } catch { failure = error }
        await snapshot.close()
        if let failure { throw failure }
        return !stop.isRequested
    }

    private func jobs(_ mappings: [TableMapping], _ state: LinkState) async throws(BridgeError) -> [Job] {
        let schemas = try await source.describeTables(link.mappings.map(\.source))
        var jobs: [Job] = []
        for mapping in mappings {
            guard let schema = schemas.first(where: { $0.name == mapping.source }) else {
                throw BridgeError(
                    .tableMissing, "a table of the migration is no longer on the source",
                    context: [.init(.table, mapping.source.description)])
            }
            jobs.append(Job(mapping: mapping, schema: schema))
        }
        reset(board, state, schemas)
        // Large tables first, so that the last worker is not left alone with the largest.
        return jobs.sorted { ($0.schema.estimatedRows ?? 0) > ($1.schema.estimatedRows ?? 0) }
    }

    private func reset(_ board: ProgressBoard, _ state: LinkState, _ schemas: [TableSchema]) {
        board.update { progress in
            progress.activity = .copying
            progress.phase = .copying
            progress.trouble = nil
            progress.tables = link.mappings.map { mapping in
                let table = state.tables[mapping.source]
                let isDone = table?.state == .done
                return LinkProgress.Table(
                    name: mapping.source, state: isDone ? .done : .pending, rowsDone: isDone ? table?.rows ?? 0 : 0,
                    rowsEstimated: schemas.first { $0.name == mapping.source }?.estimatedRows)
            }
        }
    }

    /// Works the jobs off with a bounded number of workers; the first failure ends all.
    private func copy(_ jobs: [Job], from snapshot: any SourceSnapshot) async -> BridgeError? {
        let workers = min(configuration.copyJobs, target.maximumParallelLoads, jobs.count)
        let work = WorkList(jobs)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<workers {
                group.addTask {
                    while !self.stop.isRequested, let job = work.next() {
                        do throws(BridgeError) { try await self.copy(job, from: snapshot) } catch {
                            work.fail(error.adding(.table, job.mapping.source.description))
                        }
                    }
                }
            }
        }
        return work.failure
    }

    private func copy(_ job: Job, from snapshot: any SourceSnapshot) async throws(BridgeError) {
        try Failpoint.copyTableBegin.hit()
        let offered = source.copyFormats(job.schema)
        let format = try await target.chooseCopyFormat(offered, source: job.schema, mapping: job.mapping)
        let reader = try await snapshot.openTable(job.schema, mapping: job.mapping, format: format)
        let failure: BridgeError?
        do throws(BridgeError) {
            let load = try await target.openLoad(link, mapping: job.mapping, columns: reader.columns, format: format)
            do throws(BridgeError) {
                try await transfer(job, reader, load)
                failure = nil
            } catch {
                await load.cancel()
                failure = error
            }
        } catch { failure = error }
        await reader.close()
        if let failure { throw failure }
    }

    /// Reads one chunk while the one before is being loaded.
    private func transfer(_ job: Job, _ reader: any CopyReader, _ load: any TableLoad) async throws(BridgeError) {
        let table = job.mapping.source
        setState(table, .loading)
        let limit = max(256 << 10, min(configuration.batchBytes / 4, 2 << 20))
        var filled = RecordBuffer(capacity: limit + (64 << 10))
        var spare = RecordBuffer(capacity: limit + (64 << 10))
        var total: Int64 = 0
        var rows = try await reader.read(into: filled, limit: limit)
        while rows > 0 || !filled.isEmpty {
            guard !stop.isRequested else {
                await load.cancel()
                setState(table, .pending)
                return
            }
            try Failpoint.copyChunk.hit()
            spare.removeAll()
            let outcome = await Self.overlap(reader, spare, limit, load, filled)
            board.copied(table: table, rows: Int64(rows), bytes: Int64(filled.count))
            total += Int64(rows)
            rows = try outcome.get()
            swap(&filled, &spare)
        }
        try await load.finish(position: reader.position, rows: total)
        logger.info("table copied", metadata: ["table": "\(table)", "rows": "\(total)"])
        setState(table, .done)
    }

    private static func overlap(
        _ reader: any CopyReader, _ spare: RecordBuffer, _ limit: Int, _ load: any TableLoad, _ filled: RecordBuffer
    ) async -> Result<Int, BridgeError> {
        async let reading: Result<Int, BridgeError> = result { () async throws(BridgeError) in
            try await reader.read(into: spare, limit: limit)
        }
        let writing = await result { () async throws(BridgeError) in try await load.write(filled) }
        let read = await reading
        if case .failure(let error) = writing { return .failure(error) }
        return read
    }

    private static func result<Value: Sendable>(
        _ body: @Sendable () async throws(BridgeError) -> Value
    ) async -> Result<Value, BridgeError> {
        do throws(BridgeError) { return .success(try await body()) } catch { return .failure(error) }
    }

    private func setState(_ table: TableName, _ state: LinkState.Table.State) {
        board.update { progress in
            guard let index = progress.tables.firstIndex(where: { $0.name == table }) else { return }
            progress.tables[index].state = state
        }
    }
}

/// Jobs that several workers take from, until one fails.
private final class WorkList<Job: Sendable>: Sendable {
    private let state: Mutex<(remaining: ArraySlice<Job>, failure: BridgeError?)>

    init(_ jobs: [Job]) { state = Mutex((jobs[...], nil)) }

    func next() -> Job? { state.withLock { $0.failure == nil ? $0.remaining.popFirst() : nil } }
    func fail(_ error: BridgeError) { state.withLock { $0.failure = $0.failure ?? error } }
    var failure: BridgeError? { state.withLock { $0.failure } }
}
