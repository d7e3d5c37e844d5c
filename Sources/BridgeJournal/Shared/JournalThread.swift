import BridgeCore

/// Runs blocking work on a thread of its own, before there is an actor that it belongs to.
actor JournalThread {
    nonisolated let executor: ThreadExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(name: String) { executor = ThreadExecutor(name: name) }

    func run<Result: Sendable>(
        _ work: @Sendable () throws(BridgeError) -> Result
    ) throws(BridgeError) -> Result {
        try work()
    }
}
