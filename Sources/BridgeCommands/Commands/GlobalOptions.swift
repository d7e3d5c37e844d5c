import ArgumentParser
import BridgeCore
import Foundation
import Logging

/// Options of every command.
struct GlobalOptions: ParsableArguments {
    @Option(
        name: .customLong("config"),
        help: ArgumentHelp("The configuration file. (default: bridge.yaml)", valueName: "file"),
        completion: .file(extensions: ["yaml", "yml"]))
    var configurationFile: String?

    @Option(
        name: .customLong("data-dir"),
        help: ArgumentHelp(
            "Where the journal and the state of a run are kept; overrides data_dir.", valueName: "folder"),
        completion: .directory)
    var dataDirectory: String?

    @Option(help: ArgumentHelp("How much is logged to stderr. (default: info)", valueName: "level"))
    var logLevel: LogLevel?

    @Option(help: ArgumentHelp("How a log line is written. (default: text)", valueName: "format"))
    var logFormat: ConsoleLogHandler.Format?

    @Flag(name: .customLong("no-color"), help: "Write without colours, as with NO_COLOR set.")
    var noColor = false

    var overrides: ConfigurationOverrides { .init(file: configurationFile, dataDirectory: dataDirectory) }
}

/// `--json`, for commands that report.
struct JSONOption: ParsableArguments {
    @Flag(name: .customLong("json"), help: "Write one JSON object to stdout.")
    var isOn = false
}

/// The words for `--log-level`, least grave first.
enum LogLevel: String, CaseIterable, ExpressibleByArgument {
    case trace, debug, info, notice, warning, error, critical

    var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }
}

extension ConsoleLogHandler.Format: ExpressibleByArgument {}

/// What a command works with besides its own options.
struct CommandContext: Sendable {
    let overrides: ConfigurationOverrides
    let environment: [String: String]
    let logger: Logger
    /// For stdout.
    let style: Style
    /// For stderr.
    let errorStyle: Style
    let registry: ConnectorRegistry

    /// - Parameter defaultLevel: from which level on is logged if nothing else says so.
    /// - Throws: `usage` for an environment variable that does not hold what it may.
    init(_ options: GlobalOptions, logLevel defaultLevel: LogLevel) throws(BridgeError) {
        let environment = ProcessInfo.processInfo.environment
        self.environment = environment
        overrides = options.overrides
        registry = .standard
        style = Style(descriptor: STDOUT_FILENO, noColor: options.noColor, environment: environment)
        let errorStyle = Style(descriptor: STDERR_FILENO, noColor: options.noColor, environment: environment)
        self.errorStyle = errorStyle
        let level = try Self.choose(options.logLevel, "BRIDGE_LOG_LEVEL", environment) ?? defaultLevel
        let format = try Self.choose(options.logFormat, "BRIDGE_LOG_FORMAT", environment) ?? .text
        logger = Logger(label: "bridge") { _ in ConsoleLogHandler(level: level.level, format: format, style: errorStyle)
        }
    }

    /// The flag, else the environment's word.
    private static func choose<Value: RawRepresentable>(
        _ flag: Value?, _ name: String, _ environment: [String: String]
    ) throws(BridgeError) -> Value? where Value.RawValue == String {
        if let flag { return flag }
        guard let text = environment[name], !text.isEmpty else { return nil }
        guard let value = Value(rawValue: text) else {
            throw BridgeError(
                .usage, "\(name) holds a word that is not known",
                hint: "bridge --help lists the words of --log-level and --log-format")
        }
        return value
    }

    func configuration() throws(BridgeError) -> Configuration {
        try ConfigurationLoader(environment: environment, registry: registry).load(overrides)
    }

    /// Prints a report: the JSON document where it was asked for, else the lines.
    func report(json: JSONOption, _ document: @autoclosure () -> JSONValue, _ lines: @autoclosure () -> [String]) {
        Console.shared.out(json.isOn ? document().pretty : lines().joined(separator: "\n"))
    }
}
