import BridgeCore
import BridgeTestSupport

@testable import BridgeSQLite

/// Capture for the fuzz: reads, acknowledgements, prunings and sessions happen when the history says so, on one thread.
final class FuzzCapture {
    private let path: String
    private let link: LinkDescription
    private let connection: SQLiteConnection
    private let origin: CaptureOrigin
    private var mailbox: KeeperMailbox
    private var reader: LogReader
    private var keeper: LogWriter
    /// Behind the last transaction that was delivered whole, or moved by a frontier.
    private var durable: Position

    init(_ database: TestDatabase, _ link: LinkDescription) throws {
        path = database.path
        self.link = link
        connection = try SQLiteConnection(path: database.path, access: .readWrite, busyTimeout: 5_000)
        try connection.database.execute("PRAGMA synchronous=OFF")
        let (nonce, position) = try CaptureInstaller(link).install(connection.database, replacingLeftovers: true)
        origin = CaptureOrigin(identity: ["epoch": nonce], position: position)
        durable = position
        (mailbox, reader, keeper) = try Self.open(path, link, origin, position, connection)
    }

    private static func open(
        _ path: String, _ link: LinkDescription, _ origin: CaptureOrigin, _ durable: Position, _ connection: SQLiteConnection
    ) throws -> (KeeperMailbox, LogReader, LogWriter) {
        let claim = try CaptureOpening(link: link, origin: origin, path: path).claim(connection.database, durable: durable)
        let mailbox = KeeperMailbox(requested: claim.durable, confirmed: claim.acknowledgements, safeLeap: claim.leap ?? 0)
        let reader = try LogReader(
            path: path, link: link, nonce: claim.nonce, session: claim.session, durable: claim.durable, mailbox: mailbox)
        return (mailbox, reader, try LogWriter(path: path, names: CaptureNames(link), session: claim.session))
    }

    /// Reads once.
    /// - Returns: whether what was read ends at a committed state.
    func read(into buffer: RecordBuffer, limit: Int) throws -> Bool {
        var progress = CaptureProgress(frontier: .zero)
        _ = try reader.read(into: buffer, limit: limit, progress: &progress)
        if !progress.isInsideTransaction { durable = progress.frontier }
        return !progress.isInsideTransaction
    }

    /// What the keeper does in a quiet moment: tells the source what was taken, leaps, and prunes all of it. Nothing
    /// happens while somebody writes.
    func acknowledge() throws {
        let position = Int64(durable.commit)
        guard let outcome = try keeper.acknowledge(position, portion: LogKeeper.pruneRows, sparing: false) else { return }
        mailbox.state.withLock {
            $0.confirmed = outcome.acknowledgements
            $0.safeLeap = outcome.leap ?? $0.safeLeap
        }
        while let more = try keeper.prune(position, portion: LogKeeper.pruneRows, sparing: false), more > 0 {}
    }

    /// Makes triggers again that the schema's changes left behind.
    func renew() throws { _ = try keeper.renewTriggers(CaptureInstaller(link), sparing: false) }

    /// The same if the reader found some, as the keeper does. Nothing happens while somebody writes.
    func renewIfAsked() throws {
        if mailbox.takeTriggers(), try !keeper.renewTriggers(CaptureInstaller(link), sparing: false) { mailbox.askForTriggers() }
    }

    /// Ends the session and begins another where the first was durable.
    func reopen() throws {
        (mailbox, reader, keeper) = try Self.open(path, link, origin, durable, connection)
    }
}
