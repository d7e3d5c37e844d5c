import ArgumentParser
import BridgeCore

/// The root of the command line.
struct BridgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bridge",
        abstract: "Moves tables out of a live database into a new one.",
        discussion: """
            bridge copies the chosen tables of a PostgreSQL or SQLite database into another one while it is being \
            written to, then keeps the copy in sync, and checks that both sides are the same.

            'bridge demo' shows it at work. 'bridge help exit-codes' prints what the exit statuses mean.
            """,
        version: ProductVersion.text,
        subcommands: [
            InitCommand.self, PreflightCommand.self, SchemaCommand.self, RunCommand.self, StatusCommand.self,
            CheckCommand.self, CutoverCommand.self, ConflictsCommand.self, JournalCommand.self, ConfigCommand.self, DemoCommand.self,
            DemoWriterCommand.self,
        ])

    @OptionGroup var global: GlobalOptions
}

/// What every command does in the same way.
protocol BridgeSubcommand: AsyncParsableCommand {
    var global: GlobalOptions { get }
    /// From which level on it logs unless told otherwise.
    static var logLevel: LogLevel { get }
    /// Does the work. What it returns is the process's exit status.
    func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus
}

extension BridgeSubcommand {
    static var logLevel: LogLevel { .info }
}

/// The version that `--version` prints and records of a run carry.
package enum ProductVersion {
    package static let text = "0.1.0"
}
