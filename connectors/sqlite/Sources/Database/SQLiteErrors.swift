package import BridgeCore
import CSQLite

extension BridgeError {
    /// The one place where SQLite's result codes become errors of this product.
    ///
    /// SQLite's own message is added as detail: for constraints it names tables and columns, never values.
    /// - Parameter what: one sentence, lower case, about what was being done.
    package static func sqlite(_ result: Int32, _ handle: OpaquePointer?, path: String, doing what: String)
        -> BridgeError
    {
        var detail = String(cString: sqlite3_errstr(result))
        // The handle's message belongs to its last call, which is not always the one that gave the result.
        if let handle, sqlite3_extended_errcode(handle) == result || sqlite3_errcode(handle) == result & 0xFF {
            detail = String(cString: sqlite3_errmsg(handle))
        }
        var context: [ErrorContext] = [.init(.file, path), .init(.detail, detail)]
        var hint: String?
        let code: ErrorCode
        switch result & 0xFF {
        case SQLITE_BUSY, SQLITE_LOCKED: code = .serverBusy
        case SQLITE_FULL: code = .diskFull
        case SQLITE_IOERR, SQLITE_NOLFS, SQLITE_PROTOCOL: code = .inputOutput
        case SQLITE_CORRUPT:
            code = .sourceUnsupported
            hint = "the file is damaged: run PRAGMA integrity_check on it and restore it from a backup"
        case SQLITE_NOTADB:
            code = .sourceUnsupported
            hint = "the file is not an SQLite database, or it is encrypted"
        case SQLITE_READONLY where result == bridge_sqlite_readonly_dbmoved: code = .sourceReplaced
        case SQLITE_READONLY, SQLITE_PERM, SQLITE_AUTH:
            code = .rightsMissing
            hint = "allow this user to write the file and the folder that it is in"
        case SQLITE_CANTOPEN:
            code = .serverUnreachable
            hint = "check the path, and that this user may read and write the file and its folder"
        case SQLITE_CONSTRAINT: code = .changeRefused
        case SQLITE_TOOBIG, SQLITE_MISMATCH, SQLITE_RANGE: code = .valueDoesNotFit
        case SQLITE_INTERRUPT, SQLITE_ABORT: code = .interrupted
        case SQLITE_NOMEM, SQLITE_MISUSE, SQLITE_INTERNAL: code = .internalFault
        case SQLITE_SCHEMA: code = .serverBusy
        default: code = .serverRefused
        }
        context.append(.init(.sqlstate, "SQLITE \(result)"))
        return BridgeError(code, what, context: context, hint: hint)
    }
}
