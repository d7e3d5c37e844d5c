import ArgumentParser
import BridgeCore

struct ConfigCommand: BridgeSubcommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Print the resolved configuration with secrets masked.")

    @OptionGroup var global: GlobalOptions
    @OptionGroup var json: JSONOption

    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
        let renderer = ConfigurationRenderer(configuration: try context.configuration())
        context.report(json: json, renderer.json, renderer.yaml)
        return .done
    }
}
