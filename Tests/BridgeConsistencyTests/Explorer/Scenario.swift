/// What may go wrong in a run, besides what the checker itself leaves out. At most one fault happens in a run.
struct Faults: OptionSet, Hashable {
    let rawValue: UInt16
    /// The applier passes over a transaction.
    static let lostApply = Faults(rawValue: 1)
    /// The applier does half of a change of the key.
    static let halfMove = Faults(rawValue: 2)
    /// The applier writes another row as well.
    static let strayApply = Faults(rawValue: 4)
    /// A transaction is not captured; the slot, or the journal, knows that it was interrupted.
    static let interruption = Faults(rawValue: 8)
    /// Somebody alters the publication so that deletes are not published, and may alter it back.
    static let publication = Faults(rawValue: 16)
    /// The fence's lease runs out.
    static let lease = Faults(rawValue: 32)
    /// The check is killed once and resumed.
    static let kill = Faults(rawValue: 64)
    /// The copy, or a copy made anew, ends late and leaves a wrong row.
    static let badCopy = Faults(rawValue: 128)
    /// The target is restored once from a backup, made before the first transaction; the applier goes on from there.
    static let restore = Faults(rawValue: 256)
}

/// One small world to explore.
struct Scenario {
    enum Kind { case snapshot, state }

    var kind: Kind
    var source = Rows(1, 0)
    /// What the target has at first; other than the source's, it is a fault that was there before the check.
    var target: Rows?
    /// The transactions, in the order in which they begin.
    var operations: [Operation]
    var faults: Faults = []
    /// Writes to the target by others: key and value.
    var foreign: [(key: Int, value: UInt8)] = []
    var isCopying = false
    /// How many transactions are on the source alone when the check begins is left open; how often the dirty set is
    /// drained as well, up to this number.
    var drains: UInt8 = 1

    var start: World {
        var world = World(source: source, target: target ?? source)
        world.isCopying = isCopying
        world.isFaulty = target != nil && target != source
        return world
    }

    var isFaultFree: Bool { faults.isDisjoint(with: [.lostApply, .halfMove, .strayApply, .interruption, .publication, .badCopy]) }
}
