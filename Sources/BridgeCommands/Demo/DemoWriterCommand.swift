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
    @Option(help: "How many transactions a second each writer begins at the most.") var rate = 50
    @Option(help: "Where the application may have to go.") var other: String?
    @Option(help: "The file that tells where to write.") var routing: String?

    /// What the writers have done.
    struct Counts: Codable, Sendable {
        /// Transactions that were acknowledged.
        var commits = 0
        /// Of these, those on the side that the application moves to.
        var commitsOnTarget = 0
        var statements = 0
        var retries = 0
        /// By writer: the last number of its receipts that was acknowledged, from 1 without gaps.
        var receipts: [Int: Int] = [:]
    }

    private final class Shared: Sendable {
        let counts = Mutex(Counts())
        let isStopping = Atomic(false)
        let failure = Mutex<BridgeError?>(nil)
    }

    func run() async throws {
        let shared = Shared()
        let name = EngineName(rawValue: engine)
        let route = DemoRoute(
            source: DemoAddress(engine: name, place: place), target: other.map { DemoAddress(engine: name, place: $0) }, file: routing)
        let threads = (0..<max(1, min(writers, 50))).map { number in
            let pace = DemoPace(rate: rate, seed: seed &+ UInt64(number), start: .now)
            let thread = WriterThread {
                do throws(BridgeError) {
                    try Self.write(route, writer: number, seed: seed, pace, shared)
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
        _ route: DemoRoute, writer: Int, seed: UInt64, _ pace: DemoPace, _ shared: Shared
    ) throws(BridgeError) {
        var pace = pace
        var place = route.read()
        var session = try place.openSession()
        var workload = DemoWorkload(engine: place.engine, writer: writer, seed: seed)
        var receipt = 1
        while !shared.isStopping.load(ordering: .acquiring) {
            usleep(UInt32(pace.delay(at: .now) / .microseconds(1)))
            let transaction = workload.nextTransaction()
            do throws(BridgeError) {
                try session.execute(workload.begin)
                for statement in transaction.statements { try session.execute(statement) }
                if transaction.isRolledBack {
                    try session.execute("ROLLBACK")
                    continue
                }
                try session.execute("INSERT INTO receipts VALUES (\(writer), \(receipt))")
                try session.execute("COMMIT")
                let isOnTarget = place.place == route.target?.place
                shared.counts.withLock {
                    $0.commits += 1
                    $0.commitsOnTarget += isOnTarget ? 1 : 0
                    $0.statements += transaction.statements.count + 1
                    $0.receipts[writer] = receipt
                }
                receipt += 1
            } catch  where error.retry == .backoff || error.code == .changeRefused || error.code == .serverRefused {
                // Two writers met on one row, and an application tries something else; or writes are stopped here.
                shared.counts.withLock { $0.retries += 1 }
                guard shared.counts.withLock({ $0.retries < 1000 + $0.commits / 2 }) else { throw error }
                let now = route.read()
                if now.place != place.place {
                    place = now
                    session = try place.openSession()
                }
            }
        }
    }
}

/// Where the demo's application writes, as the routing file says.
struct DemoRoute: Sendable {
    let source: DemoAddress
    let target: DemoAddress?
    let file: String?

    private struct Routes: Decodable {
        struct Route: Decodable { var writes: String }
        var services: [String: Route]
    }

    func read() -> DemoAddress {
        guard let target, let file, let text = FileManager.default.contents(atPath: file),
            let routes = try? JSONDecoder().decode(Routes.self, from: text), routes.services["shop"]?.writes == "target"
        else { return source }
        return target
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
