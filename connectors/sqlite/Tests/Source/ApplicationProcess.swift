import BridgeTestSupport
import Foundation

/// An application in a process of its own: Python's sqlite3, whose connection does what the script says and counts its errors
/// by SQLite's name. It ends when the script does.
struct ApplicationProcess {
    private let child: ChildProcess

    /// - Parameter script: has `connection`, in autocommit mode; `busy`, a Counter; `attempt(sql)`, which counts a refusal
    ///   and returns whether there was none; `random`; and `time`.
    init(_ database: TestDatabase, timeout: Double, script: String) throws {
        let prelude = """
            import collections, random, sqlite3, sys, time
            connection = sqlite3.connect(sys.argv[1], timeout=\(timeout), isolation_level=None)
            busy = collections.Counter()
            def attempt(sql):
                try:
                    connection.execute(sql).fetchall()
                    return True
                except sqlite3.OperationalError as error:
                    busy[getattr(error, 'sqlite_errorname', str(error))] += 1
                    if connection.in_transaction: connection.execute('ROLLBACK')
                    return False

            """
        child = try ChildProcess(
            ["python3", "-c", prelude + script + "\nprint('busy', sum(busy.values()), dict(busy))\n", database.path])
    }

    var output: String { child.outputSoFar }

    var hasEnded: Bool { output.contains("busy ") }

    /// What it printed last: `busy 0 {}` if nothing was refused.
    func wait() async throws -> String {
        let outcome = await child.wait()
        guard outcome.status == 0 else { throw ChildProcess.Failure(outcome.errors) }
        return outcome.output.split(separator: "\n").last.map(String.init) ?? ""
    }
}
