import ArgumentParser
package import BridgeCore
import Foundation

/// The program behind the executable: reads the command line, runs the command, renders its error, and exits with the
/// status that the contract names.
package enum Program {
    package static func main() async -> Never {
        let arguments = Array(CommandLine.arguments.dropFirst())
        exit(await run(arguments).rawValue)
    }

    /// Runs one command line; everything that is to be said has been said when it returns.
    package static func run(_ arguments: [String]) async -> ExitStatus {
        let style = Style(
            descriptor: STDERR_FILENO, noColor: arguments.contains("--no-color"),
            environment: ProcessInfo.processInfo.environment)
        if let topic = HelpTopic(arguments) {
            Console.shared.out(topic.text(asJSON: arguments.contains("--json")))
            return .done
        }
        do {
            var command = try BridgeCommand.parseAsRoot(arguments)
            if let command = command as? any BridgeSubcommand {
                return try await command.execute(
                    CommandContext(command.global, logLevel: type(of: command).logLevel))
            }
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
            return .done
        } catch let error as BridgeError {
            Console.shared.progress("")
            Console.shared.err(ErrorRenderer.text(error, style: style))
            return error.exitStatus
        } catch {
            return report(error, style: style)
        }
    }

    /// Requests for help and complaints about the command line, which ArgumentParser throws.
    private static func report(_ error: any Error, style: Style) -> ExitStatus {
        guard BridgeCommand.exitCode(for: error) != .success else {
            let text = BridgeCommand.fullMessage(for: error)
            if !text.isEmpty { Console.shared.out(text) }
            return .done
        }
        // The full message ends with the usage of the command that was meant, which names it.
        let usage = BridgeCommand.fullMessage(for: error).split(separator: "\n").first { $0.hasPrefix("Usage: ") }
        let words = usage?.dropFirst("Usage: ".count).split(separator: " ") ?? []
        let command = words.prefix { !$0.hasPrefix("[") && !$0.hasPrefix("<") && !$0.hasPrefix("-") }
        // ArgumentParser lists allowed words one a line.
        let message = BridgeCommand.message(for: error).replacing(":\n  - ", with: ": ").replacing("\n  - ", with: ", ")
        let sentence = message.prefix(1).lowercased() + message.dropFirst()
        let failure = BridgeError(
            .usage, sentence.hasSuffix(".") ? String(sentence.dropLast()) : sentence,
            hint: (command.isEmpty ? "bridge" : command.joined(separator: " ")) + " --help")
        Console.shared.err(ErrorRenderer.text(failure, style: style))
        return .usage
    }
}

/// Pages of help that are not a command's: `bridge help exit-codes`.
private enum HelpTopic {
    case exitCodes

    init?(_ arguments: [String]) {
        let words = arguments.filter { !$0.hasPrefix("-") }
        guard words == ["help", "exit-codes"] else { return nil }
        self = .exitCodes
    }

    func text(asJSON: Bool) -> String {
        guard asJSON else {
            var table = Table([("status", .right), ("meaning", .left)])
            for status in ExitStatus.allCases { table.append(["\(status.rawValue)", status.meaning]) }
            return table.lines(style: .plain).joined(separator: "\n")
        }
        let rows = ExitStatus.allCases.map { status -> JSONValue in
            ["status": .integer(Int64(status.rawValue)), "meaning": .string(status.meaning)]
        }
        return (["format_version": 1, "exit_codes": .array(rows)] as JSONValue).pretty
    }
}
