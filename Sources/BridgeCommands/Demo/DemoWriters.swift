import BridgeCore
import Foundation
import Synchronization

/// The process that plays the application, as the demo sees it.
final class DemoWriters: Sendable {
    private struct State {
        var counts = DemoWriterCommand.Counts()
        var status: Int32?
    }
    private let helper: HelperProcess
    private let state = Mutex(State())
    private let hasEnded = DispatchSemaphore(value: 0)

    var process: pid_t { helper.identifier }
    /// How many there are, and how many transactions a second each of them begins at the most.
    static let number = 2
    static let rate = 50

    /// What the writers last said of themselves.
    var counts: DemoWriterCommand.Counts { state.withLock { $0.counts } }

    /// Starts the process and returns once it has committed something.
    static func start(_ stage: any DemoStage, routing: String, seed: UInt64) async throws(BridgeError) -> DemoWriters {
        let executable = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? "bridge"
        let writers = DemoWriters(
            try HelperProcess(
                [
                    executable, "demo-writer", "--engine", stage.source.engine.rawValue, "--place", stage.source.place,
                    "--other", stage.target.place, "--routing", routing, "--seed", "\(seed)",
                    "--writers", "\(number)", "--rate", "\(rate)",
                ], output: .pipe))
        try await writers.wait { $0.commits > 0 }
        return writers
    }

    /// Waits until the writers say of themselves what is asked for.
    func wait(until isReached: (DemoWriterCommand.Counts) -> Bool) async throws(BridgeError) {
        let end = ContinuousClock.now + .seconds(60)
        while !isReached(counts) {
            if let failure { throw failure }
            guard ContinuousClock.now < end else {
                throw BridgeError(.internalFault, "the demo's writers do not write")
            }
            try? await Task.sleep(for: .milliseconds(20))
        }
    }

    private init(_ helper: HelperProcess) {
        self.helper = helper
        let thread = Thread { [self] in
            readLines()
            let status = helper.wait(for: .seconds(30))
            state.withLock { $0.status = status ?? -1 }
            hasEnded.signal()
        }
        thread.start()
    }

    /// Why the process ended although nobody asked it to, or did so badly; nil while it runs and if it ended well.
    var failure: BridgeError? {
        guard let status = state.withLock({ $0.status }), status != 0 else { return nil }
        return BridgeError(.internalFault, "the demo's writers ended with status \(status)")
    }

    /// Ends the process and gives its last counts. May be called again.
    @discardableResult
    func stop() -> DemoWriterCommand.Counts {
        helper.closeInput()
        hasEnded.wait()
        hasEnded.signal()
        return counts
    }

    private func readLines() {
        guard let output = helper.output else { return }
        var line: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(output, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            for byte in buffer[..<count] {
                guard byte == UInt8(ascii: "\n") else {
                    line.append(byte)
                    continue
                }
                if let counts = try? JSONDecoder().decode(DemoWriterCommand.Counts.self, from: Data(line)) {
                    state.withLock { $0.counts = counts }
                }
                line.removeAll()
            }
        }
    }
}
