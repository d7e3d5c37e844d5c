import BridgeCore

/// What the argument rests on, and what was found of it. See the documentation's proof for each name.
struct Soundness: Sendable {
    enum Name: String, CaseIterable, Sendable {
        /// Slot, log and journal were there without a gap since the first view.
        case captureUninterrupted = "capture_uninterrupted"
        /// The same publication, operations, filters, triggers and columns at the end as at the beginning.
        case captureUnchanged = "capture_unchanged"
        /// Writes to the target by others than the applier are recorded.
        case targetWatched = "target_watched"
        /// No transaction that committed before the beginning was still unseen; at the fence no writer is left.
        case writersSettled = "writers_settled"
        /// A table that was emptied or changed was compared again from its first row on.
        case wholeTableChanges = "whole_table_changes"
        /// Every change told which key it touched, old and new.
        case keyChanges = "key_changes"
        /// The pass began after the copy had ended, and read the databases.
        case databasesRead = "databases_read"
        /// The journal had passed the end of the source's log before anything was said to be in dispute.
        case journalPassed = "journal_passed"
    }

    private var broken: [Name: String] = [:]
    private var shown: Set<Name> = []

    mutating func hold(_ name: Name) { shown.insert(name) }

    /// The first reason stays.
    mutating func fail(_ name: Name, _ why: String) { if broken[name] == nil { broken[name] = why } }

    func holds(_ name: Name) -> Bool { shown.contains(name) && broken[name] == nil }

    /// The obligation found broken first by name, and why.
    var failure: String? { Name.allCases.lazy.compactMap { name in broken[name].map { "\(name.rawValue): \($0)" } }.first }

    /// The same, but for what is kept table by table and ends with the next full pass of the table.
    var lastingFailure: String? {
        var others = self
        others.broken[.wholeTableChanges] = nil
        return others.failure
    }

    /// - Parameter unneeded: what the mode does not rest on.
    func allHold(besides unneeded: Set<Name>) -> Bool { Name.allCases.allSatisfy { unneeded.contains($0) || holds($0) } }

    var report: [CheckReport.Obligation] {
        Name.allCases.map { name in
            .init(
                name: name.rawValue, holds: holds(name),
                detail: broken[name] ?? (shown.contains(name) ? nil : "not looked at"))
        }
    }
}
