import BridgeCore

typealias LinkDirection = LinkDescription.Direction

/// What both databases were seen to hold of a migration's links. Each is held by the database that the link goes to.
struct LinkRecords: Sendable {
    enum Sight: Hashable, Sendable {
        /// The database did not answer.
        case unknown
        /// There are none, or none yet that name a capture.
        case absent
        case present(CaptureOrigin)

        var origin: CaptureOrigin? { if case .present(let origin) = self { origin } else { nil } }
    }

    var forward = Sight.unknown
    var reverse = Sight.unknown

    subscript(direction: LinkDirection) -> Sight {
        get { direction == .forward ? forward : reverse }
        set { if direction == .forward { forward = newValue } else { reverse = newValue } }
    }
}

/// How the links of a migration that are run side by side ended.
enum LinkEnding: Hashable, Sendable {
    /// They were asked to.
    case stopped
    case caughtUp
    /// No records are left on either side: completed, or cancelled.
    case over
}

/// Decides which links are run, by what the databases hold of them. Does nothing itself: events come in, actions go out.
///
/// - The way forward runs from the start on, the way back as long as its records are there.
/// - A link that fails for good while there is another one is tried again, with pauses, and the other goes on. The way
///   forward alone is not: it ends the run.
/// - A link whose records are gone is not begun anew. When they are gone on both sides the run is over.
struct LinkCourse: Sendable {
    struct Policy: Sendable {
        var untilCaughtUp = false
        /// Whether a migration that was not begun is.
        var mayBegin = true
        /// Whether even the way forward alone is tried again after it failed.
        var keepsTrying = false
        /// Pauses after a link failed, without the part that is random.
        var firstPause = Duration.seconds(1)
        var longestPause = Duration.seconds(30)
    }

    enum Event: Sendable {
        /// - Parameter answers: the last look that had been asked for when this one began; 0 if none had.
        case looked(LinkRecords, answers: Int)
        /// The look that was asked for does not come; what is known has to do.
        case lookOverdue(Int)
        /// - Parameter ranWell: whether it had been at work for so long that an earlier failure has nothing to do with this one.
        case ended(LinkDirection, Result<Bool, BridgeError>, ranWell: Bool)
        /// The pause after a failure is over.
        case due(LinkDirection)
        case stop
    }

    enum Action: Sendable {
        case start(LinkDirection, mayBegin: Bool)
        case stop(LinkDirection)
        /// Look at the records now. What a look that began earlier saw may be older than what it is asked for.
        case look(Int)
        case retry(LinkDirection, after: Duration, BridgeError)
        /// The link's records are gone, and it does not run.
        case gone(LinkDirection)
        /// There is no way back: what an earlier run said of one is old.
        case forget
        /// The last action.
        case finish(Result<LinkEnding, BridgeError>)
    }

    private enum Reason: Sendable { case asked, gone, replaced }

    private enum Stage: Sendable {
        case idle
        case running
        case stopping(Reason)
        /// It failed, and the records decide what comes of it.
        case failed(BridgeError)
        /// It failed, and is tried again.
        case pausing(BridgeError)
        case caughtUp
        case gone
        case stopped

        var isActive: Bool {
            switch self {
            case .running, .stopping: true
            default: false
            }
        }

        var error: BridgeError? {
            switch self {
            case .failed(let error), .pausing(let error): error
            default: nil
            }
        }
    }

    private struct Course: Sendable {
        var stage = Stage.idle
        /// Which capture the present run is of, where it was known.
        var origin: CaptureOrigin?
        var wasSeen = false
        var failures = 0
    }

    private let policy: Policy
    private var forward = Course()
    private var reverse = Course()
    private var records = LinkRecords()
    private var hasLooked = false
    /// The number of the last look that was asked for.
    private var asked = 0
    private var isStopping = false
    private var failure: BridgeError?
    private var isFinished = false
    private var actions: [Action] = []

    init(_ policy: Policy) { self.policy = policy }

    private subscript(direction: LinkDirection) -> Course {
        get { direction == .forward ? forward : reverse }
        set { if direction == .forward { forward = newValue } else { reverse = newValue } }
    }

    private static let directions: [LinkDirection] = [.forward, .reverse]

    // MARK: - Events

    mutating func handle(_ event: Event) -> [Action] {
        guard !isFinished else { return [] }
        actions = []
        switch event {
        case .looked(let seen, let answers): looked(seen, answers)
        case .lookOverdue(let number): if number == asked { decideFailures() }
        case .ended(let direction, let result, let ranWell): ended(direction, result, ranWell)
        case .due(let direction):
            if case .pausing = self[direction].stage { start(direction, mayBegin: false) }
        case .stop:
            isStopping = true
            stopAll()
        }
        finishIfDone()
        return actions
    }

    private mutating func looked(_ seen: LinkRecords, _ answers: Int) {
        for direction in Self.directions {
            // What does not answer is taken to be as it was.
            guard seen[direction] != .unknown else { continue }
            records[direction] = seen[direction]
            if case .present = seen[direction] { self[direction].wasSeen = true }
        }
        let isFirst = !hasLooked
        hasLooked = true
        guard !isStopping, failure == nil else { return }
        if isFirst { begin() }
        for direction in Self.directions { follow(direction) }
        // A link whose records were removed fails before a look that began earlier is over, which still has them.
        if answers == asked { decideFailures() }
    }

    /// A copy must not put what is older into the place of what the application wrote: where there is a way back, or it is
    /// not known whether there is one, the way forward is not begun anew.
    private mutating func begin() {
        if records.reverse == .absent { actions.append(.forget) }
        guard records.reverse.origin == nil || records.forward != .absent else {
            forward.stage = .gone
            actions.append(.gone(.forward))
            return
        }
        start(.forward, mayBegin: policy.mayBegin && records.reverse == .absent)
    }

    /// Brings a link into line with its records.
    private mutating func follow(_ direction: LinkDirection) {
        switch (self[direction].stage, records[direction]) {
        case (_, .unknown): break
        case (.idle, .present), (.gone, .present):
            if direction == .reverse { start(.reverse, mayBegin: false) }
        case (.running, .present(let origin)):
            if let known = self[direction].origin, known != origin { stop(direction, .replaced) }
            self[direction].origin = origin
        case (.running, .absent):
            if self[direction].wasSeen { stop(direction, .gone) }
        case (.pausing, .absent) where self[direction].wasSeen: leave(direction)
        default: break
        }
    }

    private mutating func ended(_ direction: LinkDirection, _ result: Result<Bool, BridgeError>, _ ranWell: Bool) {
        if ranWell { self[direction].failures = 0 }
        if case .stopping(let reason) = self[direction].stage {
            switch reason {
            case .asked:
                if case .failure(let error) = result { self[direction].stage = .failed(error) } else { self[direction].stage = .stopped }
            case .gone: leave(direction)
            case .replaced where direction == .forward: isReplaced()
            case .replaced:
                self[direction].stage = .idle
                look()
            }
            return
        }
        switch result {
        case .success(let hasCaughtUp): self[direction].stage = hasCaughtUp ? .caughtUp : .stopped
        case .failure(let error):
            self[direction].stage = .failed(error)
            if !isStopping, failure == nil { look() }
        }
    }

    /// What comes of the links that failed, now that the records were looked at.
    private mutating func decideFailures() {
        guard !isStopping, failure == nil else { return }
        for direction in Self.directions {
            guard case .failed(let error) = self[direction].stage else { continue }
            if records[direction] == .absent, self[direction].wasSeen {
                leave(direction)
            } else if policy.untilCaughtUp || (direction == .forward && !policy.keepsTrying && records.reverse.origin == nil) {
                failure = error
                stopAll()
            } else {
                pause(direction, error)
            }
        }
    }

    // MARK: - What is done

    private mutating func look() {
        asked += 1
        actions.append(.look(asked))
    }

    private mutating func start(_ direction: LinkDirection, mayBegin: Bool) {
        self[direction].stage = .running
        self[direction].origin = records[direction].origin
        actions.append(.start(direction, mayBegin: mayBegin))
    }

    private mutating func stop(_ direction: LinkDirection, _ reason: Reason) {
        self[direction].stage = .stopping(reason)
        actions.append(.stop(direction))
    }

    private mutating func stopAll() {
        for direction in Self.directions {
            if case .running = self[direction].stage { stop(direction, .asked) }
        }
    }

    /// The way forward that this run was begun with is over, and another one of its name was begun elsewhere.
    private mutating func isReplaced() {
        failure = BridgeError(
            .checkpointForeign, "the migration was begun anew by another process while this one ran",
            hint: "run the command again if this is where the migration is to run")
        forward.stage = .gone
        stopAll()
    }

    private mutating func leave(_ direction: LinkDirection) {
        self[direction].stage = .gone
        self[direction].failures = 0
        actions.append(.gone(direction))
    }

    private mutating func pause(_ direction: LinkDirection, _ error: BridgeError) {
        let pause = min(policy.longestPause, policy.firstPause * (1 << min(self[direction].failures, 10)))
        self[direction].failures += 1
        self[direction].stage = .pausing(error)
        actions.append(.retry(direction, after: pause, error))
    }

    private mutating func finishIfDone() {
        guard hasLooked || isStopping, !forward.stage.isActive, !reverse.stage.isActive else { return }
        if let failure { return finish(.failure(failure)) }
        if isStopping {
            // A link that was failing when it was told to stop has not ended well.
            let error = forward.stage.error ?? reverse.stage.error
            return finish(error.map { .failure($0) } ?? .success(.stopped))
        }
        switch (forward.stage, reverse.stage) {
        case (.gone, .idle), (.gone, .gone):
            if forward.wasSeen || reverse.wasSeen, records.forward == .absent, records.reverse != .unknown, records.reverse.origin == nil {
                finish(.success(.over))
            }
        case (.caughtUp, .idle) where records.reverse.origin == nil: finish(.success(.caughtUp))
        case (.caughtUp, .gone), (.caughtUp, .caughtUp), (.gone, .caughtUp): finish(.success(.caughtUp))
        case (.stopped, _), (_, .stopped): finish(.success(.stopped))
        default: break
        }
    }

    private mutating func finish(_ result: Result<LinkEnding, BridgeError>) {
        isFinished = true
        actions.append(.finish(result))
    }
}
