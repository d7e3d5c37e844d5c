import BridgeCore
import BridgeJournal
import BridgeReplication
import Foundation

/// The change that a link stands at, with what the journal has of it.
struct OpenConflict: Sendable {
    let direction: LinkDescription.Direction
    let stop: ConflictStop
    let files: ConflictFiles
    private let journal: String

    /// Of every link of the migration that stands at one.
    static func all(_ configuration: Configuration) async throws(BridgeError) -> [OpenConflict] {
        let directory = DataDirectory(configuration.dataDirectory)
        var open: [OpenConflict] = []
        for direction in [LinkDescription.Direction.forward, .reverse] {
            let files = ConflictFiles(directory: directory.conflictDirectory(direction))
            guard let stop = try await files.stop(), stop.binding.link == configuration.link(direction).name else { continue }
            open.append(
                OpenConflict(
                    direction: direction, stop: stop, files: files, journal: directory.journalDirectory(direction)))
        }
        return open
    }

    /// The change as the journal has it; nil if it is not there any more, or which it is cannot be told.
    /// - Throws: `journalForeign` for the journal of another capture than the one that stopped.
    func change() async throws(BridgeError) -> JournaledChange? {
        guard stop.canBeSkipped else { return nil }
        let binding = try await JournalInspector.binding(directory: journal)
        guard
            LinkBinding(link: binding.link, identity: binding.identity, origin: binding.origin.storedForm) == stop.binding
        else {
            throw BridgeError(
                .journalForeign, "the journal is not the one that holds the change which the link stands at",
                context: [.init(.file, journal)])
        }
        return try await JournalInspector.change(at: stop.position, directory: journal)
    }

    /// Decides that the change is left out, after its content was written to the dead-letter file.
    /// - Throws: `conflictMissing` where it cannot be told which change it is.
    func passOver() async throws(BridgeError) {
        guard stop.canBeSkipped else {
            throw BridgeError(
                .conflictMissing, "\(direction.way) stands at a transaction's commit: no one change can be passed over",
                context: [.init(.table, stop.table), .init(.position, stop.position.storedForm)],
                hint: "bridge conflicts list tells why; correct what is on the target, then run: bridge run")
        }
        guard let change = try await change() else {
            throw BridgeError(
                .journalMissing, "the journal does not hold the change which the link stands at",
                context: [.init(.file, journal), .init(.position, stop.position.storedForm)],
                hint: "run: bridge conflicts retry, then bridge run")
        }
        let decision = SkipDecision(
            stop, source: change.table, change: change.kind, key: change.key, commitTime: change.commitTime, at: .now)
        try await files.passOver(decision, line: change.line)
    }

    /// In one line, without values.
    var title: String { "\(Printable.text(stop.table)), \(stop.position.storedForm), \(stop.reason)" }

    func json(adding members: [JSONValue.Member] = []) -> JSONValue {
        .object([.init(name: "format_version", value: 1)] + self.members + members)
    }

    var members: [JSONValue.Member] {
        [
            .init(name: "link", value: .string(direction.rawValue)),
            .init(name: "position", value: .string(stop.position.storedForm)),
            .init(name: "ordinal", value: JSONValue(stop.ordinal.map { Int64(clamping: $0) })),
            .init(name: "can_be_skipped", value: .bool(stop.canBeSkipped)),
            .init(name: "table", value: .string(stop.table)),
            .init(name: "reason", value: .string(stop.reason)),
            .init(name: "code", value: .string(stop.code)),
            .init(name: "message", value: .string(stop.message)),
            .init(name: "since", value: .string(Timestamp(microseconds: stop.since).rfc3339)),
        ]
    }
}
