/// What a verdict rests on. Each is a switch: with all of them on the model holds, without any one of them it does not.
/// The numbers are those of the documentation's page on the soundness of the fence check.
enum Obligation: String, CaseIterable {
    /// O1: no part of the source's log is missing from the journal.
    case journalWhole
    /// O2: capture is whole, and the same when the verdict is given as when the pass began.
    case captureSame
    /// O2: and it was the same all the time: a change that was taken back is seen too.
    case captureSameBetween
    /// O2: what it is at the beginning is noted before the place is asked for from which on the journal is read.
    case captureNotedFirst
    /// O3: foreign writes are recorded from before the first view of the target.
    case foreignFromStart
    /// O3: the record of foreign writes is read after the fence's view of the target was opened.
    case foreignAfterView
    /// O3: all of it is read, not what follows the highest number seen: numbers do not commit in order.
    case foreignWhole
    /// O4: every transaction before the pass's beginning is seen by all its views.
    case settledStart
    /// O4: writers that were under way when the fence was made are waited out.
    case writersWaitedOut
    /// O4: the fence still stands when the verdict is given.
    case fenceStands
    /// O5: TRUNCATE and DDL dirty the whole table.
    case wholeTableDirty
    /// O6: a change of a key dirties the old and the new one.
    case bothKeysDirty
    /// O7: the pass began after the copy had ended.
    case afterCopy
    /// O8: a view's mark and its rows are one picture.
    case markWithRows
    /// O9: disputed keys are taken when the journal has passed what the views saw.
    case journalPassedViews
    /// O10: bridge itself writes no key to the target but those of the transactions that it applies, or records it.
    case applierConfined
    /// O11: disputed keys are sought from a place on that both sides' views are known to see before, however old.
    case disputedFromStart
    /// O12: the dirty set is saved together with the position up to which it is complete.
    case dirtySavedWithPosition
    /// O13: the target is not put back to an older state of itself.
    case targetNotPutBack
    /// O14: a table is locked against TRUNCATE and DDL, in both views, before the end of the log is read: snapshots do not
    /// hold off what these do.
    case tableHeldBeforeEnd
    /// O15: for the same reason a TRUNCATE or DDL that not both views see disputes the table, also if neither sees it.
    case wholeTableAlwaysDisputed
    /// O16: so does a key of a source that logs keys: the target's row may be newer than what it has applied.
    case statesDisputedUnlessInBoth
    /// O17: a key is dropped as settled only if the journal, as far as its keys are in the dirty set, was asked for
    /// disputes; a touch that was read later is not dropped with it.
    case droppedOnlyIfUntouched

    /// Its number in the documentation. Some obligations there have several parts.
    var number: Int {
        switch self {
        case .journalWhole: 1
        case .captureSame, .captureSameBetween, .captureNotedFirst: 2
        case .foreignFromStart, .foreignAfterView, .foreignWhole: 3
        case .settledStart, .writersWaitedOut, .fenceStands: 4
        case .wholeTableDirty: 5
        case .bothKeysDirty: 6
        case .afterCopy: 7
        case .markWithRows: 8
        case .journalPassedViews: 9
        case .applierConfined: 10
        case .disputedFromStart: 11
        case .dirtySavedWithPosition: 12
        case .targetNotPutBack: 13
        case .tableHeldBeforeEnd: 14
        case .wholeTableAlwaysDisputed: 15
        case .statesDisputedUnlessInBoth: 16
        case .droppedOnlyIfUntouched: 17
        }
    }
}
