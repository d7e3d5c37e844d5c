import BridgeCore
import BridgeSQLite
import Foundation

/// How fast changes are applied to a SQLite file, against a plain prepared statement in the same run.
///
///     swift run -c release --package-path Benchmarks/sqlite_apply sqlite-apply
///         [--rows 500000] [--batch 10000] [--table 1000000] [--rounds 7] [--folder /dev/shm] [--json FILE]
///
/// Both write the same rows to files of their own in turns, first the one and then the other, and both files must be equal
/// at the end. Files are made in memory where there is a folder for that: the applier syncs every commit, and there a sync
/// costs nothing, so this is what applying costs with no sync at commit. Prints medians and ratios, and the same as JSON;
/// `processor` is the ratio in processor time, which a busy machine alters less. Exit status 0 only if every ratio is as wanted.
@main
struct SQLiteApply {
    var rows = 500_000
    var batch = 10_000
    var table = 1_000_000
    var rounds = 7
    var folder = FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
    var jsonFile: String?

    static func main() async throws {
        var program = SQLiteApply()
        guard program.read(Array(CommandLine.arguments.dropFirst())) else {
            say("options: --rows N --batch N --table N --rounds N --folder FOLDER --json FILE")
            exit(64)
        }
        exit(try await program.run() ? 0 : 1)
    }

    private mutating func read(_ words: [String]) -> Bool {
        guard words.count % 2 == 0 else { return false }
        for place in stride(from: 0, to: words.count, by: 2) {
            let value = words[place + 1]
            switch words[place] {
            case "--rows": rows = Int(value) ?? 0
            case "--batch": batch = Int(value) ?? 0
            case "--table": table = Int(value) ?? 0
            case "--rounds": rounds = Int(value) ?? 0
            case "--folder": folder = value
            case "--json": jsonFile = value
            default: return false
            }
        }
        return rows > 0 && batch > 0 && table > 0 && rounds > 0
    }

    private func run() async throws -> Bool {
        let place = folder + "/bench-apply-\(getpid())"
        try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: place) }
        say("\(rows) rows a round in batches of \(batch), \(rounds) rounds, files in \(folder)")
        var lines: [String] = []
        var isGood = true
        for work in Work.allCases {
            var plain: [Cost] = []
            var applied: [Cost] = []
            let side = try await Sides(work, folder: place, rowsBefore: work.isNew ? 0 : table)
            // The first round warms up and does not count.
            for round in 0...rounds {
                let costs = try await side.round(round, rows: rows, batch: batch, table: table)
                guard round > 0 else { continue }
                plain.append(costs.plain)
                applied.append(costs.applied)
            }
            try await side.finish()
            let ratios = zip(plain, applied).map { $0.seconds / $1.seconds }.sorted()
            let ratio = median(ratios)
            let processor = median(zip(plain, applied).map { $0.processor / $1.processor })
            let isAsWanted = ratio >= work.wanted
            isGood = isGood && isAsWanted
            let rates = [plain, applied].map { Int(Double(rows) / median($0.map(\.seconds))) }
            say(
                "\(work.rawValue): plain statement \(rates[0]) rows/s, applier \(rates[1]) rows/s, "
                    + String(
                        format: "ratio %.2f (from %.2f to %.2f), processor %.2f", ratio, ratios[0], ratios[ratios.count - 1],
                        processor)
                    + (isAsWanted ? "" : "   <- wanted \(work.wanted)"))
            lines.append(
                "\"\(work.rawValue)\": {\"plain_seconds\": \(plain.map(\.seconds)), \"applier_seconds\": "
                    + "\(applied.map(\.seconds)), \"ratio\": \(ratio), \"processor_ratio\": \(processor)}")
        }
        let json = "{\"rows\": \(rows), \"batch\": \(batch), \"table\": \(table), \(lines.joined(separator: ", "))}"
        say(json)
        if let jsonFile { try json.write(toFile: jsonFile, atomically: true, encoding: .utf8) }
        return isGood
    }
}

/// A line that is seen at once, wherever the output goes.
func say(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }

func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}

/// Time by the clock on the wall, and that of all threads of this process.
struct Cost {
    var seconds = 0.0
    var processor = 0.0

    static var now: Cost {
        func read(_ clock: clockid_t) -> Double {
            var time = timespec()
            clock_gettime(clock, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
        }
        return Cost(seconds: read(CLOCK_MONOTONIC), processor: read(CLOCK_PROCESS_CPUTIME_ID))
    }

    static func - (a: Cost, b: Cost) -> Cost { Cost(seconds: a.seconds - b.seconds, processor: a.processor - b.processor) }
}

/// The two files, and what writes to each.
private final class Sides {
    private let work: Work
    private let batches: Batches
    private let plain: PlainLoop
    private let appliedPath: String
    private let applier: any ChangeApplier
    private var commit: UInt64 = 2
    private var written = 0

    init(_ work: Work, folder: String, rowsBefore: Int) async throws {
        self.work = work
        batches = Batches(work)
        let paths = ["plain", "applied"].map { "\(folder)/\($0)-\(work.rawValue.split(separator: " ").joined()).db" }
        let before = Rows(count: rowsBefore, seed: 1) { Int64($0 + 1) }
        var loops: [PlainLoop] = []
        for path in paths {
            let loop = try PlainLoop(path: path)
            try loop.run("CREATE TABLE rows(id INTEGER PRIMARY KEY, customer INTEGER, name TEXT)")
            try loop.write(before, statement: Work.inserts.statement, batch: 100_000)
            if work.hasUniqueIndex { try loop.run("CREATE UNIQUE INDEX rows_customer ON rows(customer, id)") }
            loops.append(loop)
        }
        plain = loops[0]
        appliedPath = paths[1]
        let target = SQLiteTarget(path: appliedPath)
        try await target.adoptLink(batches.link, Batches.origin)
        applier = try await target.openApplier(batches.link)
    }

    /// What each side took for the same rows.
    func round(_ number: Int, rows count: Int, batch: Int, table: Int) async throws -> (plain: Cost, applied: Cost) {
        let first = written
        let seed = UInt64(number + 2) << 32
        let rows = Rows(count: count, seed: seed) { place in
            work.isNew ? Int64(first + place + 1) : Int64(Rows.mix(seed &+ UInt64(place)) % UInt64(table)) + 1
        }
        written += count
        let pieces = batches.make(rows, size: batch, from: commit)
        commit += UInt64(pieces.count)
        var costs = (plain: Cost(), applied: Cost())
        // The order changes from round to round, so that what drifts falls on both.
        for turn in 0..<2 {
            let began = Cost.now
            if (turn + number) % 2 == 0 {
                try plain.write(rows, statement: work.statement, batch: batch)
                costs.plain = Cost.now - began
            } else {
                for piece in pieces { try await applier.apply(piece) }
                costs.applied = Cost.now - began
            }
        }
        return costs
    }

    /// Both files hold the same rows: neither side left work out.
    func finish() async throws {
        await applier.close()
        let applied = try PlainLoop(path: appliedPath).digest()
        let wanted = try plain.digest()
        guard applied == wanted else { throw Failure("the two files differ: \(wanted) and \(applied)") }
    }
}
