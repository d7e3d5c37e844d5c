import BridgeCore
import Logging

/// A check at work: both sides, the journal, and what is known so far. On a thread of its own, since it writes files.
actor CheckSession {
    private nonisolated let executor = ThreadExecutor(name: "check")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    let link: LinkDescription
    let options: CheckOptions
    let source: any SourceConnector
    let target: any TargetConnector
    let sourceSide: any ComparisonSession
    let targetSide: any ComparisonSession
    let origin: CaptureOrigin
    let board: CheckBoard
    let logger: Logger
    let access: ApplierAccess?
    let pairs: [TablePair]
    let stateFile: CheckStateFile
    let stateWriter: CheckStateWriter
    let differenceFile: DifferenceFile?

    /// That of the options, but for a fence check that is prepared: it is an incremental one until the fence stands.
    var mode: CheckReport.Mode
    /// How long a database, or the link, may keep the check waiting.
    var patience: Duration
    /// Whether the caller vouches for the fence: no transaction that wrote to the tables is open, none can begin, and the
    /// target has committed a marker that was written after that.
    var isFenced = false
    /// Whether what is done now is done for the sake of what will be done behind a fence.
    var isPreparing = false
    /// Whether a fence check that is prepared has a full check to build upon, and has a state that is not written down.
    var isResumed = false
    var isToBeSaved = false
    /// What was read behind the fence after the last views were opened, beside the comparison in them; nil if it was not.
    var conditions: Conditions?
    var state: CheckState
    var tail: JournalTail?
    /// Keys as the journal has them.
    var dirty = DirtySet()
    /// Keys in canonical form.
    var suspects = SuspectSet()
    /// Keys that were dirty when the last drain began and in dispute in each of its rounds: never compared.
    var uncompared: [Int: Int] = [:]
    /// Suspects of the beginning of the last drain that it has not looked at.
    var unseenSuspects: [Int: Set<KeyImage>] = [:]
    var soundness = Soundness()
    /// Whether the source was written to while the last piece of work was done.
    var isSourceBusy = false
    /// Whether what is in the journal from when the check began has been read.
    var hasReadJournal = false
    /// The mark of the check before this one, needed no more once this one has written its state.
    var outdatedMark: String?
    var hasWrittenState = false
    /// How many keys of the last batch a repair has dealt with, and how many the next one gets.
    var repairedKeys = 0
    var repairSize = CheckSession.repairSize
    /// Since when the table that is to be compared next has been in dispute as a whole.
    var blockedSince: ContinuousClock.Instant?
    var foreignWrites: Int64 = 0
    /// The number of the last of them that was looked at.
    var foreignSeen: Int64 = 0
    /// The number of the newest that counts in ``foreignWrites``.
    var foreignNewest: Int64 = 0
    typealias Facts = (source: [TableFacts?], target: [TableFacts?])
    /// What the catalogs said at the end, as far as they were read.
    var facts: Facts?
    /// What the tables are defined as now, before the first view.
    var schemas = CheckedSchemas()
    /// Which tables are compared now; all, unless some were named.
    let wanted: [Int]
    /// Rows that this check looked up, or compared again, and found equal under a policy only.
    var equalByPolicy: [Int: [String: Int64]] = [:]
    let sampleSeed: UInt64
    var sampleFindings: [Int: [CheckReport.Sample]] = [:]
    var sampledRows: Int64 = 0

    init(
        link: LinkDescription, options: CheckOptions, source: any SourceConnector, target: any TargetConnector,
        sourceSide: any ComparisonSession, targetSide: any ComparisonSession, origin: CaptureOrigin, board: CheckBoard,
        access: ApplierAccess?, logger: Logger
    ) async throws(BridgeError) {
        self.link = link
        self.options = options
        mode = options.mode
        patience = options.patience
        self.source = source
        self.target = target
        self.sourceSide = sourceSide
        self.targetSide = targetSide
        self.origin = origin
        self.board = board
        self.logger = logger
        self.access = access
        var pairs: [TablePair] = []
        for mapping in link.mappings {
            let from = try await sourceSide.layout(of: mapping, columns: nil)
            let to = try await targetSide.layout(of: mapping, columns: from.columns)
            pairs.append(TablePair(mapping: mapping, source: from, target: to, policies: options.policies))
        }
        self.pairs = pairs
        wanted = pairs.indices.filter { options.tables?.contains(pairs[$0].mapping.source) ?? true }
        stateFile = CheckStateFile(directory: options.stateDirectory, tables: options.buildsOnWhole ? nil : options.tables)
        stateWriter = CheckStateWriter(path: stateFile.path)
        suspects.limit = options.memory / 8
        sampleSeed = options.sampleSeed ?? .random(in: 0...UInt64.max)
        if let path = options.differencesFile {
            differenceFile = try DifferenceFile(
                path: path, tables: pairs.map(\.mapping.source.description), folder: options.stateDirectory)
        } else {
            differenceFile = nil
        }
        state = CheckState(
            checkId: CheckIdentifier.make(), startedAt: Timestamp.now.rfc3339,
            origin: "\(origin.position.storedForm)\n\(origin.identityText)", selection: Self.selection(pairs, options.policies),
            fingerprint: CaptureFingerprint(common: "", tables: []), from: 0, journaled: 0, foreignBefore: 0,
            tables: pairs.map {
                .init(
                    report: CheckReport.Table(
                        source: $0.mapping.source.description, target: $0.mapping.target.description,
                        status: .consistent))
            })
        state.policies = options.policies.names
    }

    private static func selection(_ pairs: [TablePair], _ policies: EqualityPolicies) -> String {
        // What was let pass may differ by other policies.
        let equal = policies.isEmpty ? "" : "equal under \(policies.names.joined(separator: ","))\n"
        return equal + pairs.map { pair in
            let columns = zip(pair.source.columns, pair.target.columns).map { "\($0.name):\($0.typeName):\($1.typeName)" }
            // By another order, or by none, the bounds of the chunks that were compared mean other rows.
            let order = pair.usesRanges ? pair.source.keyOrder ?? "" : ""
            return "\(pair.mapping.source)>\(pair.mapping.target)[\(columns.joined(separator: ","))]\(order)/"
                + (pair.mapping.rowFilter ?? "")
        }.joined(separator: "\n")
    }

    /// Gives up what it holds of the databases and of the journal. A check that was stopped leaves what it found.
    func close() async {
        await tail?.close()
        tail = nil
        try? differenceFile?.finish()
        await sourceSide.close()
        await targetSide.close()
    }

    func run() async throws(BridgeError) -> CheckReport {
        soundness.hold(.databasesRead)
        board.begin(rowsEstimated: mode == .full ? estimatedRows : nil)
        switch mode {
        case .full: try await checkAll()
        case .sample: try await checkSamples()
        case .incremental: if try await resume() { try await checkChanged() }
        case .fence: if try await resume() { try await checkBehindFence() }
        }
        if options.repair, suspects.hasDifferences {
            try await repair()
            try await drain(untilAllSettled: false)
            forgetRepairedSamples()
            try await save()
        }
        try differenceFile?.finish()
        return try await makeReport()
    }

    /// What the samples found before the repair counts only where it was found again.
    private func forgetRepairedSamples() {
        for (index, samples) in sampleFindings {
            let left = Set(suspects.differences(of: index).map(\.key))
            sampleFindings[index] = samples.filter { left.contains($0.key) }
            if sampleFindings[index]?.isEmpty ?? true { sampleFindings[index] = nil }
        }
    }

    private var estimatedRows: Int64? {
        let known = wanted.compactMap { pairs[$0].source.estimatedRows }
        return known.isEmpty ? nil : known.reduce(0, +)
    }

    // MARK: - Modes

    /// Every table from its first row to its last, then what changed meanwhile.
    private func checkAll() async throws(BridgeError) {
        try await beginAnew(goingOn: true)
        var unaltered: CaptureFingerprint?
        for _ in 0..<5 {
            for index in wanted where !state.tables[index].isDone { try await compareTable(index) }
            try await drain(untilAllSettled: false, samples: true)
            unaltered = try await restartAlteredTables()
            // Emptied or altered while another table was compared: once more.
            let again = wanted.filter { dirty.wholeTables.contains($0) }
            guard !again.isEmpty else { break }
            for index in again { try restart(index) }
        }
        if wanted.contains(where: { dirty.wholeTables.contains($0) }) {
            soundness.fail(.wholeTableChanges, "a table was emptied or altered again and again")
        } else {
            soundness.hold(.wholeTableChanges)
        }
        try await finish(unaltered)
    }

    /// Only what was touched since the last full check.
    func checkChanged() async throws(BridgeError) {
        try await drain(untilAllSettled: false)
        judgeWholeTables()
        try await finish()
    }

    /// The same until nothing is open any more, with the application's writes stopped.
    private func checkBehindFence() async throws(BridgeError) {
        guard let writers = sourceSide.source else { throw Self.notASource }
        try await writers.waitForWriters(patience: patience)
        try await drain(untilAllSettled: true)
        judgeWholeTables()
        try await finish()
    }

    func judgeWholeTables() {
        if wanted.contains(where: { dirty.wholeTables.contains($0) }) {
            soundness.fail(.wholeTableChanges, "a table was emptied or altered since the last full check")
        } else {
            soundness.hold(.wholeTableChanges)
        }
    }

    /// Some rows of each table; a difference is real, none proves little.
    private func checkSamples() async throws(BridgeError) {
        try await beginAnew(goingOn: false)
        try await sampleRows()
        soundness.hold(.wholeTableChanges)
        try await examineConditions()
    }

    /// - Parameter unaltered: what capture rests on, if it was read after the last comparison.
    private func finish(_ unaltered: CaptureFingerprint? = nil) async throws(BridgeError) {
        async let reading = Self.readFacts(sourceSide, targetSide)
        let conditions: Result<Void, BridgeError>
        do throws(BridgeError) { conditions = .success(try await examineConditions(unaltered)) } catch { conditions = .failure(error) }
        let facts = await reading
        try conditions.get()
        self.facts = try facts.get()
        state.isComplete = true
        try await save()
    }

    /// What the catalogs of both sides say of the tables.
    static func readFacts(_ source: any ComparisonSession, _ target: any ComparisonSession) async -> Result<Facts, BridgeError> {
        do throws(BridgeError) {
            return .success(
                try await onBothSides { () async throws(BridgeError) in
                    try await source.facts()
                } _: { () async throws(BridgeError) in
                    try await target.facts()
                })
        } catch { return .failure(error) }
    }

    static var notASource: BridgeError { BridgeError(.internalFault, "a side of the check lacks its role") }

    // MARK: - Beginning

    /// Fixes the position from which on every key counts as dirty, or takes up a full check that was stopped.
    private func beginAnew(goingOn: Bool) async throws(BridgeError) {
        guard let from = sourceSide.source, let to = targetSide.target else { throw Self.notASource }
        let fingerprint = try await from.captureFingerprint()
        let watch = mode == .sample ? nil : try await makeWatch(to)
        if goingOn, let old = stateFile.read() {
            outdatedMark = old.watch?.check
            if !old.isComplete, old.broken == nil, old.origin == state.origin, old.selection == state.selection,
                fingerprint.changedTables(since: old.fingerprint) != nil, try await examineWatch(old.watch) == nil,
                try await reopen(old)
            {
                outdatedMark = nil
                logger.info("the check goes on where the last one was stopped", metadata: ["check": "\(old.checkId)"])
                try await leaveMark()
                try await restartAlteredTables()
                return
            }
        }
        state.fingerprint = fingerprint
        state.schemas = schemas
        state.watch = watch
        try await leaveMark()
        state.foreignBefore = mode == .sample ? 0 : try await newestForeignWrite(to)
        let settled = try await from.settledPosition(patience: patience)
        soundness.hold(.writersSettled)
        guard let applied = try await target.linkState(link)?.checkpoint?.frontier else {
            throw BridgeError(.internalFault, "the target lost its records of the link")
        }
        state.from = min(settled, applied).commit
        state.journaled = state.from
        state.applied = applied.commit
        let tail = try await openTail(at: state.from)
        self.tail = tail
        // Whether anybody has to be spared is to be known before the first views.
        _ = try await tail.advance(views: nil)
        hasReadJournal = true
        isSourceBusy = await tail.transactionCount > 0
    }

    private func newestForeignWrite(_ side: any ComparisonTarget) async throws(BridgeError) -> Int64 {
        var newest: Int64 = 0
        while let last = try await side.foreignWrites(after: newest, limit: 10_000).last { newest = last.number }
        return newest
    }

    private func openTail(at position: UInt64) async throws(BridgeError) -> JournalTail {
        let tail = try await JournalTail.open(
            directory: options.journalDirectory, from: Position(commit: position), layouts: pairs.map(\.source),
            names: pairs.map(\.mapping.source), memory: options.memory / 4)
        soundness.hold(.captureUninterrupted)
        soundness.hold(.keyChanges)
        return tail
    }

    /// Takes up a full check that was stopped: the chunks that it finished count, all that was touched since is dirty.
    private func reopen(_ old: CheckState) async throws(BridgeError) -> Bool {
        do throws(BridgeError) {
            tail = try await openTail(at: old.journaled)
        } catch where error.code == .journalMissing { return false }
        let fresh = state
        state = old
        guard restore(old) else {
            state = fresh
            (dirty, suspects) = (DirtySet(), SuspectSet())
            suspects.limit = options.memory / 8
            return false
        }
        await holdAlteredTables()
        soundness.hold(.writersSettled)
        // What is not remembered by key would be missing in the file.
        if differenceFile != nil { for index in wanted where state.tables[index].hasOverflow { try restart(index) } }
        return true
    }

    /// Takes up a completed full check. False, with the obligation that fails, if it cannot be built upon.
    func resume() async throws(BridgeError) -> Bool {
        guard let old = stateFile.read(), old.isComplete else {
            soundness.fail(.databasesRead, "there is no completed full check to build upon")
            return false
        }
        if let broken = old.broken {
            soundness.fail(.captureUninterrupted, "an earlier check found an obligation broken (\(broken))")
            return false
        }
        // Not a fault that stays: a check under the same policies can go on from it.
        guard old.policies == state.policies else {
            let names = old.policies.isEmpty ? "no policy" : old.policies.joined(separator: ", ")
            soundness.fail(.databasesRead, "the last full check let other differences pass (\(names))")
            return false
        }
        guard let now = try await canBuildUpon(old) else {
            // Found once, it counts until a full check begins anew, even if it looks well again later.
            var spoilt = old
            spoilt.broken = soundness.lastingFailure
            try stateFile.write(spoilt)
            return false
        }
        let checkId = state.checkId
        let startedAt = state.startedAt
        state = old
        state.checkId = checkId
        state.startedAt = startedAt
        // What that one repaired, this one did not.
        for index in state.tables.indices { state.tables[index].report.repaired = 0 }
        soundness.hold(.writersSettled)
        soundness.hold(.targetWatched)
        try await leaveMark()
        guard restore(old) else { return false }
        touch(now.changedTables(since: old.fingerprint) ?? [], now)
        return true
    }

    /// What capture rests on now; nil, with the obligation that fails, if nothing can be built upon the state.
    private func canBuildUpon(_ old: CheckState) async throws(BridgeError) -> CaptureFingerprint? {
        guard old.origin == state.origin else {
            soundness.fail(.captureUninterrupted, "capture began anew since the last full check")
            return nil
        }
        guard old.selection == state.selection else {
            soundness.fail(.captureUnchanged, "tables, columns or types are others than in the last full check")
            return nil
        }
        if let broken = try await examineWatch(old.watch) {
            soundness.fail(broken.name, broken.why)
            return nil
        }
        guard let now = try await fingerprint() else { return nil }
        guard now.changedTables(since: old.fingerprint) != nil else {
            soundness.fail(.captureUnchanged, "what capture rests on was changed since the last full check")
            return nil
        }
        do throws(BridgeError) { tail = try await openTail(at: old.journaled) } catch where Self.interruptions.contains(error.code) {
            soundness.fail(.captureUninterrupted, error.message)
            return nil
        }
        return now
    }

    /// What an earlier check left to be looked at again.
    private func restore(_ old: CheckState) -> Bool {
        guard state.tables.count == pairs.count else { return false }
        dirty = old.dirty
        for table in old.dirtyTables { dirty.touchWhole(table) }
        suspects = old.suspects
        suspects.limit = options.memory / 8
        for (index, table) in old.tables.enumerated() where table.hasOverflow { suspects.overflow(index) }
        foreignSeen = old.foreignRead
        foreignNewest = old.foreignNewest
        // Writes that the application made while it was served there were taken for others' until it went back.
        foreignWrites = isServed(old.foreignNewest) ? 0 : old.foreignOthers
        // They are held once.
        state.dirty = DirtySet()
        state.suspects = SuspectSet()
        return true
    }

    // MARK: - Keeping

    /// Writes down how far the check is.
    func save() async throws(BridgeError) {
        guard mode != .sample else { return }
        if let tail { state.journaled = max(state.from, min(await tail.settled, await tail.frontier).commit) }
        state.dirtyTables = dirty.wholeTables.sorted()
        // Whose rows are among the suspects, or were looked at.
        state.foreignRead = max(state.foreignBefore, foreignSeen)
        (state.foreignOthers, state.foreignNewest) = (foreignWrites, foreignNewest)
        for index in pairs.indices { state.tables[index].hasOverflow = suspects.overflown.contains(index) }
        try await leaveMark()
        let wasBroken = state.broken != nil
        state.broken = state.broken ?? soundness.lastingFailure
        // A verdict may rest on a state that is complete, and none on one that is broken: no older one may come back.
        try stateWriter.save(state, &dirty, &suspects, asWhole: state.isComplete || wasBroken != (state.broken != nil))
        hasWrittenState = true
    }

    func restart(_ index: Int) throws(BridgeError) {
        try differenceFile?.remove(table: index)
        state.tables[index].next = nil
        state.tables[index].isDone = false
        state.tables[index].chunks = ChunkMap()
        state.tables[index].report = CheckReport.Table(
            source: pairs[index].mapping.source.description, target: pairs[index].mapping.target.description,
            status: .consistent)
        suspects.clear(index)
    }
}
