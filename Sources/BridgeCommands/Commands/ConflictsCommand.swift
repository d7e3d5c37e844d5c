import ArgumentParser
import BridgeCore
import BridgeReplication
import Foundation

struct ConflictsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "conflicts", abstract: "Changes that could not be applied, and what becomes of them.",
        subcommands: [List.self, Skip.self, Retry.self])

    @OptionGroup var global: GlobalOptions

    /// Which link, where there are two.
    struct Place: ParsableArguments {
        @Option(
            help: ArgumentHelp(
                "The way forward or the way back; needed only when both stand at a change.", valueName: "forward|reverse"))
        var link: LinkDescription.Direction?

        @Option(
            help: ArgumentHelp(
                "Only if the link stands at this change, as 'bridge conflicts list' writes it.", valueName: "position"))
        var position: String?

        /// The one change that is meant.
        /// - Throws: `conflictMissing` where no link, or not the named one, stands at such a change; `usage` where two do.
        func resolve(_ configuration: Configuration) async throws(BridgeError) -> OpenConflict {
            var open = try await OpenConflict.all(configuration)
            if let link { open.removeAll { $0.direction != link } }
            guard let first = open.first else {
                throw BridgeError(.conflictMissing, "\(link.map(\.way) ?? "no link") stands at no change that cannot be applied")
            }
            guard open.count == 1 else {
                throw BridgeError(
                    .usage, "both links stand at a change that cannot be applied", hint: "say which: --link forward, or --link reverse")
            }
            if let position {
                guard let asked = Position(storedForm: position) else {
                    throw BridgeError(.usage, "--position is no position", hint: "bridge conflicts list writes it")
                }
                guard asked == first.stop.position else {
                    throw BridgeError(
                        .conflictMissing, "\(first.direction.way) stands at another change",
                        context: [.init(.position, first.stop.position.storedForm)])
                }
            }
            return first
        }
    }

    struct List: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "List the change that a link stands at, and those that were not applied as the source made them.",
            discussion: """
                The lists hold keys of rows. A change that was passed over is, whole, in the link's dead-letter file, in the \
                form of 'bridge journal dump'.
                """)

        @OptionGroup var global: GlobalOptions
        @Option(help: ArgumentHelp("How many of those that are recorded are listed, newest last.", valueName: "count"))
        var limit = 100
        @OptionGroup var json: JSONOption

        func validate() throws {
            if limit < 0 { throw ValidationError("--limit must not be negative") }
        }

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let configuration = try context.configuration()
            let list = try await ConflictList.collect(configuration, context.registry, limit: limit)
            context.report(json: json, list.json, list.lines(context.style))
            return .done
        }
    }

    struct Skip: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Pass over the one change that a link stands at.",
            discussion: """
                The change is first written, whole, to the link's dead-letter file in the data directory, from which a person \
                can apply it by hand. Then it is left out, and the target records that it was. A change behind it that finds \
                no row, or another one in its way, becomes a conflict of its own. But a row of the target that was in the way \
                of a skipped insert counts as the source's from then on: later changes of its key change it, and a later \
                delete removes it. What a deferrable constraint of the target forbids shows at the commit only and cannot be \
                skipped: correct the target and run again.
                """)

        @OptionGroup var global: GlobalOptions
        @OptionGroup var place: Place
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let configuration = try context.configuration()
            let conflict = try await place.resolve(configuration)
            try await conflict.passOver()
            let runs = DirectoryLock.holder(of: DataDirectory(configuration.dataDirectory)) != nil
            let file = conflict.files.deadLetterPath
            context.report(
                json: json,
                conflict.json(
                    adding: [
                        .init(name: "done", value: "skipped"), .init(name: "dead_letter_file", value: .string(file)),
                        .init(name: "running", value: .bool(runs)),
                    ]),
                [
                    "passed over: \(conflict.title)", "its content is in \(file)",
                    runs ? "the running bridge goes on behind it" : "next: bridge run",
                ])
            return .done
        }
    }

    struct Retry: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Try the change that a link stands at again, after the target was corrected.",
            discussion: "A running bridge tries it at once; without one, the next 'bridge run' does.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var place: Place
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let configuration = try context.configuration()
            let conflict = try await place.resolve(configuration)
            try await conflict.files.clearStop()
            let runs = DirectoryLock.holder(of: DataDirectory(configuration.dataDirectory)) != nil
            context.report(
                json: json,
                conflict.json(adding: [.init(name: "done", value: "forgotten"), .init(name: "running", value: .bool(runs))]),
                [
                    "forgotten: \(conflict.title)",
                    runs ? "the running bridge tries it again now" : "next: bridge run, which tries it again",
                ])
            return .done
        }
    }
}

extension LinkDescription.Direction: ExpressibleByArgument {}
