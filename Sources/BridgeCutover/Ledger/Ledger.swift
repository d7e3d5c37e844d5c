package import BridgeCore

/// The append-only record of every attempt, as a chain: each entry's checksum covers its own text and the checksum before
/// it, so that an entry that was changed, lost or put in shows at the next look. It guards against accidents and against
/// hands that repair tables, not against forgery.
package struct Ledger: Sendable {
    package private(set) var entries: [LedgerEntry] = []
    /// Where each service stands; one that is not in it is at the beginning.
    package private(set) var phases: [String: ServicePhase] = [:]
    /// The attempt that is under way, or was when its process ended.
    package private(set) var attempt: Attempt?
    /// Of the last attempt that ended: what it was for, and whether it succeeded.
    package private(set) var lastEnded: (goal: Attempt.Goal, succeeded: Bool)?
    /// When the last attempt that moved writers succeeded.
    package private(set) var lastMove: Timestamp?
    /// Set once the migration is being taken down: whether it was completed; false if it was cancelled.
    package private(set) var isClosing: Bool?
    /// The highest epoch that any attempt was given.
    package private(set) var epoch: Int64 = 0

    package init() {}

    /// Reads it back.
    /// - Throws: `ledgerDiverged`, naming the first entry that does not fit.
    package init(_ entries: [LedgerEntry]) throws(BridgeError) {
        for entry in entries { try append(entry) }
    }

    private var last: String { entries.last?.checksum ?? "" }

    /// The entry that tells of `event`; it counts once ``append(_:)`` was called with it.
    package func entry(_ event: LedgerEvent, attempt: String, at time: Timestamp = .now) -> LedgerEntry {
        var entry = LedgerEntry(
            number: Int64(entries.count) + 1, writtenAt: time, attempt: attempt, kind: event.kind.rawValue,
            content: event.content, checksum: "")
        entry.checksum = Self.checksum(entry, after: last)
        return entry
    }

    /// Takes in an entry that the database has.
    /// - Throws: `ledgerDiverged` for one that does not follow the last one; nothing is taken in then.
    package mutating func append(_ entry: LedgerEntry) throws(BridgeError) {
        guard entry.number == Int64(entries.count) + 1, entry.checksum == Self.checksum(entry, after: last),
            let event = LedgerEvent(kind: entry.kind, content: entry.content)
        else { throw Self.diverged(entry.number) }
        try take(event, entry.attempt, entry.number)
        if event == .end(succeeded: true), let goal = lastEnded?.goal, [.switchWrites, .writesBack].contains(goal) { lastMove = entry.writtenAt }
        entries.append(entry)
    }

    // MARK: What it says

    private mutating func take(_ event: LedgerEvent, _ id: String, _ number: Int64) throws(BridgeError) {
        switch event {
        case .begin(let new):
            // One at a time, and epochs only grow.
            guard attempt == nil, isClosing == nil, new.id == id, new.epoch > epoch else { throw Self.diverged(number) }
            attempt = new
            epoch = new.epoch
        case .done(let step, _):
            guard attempt?.id == id else { throw Self.diverged(number) }
            attempt?.done.insert(step)
        case .failed, .overridden:
            guard attempt?.id == id else { throw Self.diverged(number) }
        case .abort(let why):
            guard attempt?.id == id else { throw Self.diverged(number) }
            if attempt?.aborting == nil { attempt?.aborting = why }
        case .end(let succeeded):
            guard let ended = attempt, ended.id == id else { throw Self.diverged(number) }
            lastEnded = (ended.goal, succeeded)
            if succeeded { for service in ended.services { phases[service] = ended.phaseAfter } }
            attempt = nil
        case .repaired: break
        case .closing(let completed):
            guard attempt == nil, isClosing ?? completed == completed else { throw Self.diverged(number) }
            isClosing = completed
        }
    }

    private static func diverged(_ number: Int64) -> BridgeError {
        BridgeError(
            .ledgerDiverged, "the ledger is not as it was written", context: [.init(.detail, "entry \(number)")],
            hint: "restore the ledger from a backup of the database, then run: bridge cutover status")
    }

    /// FNV-1a over 128 bits, in hexadecimal digits.
    private static func checksum(_ entry: LedgerEntry, after last: String) -> String {
        var hash = TextHash()
        // Lengths keep one field from flowing into the next.
        for field in [
            last, "\(entry.number)", "\(entry.writtenAt.microseconds)", entry.attempt, entry.kind, entry.content,
        ] {
            hash.add("\(field.utf8.count):\(field)")
        }
        return hash.digits
    }
}
