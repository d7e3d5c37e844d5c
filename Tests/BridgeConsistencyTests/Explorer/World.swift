/// A table of two keys in one byte, two bits a key: 0 for no row, else the row's value, 1 or 2.
struct Rows: Hashable {
    var bits: UInt8

    init(_ first: UInt8, _ second: UInt8) { bits = first | second << 2 }

    subscript(key: Int) -> UInt8 {
        get { (bits >> UInt8(2 * key)) & 3 }
        set { bits = bits & ~(3 << UInt8(2 * key)) | newValue << UInt8(2 * key) }
    }

    /// Keys whose rows are not the same, as a set of bits.
    func difference(_ other: Rows) -> UInt8 {
        (self[0] != other[0] ? 1 : 0) | (self[1] != other[1] ? 2 : 0)
    }

    mutating func put(_ keys: UInt8, of other: Rows) {
        if keys & 1 != 0 { self[0] = other[0] }
        if keys & 2 != 0 { self[1] = other[1] }
    }
}

/// What a source transaction does. Values are 1 and 2.
enum Operation: Hashable {
    case set(key: Int, value: UInt8)
    case delete(key: Int)
    /// The row gets the other key.
    case move(from: Int)
    case truncate
    /// DDL that turns every value into the other one.
    case rewrite

    static let all: [Operation] = [
        .set(key: 0, value: 1), .set(key: 0, value: 2), .set(key: 1, value: 1), .set(key: 1, value: 2),
        .delete(key: 0), .delete(key: 1), .move(from: 0), .move(from: 1), .truncate, .rewrite,
    ]
}

/// One source transaction.
struct Transaction: Hashable {
    enum Status: UInt8 {
        case notBegun
        /// It has written and holds its locks.
        case writing
        /// Its commit record stands in the log; snapshots do not see it yet.
        case logged
        case visible, aborted
    }

    var status = Status.notBegun
    /// Keys touched, as bits; of them, those that a change of the key left behind.
    var keys: UInt8 = 0
    var oldKeys: UInt8 = 0
    /// What the touched keys have afterwards.
    var after = Rows(0, 0)
    /// TRUNCATE or DDL: its record in the journal names no key.
    var isWhole = false

    var isUnderWay: Bool { status == .writing || status == .logged }
}

/// Up to three of something, without an allocation.
struct Three<Element: Hashable>: Hashable {
    var a: Element
    var b: Element
    var c: Element

    init(_ element: Element) { (a, b, c) = (element, element, element) }

    subscript(index: Int) -> Element {
        get { index == 0 ? a : index == 1 ? b : c }
        set {
            switch index {
            case 0: a = newValue
            case 1: b = newValue
            default: c = newValue
            }
        }
    }
}

/// A write to the target by somebody else. Its place in the list is the number that its record gets.
struct Foreign: Hashable {
    enum Status: UInt8 { case notBegun, writing, committed }
    var status = Status.notBegun
    var isRecorded = false
}

/// Where the checker stands.
enum Step: UInt8 {
    case begin, settle
    /// Views are opened, in this order. The marks are steps of their own only without ``Obligation/markWithRows``.
    case sourceRows, sourceMark, targetRows, targetMark, hold, readEnd
    /// Waits for the journal, then compares.
    case compare
    /// Between two comparisons.
    case idle
    case fence, waitForWriters, readFenceEnd, waitForApplier, readForeign
    case verdict
    case consistent, inconsistent, inconclusive
}

/// What the views that are open are for.
enum Purpose: UInt8 { case firstChunk, secondChunk, drain, fence }

/// One state of everything: source, journal, applier, target, whoever else writes, and the checker.
struct World: Hashable {
    // The source. `log` has the transactions in the order of their commit records.
    var source: Rows
    var transactions = Three(Transaction())
    var log = Three<UInt8>(0)
    var logged: UInt8 = 0
    var isFenced = false
    var leaseIsOver = false
    var publishesDeletes = true
    var publicationWasAltered = false
    var captureChanged = false

    // The journal holds the first `journaled` entries of the log, but for those in `missing`. For a source that logs keys
    // `states` has the rows as they were when the entry was read.
    var journaled: UInt8 = 0
    var missing: UInt8 = 0
    var states = Three(Rows(0, 0))
    var wasInterrupted = false

    // The target; `applied` counts entries of the log.
    var target: Rows
    var applied: UInt8 = 0
    var isCopying = false
    var isWatched = false
    var wasRestored = false
    var restoreIsKnown = false
    var foreign = Three(Foreign())
    /// Keys that bridge wrote out of turn, and recorded.
    var strayRecorded: UInt8 = 0
    /// Whether anything happened that may make the sides differ.
    var isFaulty = false

    // The checker.
    var step = Step.begin
    var purpose = Purpose.firstChunk
    var begin: UInt8 = 0
    var read: UInt8 = 0
    var readBeforeDrain: UInt8 = 0
    var dirty: UInt8 = 0
    var savedDirty: UInt8 = 0
    var mismatched: UInt8 = 0
    var sourceRows = Rows(0, 0)
    /// Transactions seen, as bits (`snapshot`), or the number of entries seen (`state`).
    var sourceMark: UInt8 = 0
    var targetRows = Rows(0, 0)
    var targetMark: UInt8 = 0
    /// Whether the views hold a lock that keeps TRUNCATE and DDL off.
    var isHolding = false
    var end: UInt8 = 0
    var foreignNumber: UInt8 = 0
    var drains: UInt8 = 0
    var wasKilled = false

    init(source: Rows, target: Rows) {
        self.source = source
        self.target = target
    }

    /// Whether a view is open whose rows are not read yet.
    var hasSourceView: Bool { step.rawValue > Step.sourceRows.rawValue && step.rawValue <= Step.compare.rawValue }
    var hasTargetView: Bool { step.rawValue > Step.targetRows.rawValue && step.rawValue <= Step.compare.rawValue }
}
