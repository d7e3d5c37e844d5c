import BridgeCore
import Logging

/// Copies part after part. Several run at a time.
struct CopyWorker: Sendable {
    /// How long a part is tried again while the snapshot, which holds back the source's cleaning up, is kept for it.
    private static let partPatience = Duration.seconds(120)

    let configuration: LinkConfiguration
    let source: any SourceConnector
    let target: any TargetConnector
    let snapshot: any SourceSnapshot
    let work: WorkList
    let board: ProgressBoard
    let stop: StopSignal
    let logger: Logger

    private var link: LinkDescription { configuration.link }
    /// Whether what is under way is to be given up.
    private var isOver: Bool { stop.isRequested || work.failure != nil }

    func run() async {
        while !stop.isRequested, let unit = work.next() {
            let table = unit.table.mapping.source
            do throws(BridgeError) {
                let copied = try await patiently(unit) { () async throws(BridgeError) in try await copy(unit) }
                guard let copied else { return setState(table, .pending) }
                work.progressed()
                guard let total = try unit.table.finished(copied) else { continue }
                if let load = unit.table.load {
                    try await patiently(unit) { () async throws(BridgeError) in
                        try await load.finish(position: copied.position, rows: total)
                    }
                }
                logger.info("table copied", metadata: ["table": "\(table)", "rows": "\(total)"])
                setState(table, .done)
            } catch {
                work.fail(error.adding(.table, table.description))
            }
        }
    }

    /// Does a step again after an error that can pass, as long as the snapshot lives that the table's other parts come
    /// from.
    private func patiently<Value: Sendable>(
        _ unit: CopyUnit, _ body: () async throws(BridgeError) -> Value
    ) async throws(BridgeError) -> Value {
        let patience = min(configuration.patience ?? Self.partPatience, Self.partPatience)
        var backoff = Backoff(patience: patience)
        while true {
            do throws(BridgeError) {
                return try await body()
            } catch {
                let delay = try backoff.delay(after: error)
                guard await snapshot.isUsable(), !isOver else { throw error }
                // Loaded as a whole, and committed after all.
                if unit.table.load == nil, await isDone(unit.table.mapping.source) { throw error }
                let table = unit.table.mapping.source
                logger.warning(
                    "the copy of a part was interrupted and is repeated in \(delay): \(error)",
                    metadata: ["table": "\(table)", "part": "\(unit.part.number)"])
                board.update {
                    $0.reconnects += 1
                    $0.trouble = "the copy of \(table): \(error)"
                }
                await stop.sleep(delay)
                guard !isOver else { throw error }
            }
        }
    }

    private func isDone(_ table: TableName) async -> Bool {
        do throws(BridgeError) { return try await target.linkState(link)?.tables[table]?.state == .done } catch { return false }
    }

    /// - Returns: what is on the target; nil if the copy was given up.
    private func copy(_ unit: CopyUnit) async throws(BridgeError) -> LoadedPart? {
        try Failpoint.copyTableBegin.hit()
        let table = unit.table
        let reader = try await snapshot.openTable(
            table.schema, mapping: table.mapping, part: unit.part, format: table.format)
        let outcome: Result<LoadedPart?, BridgeError>
        do throws(BridgeError) {
            outcome = .success(try await load(unit, reader))
        } catch { outcome = .failure(error) }
        await reader.close()
        return try outcome.get()
    }

    private func load(_ unit: CopyUnit, _ reader: any CopyReader) async throws(BridgeError) -> LoadedPart? {
        let table = unit.table
        let load: any TableLoad
        if let parts = table.load {
            switch try await parts.openPart(unit.part.number, columns: reader.columns, format: table.format) {
            case .load(let opened): load = opened
            case .loaded(let part):
                board.copied(table: table.mapping.source, rows: part.rows, bytes: 0)
                return part
            }
        } else {
            load = try await target.openLoad(
                link, mapping: table.mapping, columns: reader.columns, format: table.format)
        }
        setState(table.mapping.source, .loading)
        var figures = Figures()
        do throws(BridgeError) {
            if try await transfer(reader, load, table.mapping.source, &figures) {
                return LoadedPart(rows: figures.rows, position: reader.position)
            }
        } catch {
            await giveUp(load, table.mapping.source, figures)
            throw error
        }
        await giveUp(load, table.mapping.source, figures)
        return nil
    }

    private func giveUp(_ load: any TableLoad, _ table: TableName, _ figures: Figures) async {
        await load.cancel()
        board.uncopied(table: table, rows: figures.rows, bytes: figures.bytes)
    }

    /// What was sent of a part.
    private struct Figures {
        var rows: Int64 = 0
        var bytes: Int64 = 0
    }

    /// Reads one chunk while the one before is being loaded.
    /// - Returns: whether all is there; false if the copy was given up.
    private func transfer(
        _ reader: any CopyReader, _ load: any TableLoad, _ table: TableName, _ figures: inout Figures
    ) async throws(BridgeError) -> Bool {
        let limit = max(256 << 10, min(configuration.batchBytes / 4, 2 << 20))
        var filled = RecordBuffer(capacity: limit + (64 << 10))
        var spare = RecordBuffer(capacity: limit + (64 << 10))
        var rows = try await reader.read(into: filled, limit: limit)
        while rows > 0 || !filled.isEmpty {
            guard !isOver else { return false }
            try Failpoint.copyChunk.hit()
            spare.removeAll()
            let outcome = await Self.overlap(reader, spare, limit, load, filled)
            board.copied(table: table, rows: Int64(rows), bytes: Int64(filled.count))
            figures.rows += Int64(rows)
            figures.bytes += Int64(filled.count)
            rows = try outcome.get()
            swap(&filled, &spare)
        }
        try await load.finish(position: reader.position, rows: figures.rows)
        return true
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
            progress.trouble = nil
        }
    }
}
