import BridgeCore
import Synchronization

/// Stands between a check and the views of its databases: counts what is asked for, and fails when told to.
final class ViewProbe: Sendable {
    struct Seen: Sendable {
        var finds = 0
        var largestFindBytes = 0
        var largestReadBytes = 0
        /// The bounds of ranges that were read or hashed on the source.
        var ranges: [String] = []
        var requests: [String] = []
        var foundKeys = 0
        var views = 0
        /// How often a side was opened as a cutover deals with it.
        var cutovers = 0
    }

    private let seen = Mutex(Seen())
    private let failing: @Sendable (ComparisonRole, Int) -> Bool
    private let refusingCutover: ComparisonRole?
    private let onFirstView: @Sendable () async -> Void

    /// - Parameters:
    ///   - refusingCutover: which side cannot be opened as a cutover deals with it.
    ///   - failing: whether the look-up of this number, counted on both sides together, finds the connection lost.
    ///   - onFirstView: what happens just before the first view of either side is opened.
    init(
        refusingCutover: ComparisonRole? = nil, failing: @escaping @Sendable (ComparisonRole, Int) -> Bool = { _, _ in false },
        onFirstView: @escaping @Sendable () async -> Void = {}
    ) {
        self.refusingCutover = refusingCutover
        self.failing = failing
        self.onFirstView = onFirstView
    }

    var all: Seen { seen.withLock { $0 } }
    func reset() { seen.withLock { $0 = Seen() } }

    fileprivate func find(_ role: ComparisonRole, _ keys: Int) throws(BridgeError) {
        let number = seen.withLock { seen in
            seen.finds += 1
            seen.foundKeys += keys
            return seen.finds
        }
        if failing(role, number) { throw BridgeError(.connectionLost, "the test cut the connection") }
    }

    fileprivate func cutover(_ role: ComparisonRole) throws(BridgeError) {
        seen.withLock { $0.cutovers += 1 }
        if role == refusingCutover { throw BridgeError(.rightsMissing, "the test refuses") }
    }

    fileprivate func view() async {
        let isFirst = seen.withLock { seen in
            seen.views += 1
            return seen.views == 1
        }
        if isFirst { await onFirstView() }
    }

    fileprivate func found(bytes: Int) { seen.withLock { $0.largestFindBytes = max($0.largestFindBytes, bytes) } }
    fileprivate func read(bytes: Int) { seen.withLock { $0.largestReadBytes = max($0.largestReadBytes, bytes) } }
    fileprivate func range(_ role: ComparisonRole, _ request: ComparisonRequest) {
        guard role == .source else { return }
        seen.withLock { $0.ranges.append("\(request.from?.bytes ?? [])..\(request.to?.bytes ?? [])") }
    }
}

/// A source whose views are probed. Only what a check asks of a source is there.
struct ProbedSource: SourceConnector {
    let base: any SourceConnector
    let probe: ViewProbe

    var engine: EngineName { base.engine }
    var displayName: String { base.displayName }
    func connect() async throws(BridgeError) { try await base.connect() }
    func listTables() async throws(BridgeError) -> [TableSchema] { try await base.listTables() }
    func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] { try await base.describeTables(names) }
    func planTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] { try await base.planTables(names) }
    func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        ProbedSession(base: try await base.openComparison(link, role: role), role: role, probe: probe)
    }
    func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        try probe.cutover(.source)
        return try await base.openCutover(migration: migration)
    }
    func close() async { await base.close() }
    func describe(_ position: Position) -> String { base.describe(position) }
    func preflight(_ link: LinkDescription) async throws(BridgeError) -> [Finding] { try await base.preflight(link) }
    func captureExists(_ link: LinkDescription) async throws(BridgeError) -> Bool { try await base.captureExists(link) }
    func prepareCapture(_ link: LinkDescription, replacingLeftovers: Bool) async throws(BridgeError) -> CaptureOrigin {
        try await base.prepareCapture(link, replacingLeftovers: replacingLeftovers)
    }
    func openSnapshot(_ link: LinkDescription, origin: CaptureOrigin) async throws(BridgeError) -> any SourceSnapshot {
        try await base.openSnapshot(link, origin: origin)
    }
    func openCapture(
        _ link: LinkDescription, origin: CaptureOrigin, durable: Position, workspace: CaptureWorkspace?
    ) async throws(BridgeError) -> any CaptureSession {
        try await base.openCapture(link, origin: origin, durable: durable, workspace: workspace)
    }
    func currentPosition(_ link: LinkDescription) async throws(BridgeError) -> Position { try await base.currentPosition(link) }
    func health(_ link: LinkDescription, applied: Position) async throws(BridgeError) -> SourceHealth {
        try await base.health(link, applied: applied)
    }
    func copyFormats(_ table: TableSchema) -> [CopyFormat] { base.copyFormats(table) }
    func removeCapture(_ link: LinkDescription) async throws(BridgeError) { try await base.removeCapture(link) }
}

struct ProbedTarget: TargetConnector {
    let base: any TargetConnector
    let probe: ViewProbe

    var engine: EngineName { base.engine }
    var displayName: String { base.displayName }
    func connect() async throws(BridgeError) { try await base.connect() }
    func listTables() async throws(BridgeError) -> [TableSchema] { try await base.listTables() }
    func describeTables(_ names: [TableName]) async throws(BridgeError) -> [TableSchema] { try await base.describeTables(names) }
    func openComparison(
        _ link: LinkDescription, role: ComparisonRole
    ) async throws(BridgeError) -> any ComparisonSession {
        ProbedSession(base: try await base.openComparison(link, role: role), role: role, probe: probe)
    }
    func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        try probe.cutover(.target)
        return try await base.openCutover(migration: migration)
    }
    func adoptLink(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError) {
        try await base.adoptLink(link, origin)
    }
    func close() async { await base.close() }
    func preflight(_ link: LinkDescription, sources: [TableSchema]) async throws(BridgeError) -> [Finding] {
        try await base.preflight(link, sources: sources)
    }
    func linkState(_ link: LinkDescription) async throws(BridgeError) -> LinkState? { try await base.linkState(link) }
    func prepareLink(_ link: LinkDescription) async throws(BridgeError) -> LinkState { try await base.prepareLink(link) }
    func recordOrigin(_ link: LinkDescription, _ origin: CaptureOrigin) async throws(BridgeError) {
        try await base.recordOrigin(link, origin)
    }
    func finishCopy(_ link: LinkDescription) async throws(BridgeError) { try await base.finishCopy(link) }
    func chooseCopyFormat(
        _ offered: [CopyFormat], source: TableSchema, mapping: TableMapping
    ) async throws(BridgeError) -> CopyFormat { try await base.chooseCopyFormat(offered, source: source, mapping: mapping) }
    func openLoad(
        _ link: LinkDescription, mapping: TableMapping, columns: [Relation.Column], format: CopyFormat
    ) async throws(BridgeError) -> any TableLoad {
        try await base.openLoad(link, mapping: mapping, columns: columns, format: format)
    }
    func openApplier(_ link: LinkDescription, onConflict: ConflictPolicy) async throws(BridgeError) -> any ChangeApplier {
        try await base.openApplier(link, onConflict: onConflict)
    }
    func conflictHistory(_ link: LinkDescription, limit: Int) async throws(BridgeError) -> ConflictHistory {
        try await base.conflictHistory(link, limit: limit)
    }
    func removeLink(_ link: LinkDescription) async throws(BridgeError) { try await base.removeLink(link) }
    func schemaPlan(for sources: [TableSchema], mappings: [TableMapping]) async throws(BridgeError) -> SchemaPlan {
        try await base.schemaPlan(for: sources, mappings: mappings)
    }
    func execute(_ plan: SchemaPlan) async throws(BridgeError) { try await base.execute(plan) }
}

private struct ProbedSession: ComparisonSession {
    let base: any ComparisonSession
    let role: ComparisonRole
    let probe: ViewProbe

    func layout(
        of mapping: TableMapping, columns: [Relation.Column]?
    ) async throws(BridgeError) -> ComparisonLayout { try await base.layout(of: mapping, columns: columns) }
    func openView(sparing: Bool) async throws(BridgeError) -> any ComparisonView {
        await probe.view()
        return ProbedView(base: try await base.openView(sparing: sparing), role: role, probe: probe)
    }
    var source: (any ComparisonSource)? { base.source }
    var target: (any ComparisonTarget)? { base.target }
    func facts() async throws(BridgeError) -> [TableFacts?] { try await base.facts() }
    func close() async { await base.close() }
}

private struct ProbedView: ComparisonView {
    let base: any ComparisonView
    let role: ComparisonRole
    let probe: ViewProbe

    var sees: ViewMark { base.sees }
    func openRows(_ request: ComparisonRequest) async throws(BridgeError) -> any RowStream {
        probe.range(role, request)
        return ProbedStream(base: try await base.openRows(request), probe: probe)
    }
    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int {
        try probe.find(role, keys.count)
        let before = buffer.count
        let rows = try await base.findRows(request, keys: keys, into: buffer)
        probe.found(bytes: buffer.count - before)
        return rows
    }
    func findRows(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer, limit: Int
    ) async throws(BridgeError) -> Int? {
        try probe.find(role, keys.count)
        let before = buffer.count
        let rows = try await base.findRows(request, keys: keys, into: buffer, limit: limit)
        probe.found(bytes: buffer.count - before)
        return rows
    }
    func drawKeys(_ request: ComparisonRequest, count: Int, seed: UInt64) async throws(BridgeError) -> [KeyImage] {
        try await base.drawKeys(request, count: count, seed: seed)
    }
    func boundary(_ request: ComparisonRequest, rows: Int) async throws(BridgeError) -> KeyImage? {
        try await base.boundary(request, rows: rows)
    }
    func digest(_ request: ComparisonRequest, buckets: Int) async throws(BridgeError) -> [RowDigest] {
        probe.range(role, request)
        return try await base.digest(request, buckets: buckets)
    }
    func openHashes(
        _ request: ComparisonRequest, buckets: Int, wanted: Set<Int>
    ) async throws(BridgeError) -> any RowStream { try await base.openHashes(request, buckets: buckets, wanted: wanted) }
    func findHashes(
        _ request: ComparisonRequest, keys: [KeyImage], into buffer: RecordBuffer
    ) async throws(BridgeError) -> Int { try await base.findHashes(request, keys: keys, into: buffer) }
    func close() async { await base.close() }
}

private struct ProbedStream: RowStream {
    let base: any RowStream
    let probe: ViewProbe

    func read(into buffer: RecordBuffer, limit: Int) async throws(BridgeError) -> Int {
        let rows = try await base.read(into: buffer, limit: limit)
        probe.read(bytes: buffer.count)
        return rows
    }
    func close() async { await base.close() }
}
