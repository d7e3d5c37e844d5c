import BridgeTestSupport

/// A database in which a test can change rows as if nobody had: no trigger fires, nothing is recorded.
package protocol PlantingDatabase: Sendable {
    /// Runs statements unseen by triggers.
    func plant(_ sql: String) async throws
}

extension PostgreSQLDatabase: PlantingDatabase {
    package func plant(_ sql: String) async throws {
        try await cluster.psql(url, "SET session_replication_role = replica; \(sql)")
    }
}

extension SQLiteFile: PlantingDatabase {
    package func plant(_ sql: String) async throws {
        let path = String(url.dropFirst("sqlite:".count))
        // The shell prints the setting's new value.
        try await ChildProcess.run(
            ["sqlite3", "-batch", "-bail", path],
            input: ".timeout 30000\n.dbconfig enable_trigger off\n.dbconfig enable_fkey off\n\(sql);\n")
    }
}
