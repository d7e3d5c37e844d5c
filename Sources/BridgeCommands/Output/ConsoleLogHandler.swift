package import BridgeCore
package import Logging

/// Writes log lines to stderr, as text or as one JSON object a line.
package struct ConsoleLogHandler: LogHandler {
    package enum Format: String, CaseIterable, Sendable { case text, json }

    package var logLevel: Logger.Level
    package var metadata: Logger.Metadata = [:]
    private let format: Format
    private let style: Style

    package init(level: Logger.Level, format: Format, style: Style) {
        logLevel = level
        self.format = format
        self.style = style
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        let facts = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
        Console.shared.err(
            Self.line(
                level: event.level, message: "\(event.message)", facts: facts.map { ($0.key, "\($0.value)") },
                time: Timestamp.now, format: format, style: style))
    }

    /// One line: time, level, message, then `key=value`.
    package static func line(
        level: Logger.Level, message: String, facts: [(String, String)], time: Timestamp, format: Format, style: Style
    ) -> String {
        switch format {
        case .json:
            return JSONValue.object(
                [
                    .init(name: "time", value: .string(time.rfc3339)),
                    .init(name: "level", value: .string(level.rawValue)),
                    .init(name: "message", value: .string(message)),
                ] + facts.map { .init(name: $0.0, value: .string($0.1)) }
            ).compact
        case .text:
            let clock = String(time.rfc3339.dropFirst(11).prefix(12))
            let word = level.rawValue
            let colored: String =
                switch level {
                case .error, .critical: style.red(word)
                case .warning: style.yellow(word)
                default: style.dim(word)
                }
            let tail = facts.map { " \($0.0)=\($0.1.contains(" ") ? "\"\($0.1)\"" : $0.1)" }.joined()
            return "\(style.dim(clock)) \(colored) \(message)\(style.dim(tail))"
        }
    }
}
