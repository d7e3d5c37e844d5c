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

            With --until-caught-up it exits with 0 as soon as everything that was committed on the source at some \
            moment after the copy is on the target, and with 130 if a signal came first.
            """)

    @OptionGroup var global: GlobalOptions
    @Flag(name: .customLong("until-caught-up"), help: "Stop when the target has caught up.")
    var untilCaughtUp = false
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        signal(SIGPIPE, SIG_IGN)
        let migration = try Migration(try context.configuration(), registry: context.registry)
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
        let session = try await RunSession.prepare(migration, checks: checks, logger: context.logger)
        stopping.attach { session.stop() }
        let display = RunDisplay(style: context.errorStyle, logger: context.logger)
        let outcome = await session.run(untilCaughtUp: untilCaughtUp) { display.show($0) }
        display.finish()
        await migration.close()
        let hasCaughtUp = try outcome.get()
        hasBegun = true
        if json.isOn { Console.shared.out(session.summary(hasCaughtUp: hasCaughtUp).pretty) }
        guard hasCaughtUp || !untilCaughtUp else {
            throw BridgeError(.interrupted, "stopped before the target had caught up")
        }
        if hasCaughtUp { context.logger.notice("the target has caught up") }
        return .done
    }
}
