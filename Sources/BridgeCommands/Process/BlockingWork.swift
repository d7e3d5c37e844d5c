import BridgeCore

/// Runs blocking work on a thread of its own.
actor BlockingWork {
    private nonisolated let executor = ThreadExecutor(name: "blocking")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    func run<Result: Sendable>(_ body: @Sendable () throws(BridgeError) -> Result) throws(BridgeError) -> Result {
        try body()
    }
}
