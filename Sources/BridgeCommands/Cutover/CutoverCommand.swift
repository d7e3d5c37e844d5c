import ArgumentParser
import BridgeCore
import BridgeCutover
import Foundation

struct CutoverCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cutover", abstract: "Move the application over, one reversible step at a time.",
        discussion: """
            Reads first, writes later: switch-reads, then switch-writes. Until 'complete', 'rollback' goes back without \
            losing a write. Each verb asks its gates first, prints its steps with their times, and says what can be done \
            next; run again after a crash, it finishes or undoes what was begun.

            Each works beside a running 'bridge run', or without one: it then keeps the links at work itself meanwhile.
            """,
        subcommands: [
            CutoverStatusCommand.self, CutoverVerbCommand<Rehearse>.self, CutoverVerbCommand<SwitchReads>.self,
            CutoverVerbCommand<SwitchWrites>.self, CutoverVerbCommand<Rollback>.self, CutoverVerbCommand<Resume>.self,
            CutoverVerbCommand<Complete>.self, CutoverVerbCommand<Cancel>.self,
        ])
}

/// What all verbs take.
struct CutoverOptions: ParsableArguments {
    @Option(
        name: .customLong("service"),
        help: ArgumentHelp("Only this service; may be given more than once. (default: all, which move together)", valueName: "name"))
    var services: [String] = []
    @Flag(name: .customLong("dry-run"), help: "Say what would be done, and change nothing anywhere.")
    var isDryRun = false
    @Option(help: ArgumentHelp("How long may be waited outside the pause. (default: cutover.timeout)", valueName: "duration"))
    var timeout: String?
    @Option(name: .customLong("max-lag"), help: ArgumentHelp("Limit of the gate. (default: cutover.max_lag)", valueName: "duration"))
    var maxLag: String?
    @Option(
        name: .customLong("max-pause"),
        help: ArgumentHelp("A pause that gets longer is given up. (default: cutover.max_pause)", valueName: "duration"))
    var maxPause: String?
    @Option(
        name: .customLong("override"),
        help: ArgumentHelp("Pass this gate although it is shut; may be given more than once, with --reason.", valueName: "gate"))
    var overrides: [String] = []
    @Option(help: ArgumentHelp("Why a gate is passed; it stands in the ledger.", valueName: "text"))
    var reason: String?

    func validate() throws {
        for name in overrides where Gate.Name(rawValue: name) == nil {
            let known = Gate.Name.allCases.map(\.rawValue)
            let nearest = nearestName(to: name, in: known).map { "; did you mean \($0)?" } ?? ""
            throw ValidationError("--override must be one of \(known.joined(separator: ", "))\(nearest)")
        }
        if !overrides.isEmpty, reason?.trimmingCharacters(in: .whitespaces).isEmpty ?? true {
            throw ValidationError("--override needs a --reason, which stands in the ledger")
        }
    }

    func request() throws(BridgeError) -> CutoverRequest {
        var request = CutoverRequest()
        request.services = services
        request.isDryRun = isDryRun
        request.timeout = try duration(timeout, "--timeout")
        request.maxLag = try duration(maxLag, "--max-lag")
        request.maxPause = try duration(maxPause, "--max-pause")
        for name in overrides { if let gate = Gate.Name(rawValue: name) { request.overrides[gate] = reason } }
        return request
    }

    private func duration(_ text: String?, _ option: String) throws(BridgeError) -> Duration? {
        guard let text else { return nil }
        do throws(Quantity.Malformed) {
            let duration = try Quantity.duration(text)
            guard duration > .zero else { throw Quantity.Malformed(reason: "is nothing", example: "2s") }
            return duration
        } catch {
            throw BridgeError(.usage, "\(option) \(error.reason)", hint: "write \(error.example)")
        }
    }
}

/// A verb as a type, which is how ArgumentParser tells commands apart.
protocol CutoverVerbType {
    static var verb: CutoverVerb { get }
}

enum Rehearse: CutoverVerbType { static let verb = CutoverVerb.rehearse }
enum SwitchReads: CutoverVerbType { static let verb = CutoverVerb.switchReads }
enum SwitchWrites: CutoverVerbType { static let verb = CutoverVerb.switchWrites }
enum Rollback: CutoverVerbType { static let verb = CutoverVerb.rollback }
enum Resume: CutoverVerbType { static let verb = CutoverVerb.resume }
enum Complete: CutoverVerbType { static let verb = CutoverVerb.complete }
enum Cancel: CutoverVerbType { static let verb = CutoverVerb.cancel }

extension CutoverVerb {
    /// What it is for, in its help.
    var abstract: String {
        switch self {
        case .rehearse: "Do all of switch-writes up to the point of no return, go back, and tell the pause."
        case .switchReads: "Let the application read from the target; it still writes to the source."
        case .switchWrites: "Let the application write to the target, with a way back."
        case .rollback: "Take back the last switch: of writes, then of reads. No write is lost."
        case .resume: "Finish, or undo, what a killed process left: it finds out which."
        case .complete: "End the migration on the target, and remove everything that was made for it."
        case .cancel: "End the migration on the source, going back first, and remove everything that was made for it."
        }
    }
}

/// A verb that changes something. All of them take the same.
struct CutoverVerbCommand<Verb: CutoverVerbType>: BridgeSubcommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: Verb.verb.rawValue, abstract: Verb.verb.abstract)
    }
    @OptionGroup var global: GlobalOptions
    @OptionGroup var options: CutoverOptions
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        signal(SIGPIPE, SIG_IGN)
        let configuration = try context.configuration()
        let request = try options.request()
        let isJSON = json.isOn
        if let ended = try await EndedMigration.find(configuration, context.registry) {
            return show(try await ended.finish(Verb.verb, configuration, isDryRun: request.isDryRun), context)
        }
        let stage = try await CutoverStage.open(configuration, context.registry, request, logger: context.logger)
        let procedure = CutoverProcedure(stage, Verb.verb, request, lines: CutoverLines(style: context.style)) { line in
            if !isJSON { Console.shared.out(line) }
        }
        let stopping = StopRequest(status: .interrupted, finishing: "step", logger: context.logger)
        SignalWatcher.shared.watch { stopping.request() }
        stopping.attach { procedure.stop() }
        let result: Result<CutoverReport, BridgeError>
        do throws(BridgeError) { result = .success(try await procedure.run()) } catch { result = .failure(error) }
        await stage.close()
        return show(try result.get(), context)
    }

    private func show(_ report: CutoverReport, _ context: CommandContext) -> ExitStatus {
        guard !json.isOn else {
            Console.shared.out(report.json.pretty)
            return report.exitStatus
        }
        let lines = CutoverLines(style: context.style)
        if let reason = report.reason { Console.shared.out(Printable.text(reason)) }
        if let pause = report.pause { Console.shared.out("pause: \(lines.milliseconds(pause))") }
        if let standing = report.standing { for line in lines.standing(standing) { Console.shared.out(line) } }
        for file in report.deadLetterFiles { Console.shared.out("kept: the changes that were passed over, in \(file)") }
        for step in report.nextSteps { Console.shared.out("next: \(step)") }
        return report.exitStatus
    }
}

struct CutoverStatusCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Where each service is, what the databases show, and what differs from the ledger.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let configuration = try context.configuration()
        if let ended = try await EndedMigration.find(configuration, context.registry) {
            let report = ended.report("status", configuration)
            context.report(json: json, report.json, [report.reason ?? ""])
            return .done
        }
        let stage = try await CutoverStage.open(configuration, context.registry, CutoverRequest(), isReading: true, logger: context.logger)
        let result: Result<Standing, BridgeError>
        do throws(BridgeError) { result = .success(try await Standing.read(stage.setup)) } catch { result = .failure(error) }
        await stage.close()
        var report = CutoverReport(verb: "status", migration: configuration.migration)
        report.standing = try result.get()
        report.nextSteps = CutoverProcedure.nextSteps(report)
        let lines = CutoverLines(style: context.style)
        context.report(
            json: json, report.json,
            (report.standing.map(lines.standing) ?? []) + report.nextSteps.map { "next: \($0)" })
        return .done
    }
}
