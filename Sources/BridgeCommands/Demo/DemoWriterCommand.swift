import ArgumentParser
import BridgeCore
import Foundation
import Synchronization

/// The demo's application, in a process of its own: writes until its standard input closes, and writes a line of JSON
/// with its counts to stdout twice a second and at the end.
struct DemoWriterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo-writer", abstract: "The application of the demo.", shouldDisplay: false)

    @Option var engine: String
    @Option var place: String
    @Option var seed: UInt64
    @Option var writers = 2

    /// What the writers have done.
    struct Counts: Codable, Sendable {
        var commits = 0
        var statements = 0
        var retries = 0
    }

    private final class Shared: Sendable {
        let counts = Mutex(Counts())
        let isStopping = Atomic(false)
        let failure = Mutex<BridgeError?>(nil)
    }

    func run() async throws {
        let shared = Shared()
        let address = DemoAddress(engine: EngineName(rawValue: engine), place: place)
        let threads = (0..<max(1, min(writers, 50))).map { number in
            let thread = WriterThread {
                do throws(BridgeError) {
                    try Self.write(address, writer: number, seed: seed, shared)
                } catch {
                    shared.failure.withLock { $0 = $0 ?? error }
                    shared.isStopping.store(true, ordering: .releasing)
                }
            }
            thread.start()
            return thread
        }
        Self.waitForEndOfInput(shared)
        for thread in threads { thread.join() }
        Self.report(shared)
        if let failure = shared.failure.withLock({ $0 }) { throw failure }
    }

    /// Returns when the parent closes the pipe, or is gone, or a writer failed.
    private static func waitForEndOfInput(_ shared: Shared) {
        while !shared.isStopping.load(ordering: .acquiring) {
            var descriptor = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
            if poll(&descriptor, 1, 500) > 0 {
                var byte: UInt8 = 0
                if read(STDIN_FILENO, &byte, 1) <= 0 { break }
            }
            report(shared)
        }
        shared.isStopping.store(true, ordering: .releasing)
    }

    private static func report(_ shared: Shared) {
        let counts = shared.counts.withLock { $0 }
        guard let line = try? JSONEncoder().encode(counts) else { return }
        Console.shared.out(String(decoding: line, as: UTF8.self))
    }

    private static func write(
        _ address: DemoAddress, writer: Int, seed: UInt64, _ shared: Shared
    ) throws(BridgeError) {
        let session = try address.openSession()
        var workload = DemoWorkload(engine: address.engine, writer: writer, seed: seed)
        var pause = SeededRandom(seed: seed &+ UInt64(writer))
        while !shared.isStopping.load(ordering: .acquiring) {
            let statements = workload.nextTransaction()
            do throws(BridgeError) {
                for statement in statements { try session.execute(statement) }
                shared.counts.withLock {
                    $0.commits += 1
                    $0.statements += statements.count
                }
            } catch  where error.retry == .backoff || error.code == .changeRefused || error.code == .serverRefused {
                // Two writers met on one row: an application tries something else.
                shared.counts.withLock { $0.retries += 1 }
                guard shared.counts.withLock({ $0.retries < 1000 + $0.commits / 2 }) else { throw error }
            }
            usleep(UInt32(pause.next() % 4000))
        }
    }
}

/// A thread that can be waited for.
private final class WriterThread: Sendable {
    private let body: @Sendable () -> Void
    private let done = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable () -> Void) { self.body = body }

    func start() {
        let thread = Thread { [self] in
            body()
            done.signal()
        }
        thread.stackSize = 1 << 20
        thread.start()
    }

    func join() { done.wait() }
}
