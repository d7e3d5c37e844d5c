import BridgeCore
import Synchronization

/// The connection of a view that was closed, for the next one: a new session would have to read the whole catalog again.
final class SpareConnection: Sendable {
    /// Whoever takes it is the only one that has it.
    private struct Held: @unchecked Sendable {
        var connection: PostgresConnection
    }
    private let held = Mutex<Held?>(nil)

    /// A connection that is alive and in no transaction; nil if there is none.
    func take() -> PostgresConnection? {
        let last = held.withLock { held in
            defer { held = nil }
            return held
        }
        guard let connection = last?.connection, connection.isAlive() else { return nil }
        return connection
    }

    /// Ends the transaction and keeps the connection, unless anything went wrong with it. The caller gives it away.
    func keep(_ connection: PostgresConnection) {
        guard !connection.isBroken, connection.copyState == .none, !connection.interrupter.isSignalled,
            connection.isInTransaction
        else { return }
        do throws(BridgeError) { try connection.execute("ROLLBACK") } catch { return }
        let kept = Held(connection: connection)
        held.withLock { $0 = kept }
    }
}
