import BridgeCore
import BridgeJournal

/// What becomes of changes that a target cannot apply. A value type without I/O.
struct Refusals: Sendable {
    enum Verdict: Equatable, Sendable {
        case tryAgain(after: Duration)
        /// The policy leaves the change out.
        case leaveOut(Position)
        case stop
    }

    /// Changes that the policy leaves out and the target's connector could not leave out by itself.
    private(set) var leftOut: [PassedChange] = []
    private var place: Place?
    private var attempts = 0
    /// How far the target was when the last error came.
    private var applied: Position = .zero

    /// What attempts are counted for.
    private enum Place: Equatable {
        case change(Position)
        /// What shows at the commit only tells of no one change: it is the same trouble until the target gets on. Where its
        /// transaction ends does not tell, since the next attempt may cut it elsewhere.
        case behind(Position)
    }

    /// How often a change is tried that something else on the target may let pass, with the first.
    static let attempts = 3

    /// - Parameter applied: everything before it is on the target.
    mutating func verdict(on error: BridgeError, policy: ConflictPolicy, applied: Position = .zero) -> Verdict {
        leftOut.removeAll { $0.record.position < applied }
        self.applied = applied
        guard error.isOfChange else { return .stop }
        if policy == .skip, error.conflictKind != nil, let change = error.changePosition { return .leaveOut(change) }
        // The value is what it is. Who else writes to the target, or what its triggers look at, may be another in a moment.
        guard error.code == .conflict || error.code == .changeRefused else { return .stop }
        let place = error.changePosition.map { Place.change($0) } ?? .behind(applied)
        if place != self.place { (self.place, attempts) = (place, 0) }
        attempts += 1
        return attempts < Self.attempts ? .tryAgain(after: .milliseconds(100 * attempts)) : .stop
    }

    /// Whether a change that could not be applied is being tried again, and the target has not got on since.
    func isTrying(at applied: Position) -> Bool { attempts > 0 && self.applied == applied }

    /// - Returns: false if it is among them already: leaving it out does not help.
    mutating func leaveOut(_ change: PassedChange) -> Bool {
        guard !leftOut.contains(where: { $0.record.position == change.record.position }) else { return false }
        leftOut.append(change)
        return true
    }
}

extension ApplyLoop {
    /// The changes that a person said are to be passed over.
    func decisions(_ origin: CaptureOrigin?) async throws(BridgeError) -> [PassedChange] {
        guard let files = configuration.conflicts, let origin else { return [] }
        return try await files.decisions(LinkBinding(configuration.link, origin)).map(\.passed)
    }

    /// Leaves a change out because the policy says so.
    func leaveOut(_ position: Position, _ error: BridgeError, _ refusals: inout Refusals) async throws(BridgeError) -> Bool {
        // It is looked for in what is written, and what is decided must be durable.
        _ = try await journal.sync()
        guard let change = try await JournalInspector.change(at: position, directory: configuration.journalDirectory) else {
            return false
        }
        let record = ConflictRecord(
            position: position, commitTime: change.commitTime, table: error.context.first { $0.key == .table }?.value ?? "",
            change: change.kind, reason: error.conflictKind?.rawValue ?? error.code.rawValue, outcome: .skipped,
            key: change.key)
        return refusals.leaveOut(PassedChange(source: change.table, record: record))
    }

    /// Records the change that the link stops at, where it is known. What it returns is to be thrown.
    func stopping(_ error: BridgeError) async -> BridgeError {
        guard let files = configuration.conflicts, error.isOfChange else { return error }
        var told = error
        do throws(BridgeError) {
            if let origin = try await target.linkState(configuration.link)?.origin,
                let stop = ConflictStop(error, LinkBinding(configuration.link, origin))
            {
                // The command that passes it over reads the journal from another process.
                _ = try await journal.sync()
                try await files.put(stop)
                try Failpoint.stopRecorded.hit()
                told = error.hinting(
                    stop.canBeSkipped
                        ? "bridge conflicts list shows the change; correct what is on the target and run the command again, or pass "
                            + "the change over with: bridge conflicts skip"
                        : "which change it is cannot be told, so none can be passed over; correct what is on the target and run "
                            + "the command again")
            }
        } catch {
            logger.error("the change that the link stops at cannot be recorded: \(error)")
        }
        return told
    }
}

extension BridgeError {
    /// The same error with another hint, unless it has one of its own.
    fileprivate func hinting(_ hint: String) -> BridgeError {
        BridgeError(code, message, context: context, hint: specificHint ?? hint, cause: cause)
    }

    /// A disk of the target's that is full passes by itself when somebody makes room. The journal's own disk is another matter:
    /// such an error names no server's code.
    var passingByItself: BridgeError {
        guard code == .diskFull, context.contains(where: { $0.key == .sqlstate }) else { return self }
        return BridgeError(.serverBusy, message, context: context, hint: specificHint ?? ErrorCode.diskFull.hint, cause: cause)
    }
}
