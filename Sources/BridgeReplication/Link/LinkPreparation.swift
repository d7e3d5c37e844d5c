import BridgeCore
import BridgeJournal
import Logging

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// What comes before a link streams, in either direction: preflight, intent, capture, journal.
struct LinkPreparation: Sendable {
    let configuration: LinkConfiguration
    let source: any SourceConnector
    let target: any TargetConnector
    let logger: Logger

    private var link: LinkDescription { configuration.link }
    private var journalDirectory: String { configuration.journalDirectory }

    // MARK: - Making

    /// Writes the intent and makes the capture. What an earlier, killed attempt left is replaced: the origin was recorded
    /// nowhere, so nothing that was captured since then is of use to anybody.
    /// - Parameter before: the target's records, which name no origin; nil if there are none.
    func makeCapture(_ before: LinkState?) async throws(BridgeError) -> CaptureOrigin {
        try await refuseObstacles()
        if before == nil, directoryHasFiles {
            throw BridgeError(
                .journalForeign, "there is a journal already, but the target knows nothing of this migration",
                context: [.init(.file, journalDirectory)],
                hint: "use another data_dir, or remove this journal if its migration is over")
        }
        if before == nil, try await source.captureExists(link) {
            throw BridgeError(
                .slotForeign, "the source has a capture of this name already, which the target knows nothing of",
                context: [.init(.migration, link.migration), .init(.slot, link.identifier)])
        }
        _ = try await target.prepareLink(link)
        try Failpoint.linkPrepared.hit()
        // A journal that the intent outlived was made for an origin that no record names.
        if before != nil { try removeFiles() }
        var origin: CaptureOrigin
        do throws(BridgeError) {
            origin = try await source.prepareCapture(link, replacingLeftovers: before != nil)
        } catch {
            await undo(failedWith: error)
            throw error
        }
        try Failpoint.sourcePrepared.hit()
        origin.identity[Self.selectionKey] = selection
        return origin
    }

    /// A start that could not make its capture leaves nothing behind. What cannot be removed now, because a database is
    /// away, is removed by the next run: the target still holds the intent.
    private func undo(failedWith failure: BridgeError) async {
        do throws(BridgeError) {
            if failure.code != .slotForeign { try await source.removeCapture(link) }
            try await target.removeLink(link)
        } catch {
            logger.warning("what the failed start made could not all be removed; the next run does it: \(error)")
        }
    }

    func openJournal(_ origin: CaptureOrigin) async throws(BridgeError) -> JournalWriter {
        let binding = JournalBinding(
            link: link.name, direction: link.direction, identity: origin.identityText, origin: origin.position)
        var options = JournalOptions()
        options.segmentBytes = configuration.segmentBytes
        options.budgetBytes = configuration.journalBudget
        return try await JournalWriter.open(directory: journalDirectory, binding: binding, options: options)
    }

    // MARK: - Obstacles

    /// Everything that preflight finds on both ends.
    func findings() async throws(BridgeError) -> [Finding] {
        let findings = try await source.preflight(link)
        do throws(BridgeError) { return findings + (try await targetFindings()) } catch {
            // What stands in the source's way may keep its tables from being looked at.
            guard findings.contains(where: { $0.severity == .blocking }) else { throw error }
            return findings
        }
    }

    private func targetFindings() async throws(BridgeError) -> [Finding] {
        let schemas = try await source.planTables(link.mappings.map(\.source))
        // The target is shown the tables in the mappings' order; one that is missing has its finding already.
        return schemas.count == link.mappings.count ? try await target.preflight(link, sources: schemas) : []
    }

    private func refuseObstacles() async throws(BridgeError) {
        var findings = try await source.preflight(link)
        // What the target lacks is worth telling once the source can be moved at all.
        if findings.allSatisfy({ $0.severity != .blocking }) { findings += try await targetFindings() }
        for finding in findings where finding.severity == .warning { logger.warning("\(finding.what); \(finding.why)") }
        let blocking = findings.filter { $0.severity == .blocking }
        guard let first = blocking.first else { return }
        guard blocking.count > 1 else { throw first.error }
        throw BridgeError(
            first.code, "\(blocking.count) things stand in the way: " + blocking.map(\.what).joined(separator: "; "),
            hint: "bridge preflight prints each of them with the statement that mends it")
    }

    // MARK: - What was begun

    /// Whether a link that was begun can go on: with the same tables, and with its journal.
    func checkBegun(_ state: LinkState, _ origin: CaptureOrigin) throws(BridgeError) {
        if let began = origin.identity[Self.selectionKey], began != selection {
            throw BridgeError(
                .configurationInvalid, "tables, columns or filters are others than those that the migration began with",
                context: [.init(.migration, link.migration)],
                hint: "restore the list of tables in bridge.yaml, or start a new migration under another name")
        }
        // Without its journal a link cannot go on: what stood there, captured and not yet applied, is on no other disk.
        let hasBegun = state.phase == .syncing || state.tables.values.contains { $0.state == .done }
        guard hasBegun, !directoryHasFiles else { return }
        throw BridgeError(
            .journalMissing, "the target holds this migration's records, but its journal is not there",
            context: [.init(.migration, link.migration), .init(.file, journalDirectory)])
    }

    private static let selectionKey = "selection"

    /// A fingerprint of the tables, columns and filters, by which a later run notices that they were changed.
    private var selection: String {
        let parts = link.mappings.map { mapping in
            var facts = [
                mapping.source.description, mapping.target.description,
                mapping.columns?.sorted().joined(separator: "\u{1}") ?? "*", mapping.rowFilter ?? "",
            ]
            if let filter = mapping.targetFilter { facts.append(filter) }
            return facts.joined(separator: "\u{2}")
        }
        // FNV-1a: nobody gains by forging it.
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in parts.sorted().joined(separator: "\u{3}").utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return String(hash, radix: 16)
    }

    // MARK: - Files

    private var directoryHasFiles: Bool { !fileNames.isEmpty }

    private var fileNames: [String] {
        guard let directory = opendir(journalDirectory) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private func removeFiles() throws(BridgeError) {
        for name in fileNames where unlink("\(journalDirectory)/\(name)") != 0 {
            throw BridgeError(
                .inputOutput, "a leftover journal file cannot be removed",
                context: [.init(.file, "\(journalDirectory)/\(name)")])
        }
    }
}
