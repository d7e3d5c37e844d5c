import BridgeCore
import BridgeJournal
import BridgeReplication

/// What `bridge conflicts list` tells.
struct ConflictList: Sendable {
    /// A change that a link stands at, with the change itself where the journal has it.
    struct Open: Sendable {
        var conflict: OpenConflict
        var change: JournaledChange?
        var error: BridgeError?
    }

    /// What one link's target records.
    struct Recorded: Sendable {
        var direction: LinkDescription.Direction
        /// Nil if it could not be asked.
        var history: ConflictHistory?
        var error: BridgeError?
        var deadLetters: Int
        var deadLetterFile: String
    }

    var migration: String
    var open: [Open] = []
    var recorded: [Recorded] = []

    /// A database that does not answer is named, and the rest is told.
    static func collect(
        _ configuration: Configuration, _ registry: ConnectorRegistry, limit: Int
    ) async throws(BridgeError) -> ConflictList {
        var list = ConflictList(migration: configuration.migration)
        for conflict in try await OpenConflict.all(configuration) {
            var open = Open(conflict: conflict)
            do throws(BridgeError) { open.change = try await conflict.change() } catch { open.error = error }
            list.open.append(open)
        }
        let directory = DataDirectory(configuration.dataDirectory)
        for direction in [LinkDescription.Direction.forward, .reverse] {
            let files = ConflictFiles(directory: directory.conflictDirectory(direction))
            var recorded = Recorded(
                direction: direction, deadLetters: try await files.deadLetters().count, deadLetterFile: files.deadLetterPath)
            let holder = try registry.target(direction == .forward ? configuration.target : configuration.source)
            do throws(BridgeError) {
                try await holder.connect()
                recorded.history = try await holder.conflictHistory(configuration.link(direction), limit: limit)
            } catch { recorded.error = error }
            await holder.close()
            list.recorded.append(recorded)
        }
        return list
    }

    var json: JSONValue {
        [
            "format_version": 1, "migration": .string(migration),
            "open": .array(
                open.map { open in
                    .object(
                        open.conflict.members + [
                            .init(name: "change", value: JSONValue(open.change?.kind)),
                            .init(name: "key", value: JSONValue(open.change?.key)),
                            .init(name: "commit_time", value: JSONValue(open.change?.commitTime.rfc3339)),
                            .init(name: "error", value: JSONValue(open.error.map(ErrorRenderer.headline))),
                        ])
                }),
            "links": .array(
                recorded.map { link in
                    [
                        "link": .string(link.direction.rawValue), "recorded": JSONValue(link.history?.total),
                        "error": JSONValue(link.error.map(ErrorRenderer.headline)),
                        "dead_letters": .integer(Int64(link.deadLetters)), "dead_letter_file": .string(link.deadLetterFile),
                    ]
                }),
            "records": .array(
                recorded.flatMap { link in
                    (link.history?.newest ?? []).map { Self.json($0, link.direction) }
                }),
        ]
    }

    private static func json(_ record: ConflictRecord, _ direction: LinkDescription.Direction) -> JSONValue {
        [
            "link": .string(direction.rawValue), "position": .string(record.position.storedForm),
            "ordinal": .integer(Int64(clamping: record.position.ordinal)), "table": .string(record.table),
            "change": .string(record.change), "reason": .string(record.reason), "outcome": .string(record.outcome.rawValue),
            "key": .string(record.key), "commit_time": .string(record.commitTime.rfc3339),
            "recorded_at": JSONValue(record.recordedAt?.rfc3339),
        ]
    }

    func lines(_ style: Style) -> [String] {
        var lines: [String] = []
        for open in open {
            lines.append(style.red("\(open.conflict.direction.way) stands at a change that cannot be applied"))
            lines.append("  \(Printable.text(open.conflict.stop.message))")
            if let change = open.change {
                lines.append("  \(change.kind) of \(Printable.text(open.conflict.stop.table)) \(Printable.text(change.key)), committed \(change.commitTime.rfc3339)")
            }
            if let error = open.error { lines.append("  the journal: \(ErrorRenderer.headline(error))") }
            let skip = open.conflict.stop.canBeSkipped ? "; or pass the change over: bridge conflicts skip" : ", since no one change can be passed over"
            lines.append("  \(style.cyan("next:")) correct the target, then bridge conflicts retry\(skip)")
            lines.append("")
        }
        var table = Table([
            ("link", .left), ("position", .left), ("table", .left), ("change", .left), ("reason", .left), ("outcome", .left),
            ("key", .left),
        ])
        var rows = 0
        for link in recorded {
            if let error = link.error { lines.append(style.yellow("\(link.direction.way): \(ErrorRenderer.headline(error))")) }
            for record in link.history?.newest ?? [] {
                rows += 1
                table.append([
                    link.direction.rawValue, record.position.storedForm, Printable.text(record.table), record.change,
                    record.reason, record.outcome.rawValue, Printable.text(record.key),
                ])
            }
        }
        if rows > 0 { lines += table.lines(style: style) }
        let total = recorded.reduce(0) { $0 + ($1.history?.total ?? 0) }
        lines.append(total == 0 && open.isEmpty ? "no conflicts" : "\(Numbers.grouped(total)) recorded, \(rows) listed")
        for link in recorded where link.deadLetters > 0 {
            lines.append("\(link.deadLetters) in \(link.deadLetterFile)")
        }
        return lines
    }
}
