import BridgeCore

/// The end of the source's log as a position that capture reaches.
enum LogMark {
    /// Tells the messages of bridge from others.
    static let prefix = "bridge"

    /// Writes an empty message into the log and gives the place behind it.
    ///
    /// Reading `pg_current_wal_insert_lsn()` would not do, because capture might never reach it on an idle server: it
    /// may point behind a page header that no record follows yet, or behind records of an open transaction that nothing
    /// flushes, while the server reports no more than the end of the last record that it has flushed and decoded. The
    /// message gives a record that ends exactly here; the transaction number makes its commit write and flush a record
    /// of its own, so everything up to here is sent, or passed over with a keepalive, at once. Capture leaves the message
    /// out of the journal, as it stands outside of transactions, and says that the frontier is awaited.
    static func write(_ session: PostgresConnection) throws(BridgeError) -> Position {
        let position = try session.inTransaction { () throws(BridgeError) in
            try session.execute("SET LOCAL synchronous_commit = local")
            return try session.rows(
                "SELECT pg_logical_emit_message(false, '\(prefix)', ''), pg_current_xact_id()", during: "marking the log"
            ).first?[0]
        }
        guard let number = LogSequenceNumber.parse(position) else {
            throw BridgeError(.serverRefused, "the server did not say where its log ends")
        }
        return Position(commit: number)
    }
}
