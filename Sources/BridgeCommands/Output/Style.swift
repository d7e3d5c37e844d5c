#if canImport(Glibc)
    import Glibc
#else
    import Musl
#endif

/// Colours, where they are wanted.
package struct Style: Sendable {
    package var isColored: Bool

    package init(isColored: Bool) { self.isColored = isColored }

    package static let plain = Style(isColored: false)

    /// Colours only on a terminal, without `--no-color`, and with `NO_COLOR` unset or empty (no-color.org).
    package init(descriptor: Int32, noColor: Bool, environment: [String: String]) {
        isColored =
            !noColor && (environment["NO_COLOR"] ?? "").isEmpty && environment["TERM"] != "dumb"
            && isatty(descriptor) == 1
    }

    package func red(_ text: String) -> String { paint(text, "31") }
    package func green(_ text: String) -> String { paint(text, "32") }
    package func yellow(_ text: String) -> String { paint(text, "33") }
    package func cyan(_ text: String) -> String { paint(text, "36") }
    package func bold(_ text: String) -> String { paint(text, "1") }
    package func dim(_ text: String) -> String { paint(text, "2") }

    private func paint(_ text: String, _ code: String) -> String {
        isColored ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }
}
