import ArgumentParser
import BridgeCore
import BridgeJournal
import Foundation

struct JournalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "journal", abstract: "Look at the journal, without a database.",
        subcommands: [List.self, Verify.self, Dump.self])

    @OptionGroup var global: GlobalOptions

    /// Which journal.
    struct Place: ParsableArguments {
        @Option(
            name: .customLong("directory"),
            help: ArgumentHelp(
                "The journal's folder, in place of the one that bridge.yaml leads to.", valueName: "folder"),
            completion: .directory)
        var directory: String?

        /// - Throws: `journalMissing`, or what reading the configuration throws.
        func resolve(_ context: CommandContext) throws(BridgeError) -> String {
            let path: String
            if let directory {
                path = absolute(directory, in: FileManager.default.currentDirectoryPath)
            } else {
                path = DataDirectory(try context.configuration().dataDirectory).journalDirectory(.forward)
            }
            guard FileManager.default.fileExists(atPath: path) else {
                throw BridgeError(
                    .journalMissing, "there is no journal", context: [.init(.file, path)],
                    hint: "bridge run makes it; or name another folder with --directory")
            }
            return path
        }
    }

    struct List: BridgeSubcommand {
        static let configuration = CommandConfiguration(abstract: "List the journal's segments.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var place: Place
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let directory = try place.resolve(context)
            let segments = try await JournalInspector.list(directory: directory)
            context.report(json: json, Self.json(directory, segments), Self.lines(segments, context.style))
            return .done
        }

        private static func json(_ directory: String, _ segments: [JournalSegmentSummary]) -> JSONValue {
            [
                "format_version": 1, "directory": .string(directory),
                "segments": .array(
                    segments.map { segment in
                        [
                            "number": .integer(Int64(clamping: segment.number)), "file": .string(segment.file),
                            "bytes": .integer(Int64(clamping: segment.bytes)),
                            "uncompressed_bytes": .integer(Int64(clamping: segment.uncompressedBytes)),
                            "blocks": .integer(Int64(clamping: segment.blocks)),
                            "first_record": .integer(Int64(clamping: segment.firstRecord)),
                            "records": .integer(Int64(clamping: segment.records)),
                            "transactions": .integer(Int64(clamping: segment.transactions)),
                            "first_commit": JSONValue(segment.firstCommit?.storedForm),
                            "last_commit": JSONValue(segment.lastCommit?.storedForm),
                            "first_written": .string(segment.firstWritten.rfc3339),
                            "last_written": .string(segment.lastWritten.rfc3339),
                            "closed": .bool(segment.isClosed),
                        ]
                    }),
            ]
        }

        private static func lines(_ segments: [JournalSegmentSummary], _ style: Style) -> [String] {
            guard !segments.isEmpty else { return ["the journal is empty"] }
            var table = Table([
                ("segment", .left), ("bytes", .right), ("uncompressed", .right), ("blocks", .right),
                ("records", .right), ("transactions", .right), ("last written", .left), ("state", .left),
            ])
            for segment in segments {
                table.append([
                    (segment.file as NSString).lastPathComponent, Numbers.bytes(Int64(clamping: segment.bytes)),
                    Numbers.bytes(Int64(clamping: segment.uncompressedBytes)),
                    Numbers.grouped(Int64(clamping: segment.blocks)),
                    Numbers.grouped(Int64(clamping: segment.records)),
                    Numbers.grouped(Int64(clamping: segment.transactions)),
                    String(segment.lastWritten.rfc3339.prefix(19)) + "Z", segment.isClosed ? "closed" : "open",
                ])
            }
            return table.lines(style: style)
        }
    }

    struct Verify: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Read every block and check every checksum.",
            discussion: "Exits with 65 if anything is damaged, and names segment and offset.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var place: Place
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let directory = try place.resolve(context)
            let problems = try await JournalInspector.verify(directory: directory)
            let segments = problems.isEmpty ? try await JournalInspector.list(directory: directory) : []
            context.report(
                json: json, Self.json(directory, problems), Self.lines(problems, segments, context.style))
            guard let first = problems.first else { return .done }
            throw BridgeError(
                .journalDamaged, "the journal is damaged",
                context: [.init(.file, first.file), .init(.offset, "\(first.offset)")],
                hint: "restore the file from a backup, or empty the target tables and begin again under a new migration name")
        }

        private static func json(_ directory: String, _ problems: [JournalProblem]) -> JSONValue {
            [
                "format_version": 1, "directory": .string(directory), "intact": .bool(problems.isEmpty),
                "problems": .array(
                    problems.map { problem in
                        [
                            "file": .string(problem.file), "offset": .integer(Int64(clamping: problem.offset)),
                            "what": .string(problem.what),
                        ]
                    }),
            ]
        }

        private static func lines(
            _ problems: [JournalProblem], _ segments: [JournalSegmentSummary], _ style: Style
        ) -> [String] {
            guard problems.isEmpty else {
                return problems.map { "\(style.red("damaged"))  \($0.file), offset \($0.offset): \($0.what)" }
            }
            let records = segments.reduce(Int64(0)) { $0 + Int64(clamping: $1.records) }
            return [
                "\(style.green("intact"))  \(segments.count) segment\(segments.count == 1 ? "" : "s"), "
                    + "\(Numbers.grouped(records)) records"
            ]
        }
    }

    struct Dump: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Write the journal's changes to stdout, one JSON object a line.",
            discussion: "The lines hold the rows' values. 'debezium' writes Debezium's change-event envelope.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var place: Place
        @Option(help: ArgumentHelp("json or debezium.", valueName: "format"))
        var format: JournalInspector.DumpFormat = .json
        @Flag(name: .customLong("json"), help: "The same as --format json.")
        var json = false

        func validate() throws {
            if json, format != .json { throw ValidationError("--json and --format debezium exclude each other") }
        }

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let directory = try place.resolve(context)
            let output = LineOutput()
            try await JournalInspector.dump(directory: directory, format: format) { line throws(BridgeError) in
                try output.write(line)
            }
            try output.flush()
            return .done
        }
    }
}

extension JournalInspector.DumpFormat: ExpressibleByArgument {}
