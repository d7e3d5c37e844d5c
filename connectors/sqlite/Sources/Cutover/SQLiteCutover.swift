package import BridgeCore

extension SQLiteSource {
    package func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        try await openSQLiteCutover(path: resolvedPath, migration: migration)
    }
}

extension SQLiteTarget {
    package func openCutover(migration: String) async throws(BridgeError) -> any CutoverSession {
        try await openSQLiteCutover(path: path, migration: migration)
    }
}

private func openSQLiteCutover(path: String, migration: String) async throws(BridgeError) -> any CutoverSession {
    let session = SQLiteCutoverSession(path: path, migration: migration)
    try await session.open()
    return session
}
