import ArgumentParser
import BridgeCore
import Foundation

struct InitCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Look at both databases and write a commented bridge.yaml.",
        discussion: """
            SOURCE and TARGET are postgresql://user@host:port/database, sqlite:file.db or sqlite:/absolute/file.db. A \
            password in them is used to look, and is never written: the file gets a ${…} in its place.
            """)

    @OptionGroup var global: GlobalOptions
    @Argument(help: "The database to move tables out of.") var source: String
    @Argument(help: "The database to move them into.") var target: String
    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp("The tables to move, separated by commas. (default: all that can be)", valueName: "a,b"))
    var tables: [String] = []
    @Option(
        help: ArgumentHelp("The file to write. (default: bridge.yaml, or --config)", valueName: "file"),
        completion: .file(extensions: ["yaml", "yml"]))
    var output: String?
    @Option(help: ArgumentHelp("The migration's name. (default: made from the databases' names)", valueName: "name"))
    var migration: String?
    @Flag(help: "Replace the file if it exists.") var force = false
    @OptionGroup var json: JSONOption

    func validate() throws {
        if let migration, !MigrationName.isValid(migration) {
            throw ValidationError("the migration's name must be \(MigrationName.rule)")
        }
    }

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let loader = ConfigurationLoader(environment: context.environment, registry: context.registry)
        let path = absolute(output ?? loader.path(context.overrides), in: loader.workingDirectory)
        guard force || !FileManager.default.fileExists(atPath: path) else {
            throw BridgeError(
                .configurationInvalid, "the file exists already", context: [.init(.file, path)],
                hint: "name another file with --output, or replace it with --force")
        }
        let draft = try await draft(context, directory: (path as NSString).deletingLastPathComponent)
        let text = draft.text
        // What was written must be readable: a name that YAML would take for something else shows here.
        var environment = context.environment
        for name in draft.placeholders { environment[name] = "x" }
        for name in ["BRIDGE_SOURCE", "BRIDGE_TARGET", "BRIDGE_DATA_DIR"] { environment[name] = nil }
        if !draft.chosen.isEmpty {
            _ = try ConfigurationLoader(environment: environment, registry: context.registry).parse(text, path: path)
        }
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw BridgeError(.inputOutput, "the configuration cannot be written", context: [.init(.file, path)])
        }
        context.report(json: json, draft.json(path), draft.lines(path, context.style))
        return .done
    }

    private func draft(_ context: CommandContext, directory: String) async throws(BridgeError) -> ConfigurationDraft {
        let here = FileManager.default.currentDirectoryPath
        let sourceAddress = try address(source, "SOURCE", here, context.registry)
        let targetAddress = try address(target, "TARGET", here, context.registry)
        guard sourceAddress.connection != targetAddress.connection else {
            throw BridgeError(.usage, "SOURCE and TARGET are the same database", hint: "bridge init --help")
        }
        let sourceConnector = try context.registry.source(sourceAddress)
        let targetConnector = try context.registry.target(targetAddress)
        try await sourceConnector.connect()
        let found = try await sourceConnector.listTables()
        try await targetConnector.connect()
        let existing = try await targetConnector.listTables()
        await sourceConnector.close()
        await targetConnector.close()
        return try ConfigurationDraft(
            migration: migration, source: sourceAddress, target: targetAddress, directory: directory, found: found,
            existing: existing, wanted: tables.flatMap { $0.split(separator: ",").map(String.init) })
    }

    private func address(
        _ text: String, _ name: String, _ directory: String, _ registry: ConnectorRegistry
    ) throws(BridgeError) -> DatabaseAddress {
        do throws(BridgeError) {
            return try DatabaseAddress(text, relativeTo: directory, registry: registry)
        } catch {
            throw BridgeError(.usage, "\(name): \(error.message)", hint: error.hint)
        }
    }
}
