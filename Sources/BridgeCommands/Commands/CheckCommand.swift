import ArgumentParser
import BridgeConsistency
import BridgeCore
import Foundation

struct CheckCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Compare both sides and say whether they are the same.",
        discussion: """
            Compares every row of both sides at one position while writes go on, beside a running 'bridge run', or \
            without one: it then keeps the target in sync itself for as long as it takes. Exits with 0 when both sides \
            are consistent, with 1 when they are not, and with 2 when that cannot be told.

            Values of rows are shown only with --show-values. The reports of the last 100 checks stay in data_dir/checks.
            """)

    enum Mode: String, CaseIterable, ExpressibleByArgument {
        case full, incremental, sample

        var value: CheckReport.Mode {
            switch self {
            case .full: .full
            case .incremental: .incremental
            case .sample: .sample
            }
        }
    }

    @OptionGroup var global: GlobalOptions
    @Option(help: ArgumentHelp("How much is compared. (default: full)", valueName: "mode"))
    var mode: Mode?
    @Option(
        name: .customLong("table"),
        help: ArgumentHelp("Only this table, by the source's name; may be given more than once.", valueName: "table"))
    var tables: [String] = []
    @Flag(help: "Write the source's row to the target where they differ.")
    var repair = false
    @Flag(name: .customLong("show-values"), help: "Put the values of rows that differ into the report, up to 16 KB of each.")
    var showValues = false
    @Option(help: ArgumentHelp("How many differing rows of a table are named. (default: 10)", valueName: "n"))
    var samples: Int?
    @Option(
        name: .customLong("differences"),
        help: ArgumentHelp("Write the keys of all rows that are found to differ to this file, one JSON object a line.", valueName: "file"), completion: .file())
    var differencesFile: String?
    @Option(
        name: .customLong("equal"),
        help: ArgumentHelp(
            "Let a difference pass and count it: \(EqualityPolicies.knownNames.joined(separator: ", ")); may be given more than once.",
            valueName: "policy"))
    var equal: [String] = []
    @Option(
        name: .customLong("sample-rows"),
        help: ArgumentHelp("How many rows a sample draws from either side of a table. (default: 1000)", valueName: "n"))
    var sampleRows: Int?
    @Option(
        name: .customLong("sample-seed"),
        help: ArgumentHelp("Draw the rows of a sample as another check did: its report has the number.", valueName: "n"))
    var sampleSeed: UInt64?
    @Option(name: .customLong("chunk-rows"), help: .hidden)
    var chunkRows: Int?
    @Flag(help: "List the last checks instead.")
    var history = false
    @Flag(help: "Print the JSON Schema of the report instead.")
    var schema = false
    @OptionGroup var json: JSONOption

    func validate() throws {
        if let samples, !(0...10_000).contains(samples) { throw ValidationError("--samples must be from 0 to 10000") }
        if let chunkRows, !(1...10_000_000).contains(chunkRows) {
            throw ValidationError("--chunk-rows must be from 1 to 10000000")
        }
        if let sampleRows, !(1...1_000_000).contains(sampleRows) {
            throw ValidationError("--sample-rows must be from 1 to 1000000")
        }
        for name in equal where EqualityPolicies(name: name) == nil {
            let known = EqualityPolicies.knownNames
            let nearest = nearestName(to: name, in: known).map { "; did you mean \($0)?" } ?? ""
            throw ValidationError("--equal must be one of \(known.joined(separator: ", "))\(nearest)")
        }
        let checks =
            mode != nil || !tables.isEmpty || repair || showValues || samples != nil || differencesFile != nil
            || chunkRows != nil || !equal.isEmpty || sampleRows != nil || sampleSeed != nil
        if history, schema { throw ValidationError("--history and --schema exclude each other") }
        if checks, history || schema {
            throw ValidationError("--\(history ? "history" : "schema") makes no check, so it stands alone")
        }
        if repair, mode == .sample { throw ValidationError("--repair and --mode sample exclude each other") }
    }

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        if schema {
            Console.shared.out(CheckReportSchema.text)
            return .done
        }
        let configuration = try context.configuration()
        if history { return try await list(DataDirectory(configuration.dataDirectory), context) }

        signal(SIGPIPE, SIG_IGN)
        var request = try request()
        let sides = try await writingSides(configuration, context.registry)
        let isBack = sides == WritingSides(.target)
        if let sides, !isBack, request.tables.isEmpty, let tables = sides.tables(.forward) {
            // Services that have moved are another direction's, and a check of their own.
            context.logger.notice("only the tables that the application writes on the source are checked")
            request.tables = tables.map(\.description)
            request.buildsOnWhole = request.mode == .incremental
        }
        let migration = try Migration(configuration, registry: context.registry, direction: isBack ? .reverse : .forward)
        let stopping = StopRequest(status: .interrupted, finishing: "chunk", logger: context.logger)
        SignalWatcher.shared.watch { stopping.request() }
        let runner = CheckProcedure(migration: migration, logger: context.logger)
        let outcome = try await runner.run(request) { stopping.attach($0) }
        // For people an error says all that there is to say.
        if json.isOn || outcome.report.verdict != .error || outcome.error == nil {
            context.report(json: json, outcome.report.json, outcome.report.lines(context.style))
        }
        if let error = outcome.error { throw error }
        return outcome.report.exitStatus
    }

    /// Where the application writes, which is what the other side is compared to; nil while that is not certain.
    private func writingSides(
        _ configuration: Configuration, _ registry: ConnectorRegistry
    ) async throws(BridgeError) -> WritingSides? {
        // Without a way back it writes nowhere else.
        let folder = DataDirectory(configuration.dataDirectory).linkDirectory(.reverse)
        guard FileManager.default.fileExists(atPath: folder) else { return nil }
        return try await WritingSides.read(configuration, registry)
    }

    private func list(_ directory: DataDirectory, _ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let entries = try await BlockingWork().run { () throws(BridgeError) in try CheckHistory(directory).entries() }
        context.report(json: json, CheckHistory.json(entries), CheckHistory.lines(entries, context.style))
        return .done
    }

    private func request() throws(BridgeError) -> CheckSession.Request {
        var request = CheckSession.Request()
        request.mode = mode?.value ?? .full
        request.tables = tables
        request.repair = repair
        request.showValues = showValues
        request.samples = samples ?? request.samples
        request.chunkRows = chunkRows
        request.equal = equal.reduce(into: []) { $0.formUnion(EqualityPolicies(name: $1) ?? []) }
        request.sampleRows = sampleRows ?? request.sampleRows
        request.sampleSeed = sampleSeed
        if let differencesFile {
            let path = absolute(differencesFile, in: FileManager.default.currentDirectoryPath)
            var isFolder: ObjCBool = false
            let folder = (path as NSString).deletingLastPathComponent
            let hasFolder = FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder) && isFolder.boolValue
            let isTaken = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && isFolder.boolValue
            guard hasFolder, !isTaken else {
                throw BridgeError(
                    .usage, "the differences cannot be written there", context: [.init(.file, path)],
                    hint: "name a file in a folder that exists")
            }
            request.differencesFile = path
        }
        return request
    }
}
