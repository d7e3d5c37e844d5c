import Foundation
import Synchronization

/// The process's two output streams. stdout carries data; stderr carries logs, progress and errors.
package final class Console: Sendable {
    package static let shared = Console()

    private struct State {
        /// What stands on the terminal's last line without a line break, to be cleared before anything else is written.
        var transientLine = ""
    }
    private let state = Mutex(State())

    /// Whether stderr is a terminal, which is when progress is drawn.
    package let isInteractive = isatty(STDERR_FILENO) == 1

    /// Writes lines to stdout.
    package func out(_ text: String) { Self.write(text + "\n", to: STDOUT_FILENO) }

    /// Writes lines to stderr, above a progress line if there is one.
    package func err(_ text: String) {
        state.withLock { state in
            if state.transientLine.isEmpty {
                Self.write(text + "\n", to: STDERR_FILENO)
            } else {
                Self.write("\r\u{1B}[K\(text)\n\(state.transientLine)", to: STDERR_FILENO)
            }
        }
    }

    /// Replaces the progress line; an empty text removes it. Does nothing where stderr is no terminal.
    package func progress(_ line: String) {
        guard isInteractive else { return }
        let width = Self.terminalWidth
        state.withLock { state in
            state.transientLine = String(line.prefix(max(20, width - 1)))
            Self.write("\r\u{1B}[K\(state.transientLine)", to: STDERR_FILENO)
        }
    }

    static var terminalWidth: Int {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var copy = text
        copy.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let start = rest.baseAddress, rest.count > 0 {
                let written = Foundation.write(descriptor, start, rest.count)
                if written < 0 {
                    if errno == EINTR || errno == EAGAIN { continue }
                    // Nobody is left to be told.
                    return
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            }
        }
    }
}
