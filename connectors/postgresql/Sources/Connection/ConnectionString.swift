package import BridgeCore
import CLibPQ

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Where a server is and how to log in: a URI or libpq's `key=value` words. Holds a password; is never printed.
package struct ConnectionString: Sendable {
    /// As given.
    let text: String
    /// Host, port and database for people.
    package let displayName: String
    /// The database, as far as the string or the environment names it.
    package let database: String?
    /// Options of the session that the string brings along.
    let options: String?
    /// How long to wait for a connection.
    let connectTimeout: Duration
    /// For how long a server may say nothing while something is awaited from it, before it is asked over another
    /// connection whether it is still at it: twice `tcp_user_timeout`, a minute unless that says otherwise.
    let silenceLimit: Duration

    /// - Throws: `configurationInvalid`. libpq's own message could quote the password, so it is not shown.
    package init(_ text: String) throws(BridgeError) {
        guard let parsed = PQconninfoParse(text, nil) else {
            throw BridgeError(
                .configurationInvalid, "the PostgreSQL connection string cannot be read",
                hint: "write it as postgresql://user@host:5432/database, with special characters percent-encoded")
        }
        defer { PQconninfoFree(parsed) }
        var values: [String: String] = [:]
        var option = parsed
        while let keyword = option.pointee.keyword {
            if let value = option.pointee.val {
                values[String(cString: keyword)] = String(cString: value)
            } else if let variable = option.pointee.envvar, let value = getenv(variable) {
                values[String(cString: keyword)] = String(cString: value)
            }
            option += 1
        }
        self.text = text
        let database = values["dbname"] ?? values["user"]
        self.database = database
        let host = values["host"] ?? values["hostaddr"] ?? "localhost"
        displayName = "\(host):\(values["port"] ?? "5432")/\(database ?? "")"
        options = values["options"]
        let seconds = values["connect_timeout"].flatMap { Int($0) } ?? 10
        // 0 means for ever to libpq; here an hour, since nothing may wait without an end.
        connectTimeout = .seconds(seconds <= 0 ? 3_600 : min(seconds, 3_600))
        let milliseconds = values["tcp_user_timeout"].flatMap { Int($0) } ?? 0
        silenceLimit = .milliseconds(2 * (milliseconds <= 0 ? 30_000 : min(milliseconds, 1_800_000)))
    }
}
