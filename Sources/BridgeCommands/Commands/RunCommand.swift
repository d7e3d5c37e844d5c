import ArgumentParser
import BridgeCore
import BridgeReplication
import Foundation

struct RunCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Copy the tables, then keep the target in sync, until stopped.",
        discussion: """
            Whatever moment it is stopped or killed at, running it again goes on where it stopped. The first SIGINT or \
            SIGTERM finishes the batch and exits with 0; a second one exits at once with 130.

            Once 'bridge check' has compared everything, the run goes on checking what changes, three times within \
            check.max_age; 'bridge status' shows the verdict.

            While a cutover has made the way back, from the target to the source, the run carries it too. Where there are \
            two links, one that fails is tried again and the other goes on. The run ends with 0 when the migration was \
            completed or cancelled.

            With --until-caught-up it exits with 0 as soon as everything that was committed on the source at some \
            moment after the copy is on the target, for each link there is, and with 130 if a signal came first.
            """)

    @OptionGroup var global: GlobalOptions
    @Flag(name: .customLong("until-caught-up"), help: "Stop when the target has caught up.")
    var untilCaughtUp = false
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        signal(SIGPIPE, SIG_IGN)
        let configuration = try context.configuration()
        if let ended = try await EndedMigration.find(configuration, context.registry) { throw ended.refusal(configuration) }
        let migration = try Migration(configuration, registry: context.registry)
        let isFirst = !FileManager.default.fileExists(atPath: migration.directory.path)
        try migration.directory.create()
        var hasBegun = false
        defer { if isFirst, !hasBegun { migration.directory.removeIfUnused() } }
        let lock = try DirectoryLock(migration.directory)
        defer { withExtendedLifetime(lock) {} }

        let stopping = StopRequest(status: untilCaughtUp ? .interrupted : .done, logger: context.logger)
        SignalWatcher.shared.watch { stopping.request() }
        // A run that ends by itself is over before a check of what it brings would be.
        let checks = untilCaughtUp ? nil : BackgroundChecks(migration.configuration, context.registry, logger: context.logger)
        var options = LinkSupervisor.Options()
        options.policy.untilCaughtUp = untilCaughtUp
        let links = LinkSupervisor(
            migration.configuration, context.registry, options: options, checks: checks, logger: context.logger)
        stopping.attach { links.stop() }
        let display = RunDisplay(style: context.errorStyle, logger: context.logger)
        let outcome = await links.run { display.show($0) }
        display.finish()
        let ending = try outcome.get()
        hasBegun = true
        if json.isOn { Console.shared.out(Self.summary(links, ending).pretty) }
        switch ending {
        case .caughtUp: context.logger.notice("the target has caught up")
        case .over:
            context.logger.notice("the migration was completed or cancelled: neither database holds anything of it any more")
        case .stopped:
            if untilCaughtUp { throw BridgeError(.interrupted, "stopped before the target had caught up") }
        }
        return .done
    }

    /// What the run did, for `--json`. What stands outside `links` is about the way forward.
    private static func summary(_ links: LinkSupervisor, _ ending: LinkEnding) -> JSONValue {
        let forward = links.progress(.forward)
        return .object([
            .init(name: "format_version", value: 1),
            .init(name: "phase", value: .string((forward?.phase ?? .preparing).rawValue)),
            .init(name: "caught_up", value: .bool(ending == .caughtUp)),
            .init(name: "over", value: .bool(ending == .over)),
            .init(name: "rows_copied", value: .integer(forward?.tables.reduce(0) { $0 + $1.rowsDone } ?? 0)),
        ] + figures(forward) + [
            .init(name: "links", value: .array(
                [LinkDirection.forward, .reverse].compactMap { direction in
                    links.progress(direction).map { progress in
                        .object([.init(name: "direction", value: .string(direction.rawValue))] + figures(progress))
                    }
                })),
        ])
    }

    private static func figures(_ progress: LinkProgress?) -> [JSONValue.Member] {
        [
            .init(name: "rows_applied", value: .integer(progress?.rowsApplied ?? 0)),
            .init(name: "transactions_applied", value: .integer(progress?.transactionsApplied ?? 0)),
            .init(name: "applied_position", value: .string((progress?.applied ?? .zero).storedForm)),
            .init(name: "reconnects", value: .integer(Int64(progress?.reconnects ?? 0))),
        ]
    }
}
