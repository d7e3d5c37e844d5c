import BridgeCore

/// Applies a link's changes to a SQLite file, on a thread of its own.
actor SQLiteApplier: ChangeApplier {
    private let executor = ThreadExecutor(name: "sqlite-apply")
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    private let path: String
    private let link: LinkDescription
    private let busyTimeout: Int32
    private let policy: ConflictPolicy
    private var lock: LinkLock?
    private var replay: BatchReplay?

    init(path: String, link: LinkDescription, busyTimeout: Int32, policy: ConflictPolicy) {
        self.path = path
        self.link = link
        self.busyTimeout = busyTimeout
        self.policy = policy
    }

    /// - Throws: `alreadyRunning` if the link's changes are being applied already.
    func open(_ lock: LinkLock) throws(BridgeError) {
        try lock.beginApplying()
        self.lock = lock
        do throws(BridgeError) {
            try connect()
        } catch {
            release()
            throw error
        }
    }

    private func connect() throws(BridgeError) {
        let connection = try TargetConnection(path: path, creating: false, busyTimeout: busyTimeout)
        try connection.preferWAL(for: link)
        replay = try BatchReplay(connection, link: link, policy: policy)
    }

    func apply(_ batch: ChangeBatch) async throws(BridgeError) {
        guard let replay else { throw BridgeError(.internalFault, "the applier is closed") }
        try replay.apply(batch)
    }

    func rollback() async throws(BridgeError) {
        replay?.rollback()
    }

    func close() async {
        replay?.rollback()
        release()
    }

    private func release() {
        replay = nil
        lock?.endApplying()
        lock = nil
    }
}
