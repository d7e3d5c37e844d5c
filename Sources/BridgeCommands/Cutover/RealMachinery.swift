import BridgeConsistency
import BridgeCore
import BridgeCutover
import BridgeReplication
import Logging

/// What a cutover needs of links, checks, hooks and files, done by the real ones.
struct RealMachinery: CutoverMachinery {
    let configuration: Configuration
    let directions: CutoverDirections
    let links: any KeptLinks
    let maxPause: Duration
    let logger: Logger

    func prepareReverse() async throws(BridgeError) {
        let deadline = ContinuousClock.now + configuration.cutover.timeout
        var hasWarned = false
        while true {
            do throws(BridgeError) { return try await directions.reversePreparation(configuration, logger).prepare() } catch where error.retry == .backoff {
                // Older transactions on the target, such as a large one that is being applied, end soon.
                guard ContinuousClock.now < deadline else { throw error }
                if !hasWarned { logger.warning("the way back waits: \(ErrorRenderer.headline(error))") }
                hasWarned = true
                try? await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    func waitUntilStreaming(_ direction: LinkDescription.Direction, patience: Duration) async throws(BridgeError) {
        try await links.waitUntilStreaming(direction, patience: patience)
    }

    func openCheck(_ direction: LinkDescription.Direction, services: [String]) async throws(BridgeError) -> any FencedCheck {
        PreparedCheck(try directions.fenceCheck(direction, services: services, configuration, logger))
    }

    func noteServed(_ direction: LinkDescription.Direction) async throws(BridgeError) {
        try await directions.noteServed(direction, configuration)
    }

    func runHook(_ moment: HookMoment, for event: HookEvent) async throws(BridgeError) {
        guard let command = configuration.cutover.hooks[moment] else { return }
        let hook = HookCommand(
            command: command, timeout: configuration.cutover.hookTimeout,
            environment: [
                "BRIDGE_MIGRATION": configuration.migration, "BRIDGE_ATTEMPT": event.attempt, "BRIDGE_EPOCH": "\(event.epoch)",
                "BRIDGE_STEP": moment.rawValue, "BRIDGE_DIRECTION": event.goal.rawValue,
                "BRIDGE_SERVICES": event.services.joined(separator: ","), "BRIDGE_READS": event.reads.rawValue,
                "BRIDGE_WRITES": event.writes.rawValue, "BRIDGE_LEASE_SECONDS": "\(leaseSeconds)",
            ])
        try await BlockingWork().run { () throws(BridgeError) in try hook.run() }
    }

    /// After how long whoever held clients back may let them go by himself: twice what the pause may take, and some.
    private var leaseSeconds: Int64 { maxPause.components.seconds * 2 + 5 }

    func publishFile(_ routes: [Route]) async throws(BridgeError) {
        let file = RoutingFile(path: configuration.routingFile)
        let migration = configuration.migration
        try await BlockingWork().run { () throws(BridgeError) in try file.write(migration, routes) }
    }
}

/// The links, kept at work by this process or by another one.
protocol KeptLinks: Sendable {
    func waitUntilStreaming(_ direction: LinkDescription.Direction, patience: Duration) async throws(BridgeError)
    func stop() async
}
