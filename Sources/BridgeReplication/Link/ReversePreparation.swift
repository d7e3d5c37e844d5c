package import BridgeCore
import BridgeJournal
package import Logging

/// Makes a migration's way back, so that ``LinkRunner`` can stream it: capture on the target, records on the source.
///
/// It needs no copy. When it is made, nobody but the way forward's applier writes to the migration's target, and what that
/// writes is passed over; so both sides hold the same, but for what the way forward still carries, at the place where the
/// capture begins.
///
/// In this order, each step's traces found or replaced when a killed preparation is done again:
/// 1. the intent, on the migration's source;
/// 2. capture, on the migration's target;
/// 3. the journal, bound to that capture;
/// 4. the records say `syncing` and name the capture.
/// Only the last makes a link of it, so a link that says `syncing` has its journal: one that is missing then was lost.
package struct ReversePreparation: Sendable {
    private let preparation: LinkPreparation

    /// - Parameters:
    ///   - configuration: of the way back: its link is the way forward's ``LinkDescription/reversed``, its journal its own.
    ///   - source: the migration's target.
    ///   - target: the migration's source.
    package init(
        configuration: LinkConfiguration, source: any SourceConnector, target: any TargetConnector, logger: Logger
    ) {
        preparation = LinkPreparation(configuration: configuration, source: source, target: target, logger: logger)
    }

    private var link: LinkDescription { preparation.configuration.link }

    /// What would stop it, each with what mends it. Changes nothing. Findings say "source" and "target" in the direction of
    /// the way back, so each begins with which database that is.
    package func findings() async throws(BridgeError) -> [Finding] {
        try await preparation.source.connect()
        try await preparation.target.connect()
        let way = "way back, from \(preparation.source.displayName) to \(preparation.target.displayName): "
        return try await preparation.findings().map { finding in
            var finding = finding
            finding.what = way + finding.what
            return finding
        }
    }

    /// Makes it, or finds it made.
    /// - Throws: as ``LinkRunner/run(untilCaughtUp:)`` does before anything streams; `slotBlocked` while older transactions
    ///   are open on the migration's target, such as a large one that the way forward is applying.
    package func prepare() async throws(BridgeError) {
        try await preparation.source.connect()
        try await preparation.target.connect()
        let before = try await preparation.target.linkState(link)
        if let before, let origin = before.origin {
            try preparation.checkBegun(before, origin)
            return
        }
        let origin = try await preparation.makeCapture(before)
        // There is nothing to copy, and a picture that is held would keep the server from cleaning up.
        await (try preparation.source.openSnapshot(link, origin: origin)).close()
        let journal = try await preparation.openJournal(origin)
        await journal.close()
        try Failpoint.reverseJournaled.hit()
        try await preparation.target.adoptLink(link, origin)
        try Failpoint.reverseAdopted.hit()
    }
}
