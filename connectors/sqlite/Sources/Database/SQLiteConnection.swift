package import BridgeCore

/// A connection together with the statements that its owner keeps compiled: a place on the heap for ``SQLiteDatabase``,
/// which cannot be copied. Not Sendable: it never leaves the actor or thread that opened it.
package final class SQLiteConnection {
    package let database: SQLiteDatabase

    package init(path: String, access: SQLiteDatabase.Access, busyTimeout: Int32) throws(BridgeError) {
        database = try SQLiteDatabase(path: path, access: access, busyTimeout: busyTimeout)
    }
}
