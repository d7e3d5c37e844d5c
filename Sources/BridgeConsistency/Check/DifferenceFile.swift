import BridgeCore
import Foundation
import Synchronization

/// All rows found to differ, one JSON object a line, each once in a check.
///
/// Beside it stands a file without a name that has a hash of each line's key: whether a row is there already is asked of
/// that one, so that the memory needed does not grow with the number of rows.
final class DifferenceFile: Sendable {
    /// How long it was at some moment.
    struct Mark: Sendable {
        fileprivate var bytes: Int
        fileprivate var lines: Int
    }

    private struct Line: Encodable {
        var table: String
        var difference: CheckReport.Sample
    }

    /// Lines of one table, one behind the other.
    private struct Run {
        var table: Int
        var bytes: Int
        var lines: Int
    }

    private struct Output {
        let encoder: JSONEncoder
        var file: AppendedFile
        var hashes: AppendedFile
        var runs: [Run] = []
        /// Hashes of lines that are there.
        var known: Set<UInt128> = []
        var knowsAll = true

        var lines: Int { hashes.size / DifferenceFile.hashSize }
    }

    private static let hashSize = 16

    private let output: Mutex<Output>
    private let tables: [String]
    private let hasher = RowHasher()
    private let remembered: Int

    /// - Parameters:
    ///   - folder: where the file without a name is made.
    ///   - remembered: how many lines' hashes are held in memory.
    /// - Throws: `inputOutput` if the file cannot be made.
    init(path: String, tables: [String], folder: String, remembered: Int = 65_536) throws(BridgeError) {
        self.tables = tables
        self.remembered = remembered
        let file = try AppendedFile(path: path)
        do throws(BridgeError) {
            let encoder = JSONEncoder()
            encoder.keyEncodingStrategy = .convertToSnakeCase
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            output = Mutex(Output(encoder: encoder, file: file, hashes: try AppendedFile(in: folder)))
        } catch {
            file.close()
            throw error
        }
    }

    deinit {
        output.withLock { output in
            output.file.close()
            output.hashes.close()
        }
    }

    // MARK: - Writing

    /// Writes a row that is not there yet, which the caller knows.
    func write(_ sample: CheckReport.Sample, key: KeyImage, table: Int) throws(BridgeError) {
        try locked { output throws(BridgeError) in try add(sample, hash(key, table), table, to: &output) }
    }

    /// Writes those of the rows that are not there yet.
    func writeNew(_ rows: [(key: KeyImage, sample: CheckReport.Sample)], table: Int) throws(BridgeError) {
        guard !rows.isEmpty else { return }
        var wanted: [UInt128: CheckReport.Sample] = [:]
        for row in rows { wanted[hash(row.key, table)] = row.sample }
        let asked = wanted
        try locked { output throws(BridgeError) in
            var left = asked.filter { !output.known.contains($0.key) }
            guard !left.isEmpty else { return }
            if !output.knowsAll { try Self.removeKnown(&left, &output, remembered) }
            for (hash, sample) in left { try add(sample, hash, table, to: &output) }
        }
    }

    /// Walks through the hashes of all lines.
    private static func removeKnown(
        _ wanted: inout [UInt128: CheckReport.Sample], _ output: inout Output, _ remembered: Int
    ) throws(BridgeError) {
        try output.hashes.flush()
        if output.known.count + wanted.count > remembered { output.known = [] }
        var offset = 0
        while offset < output.hashes.size, !wanted.isEmpty {
            let part = try output.hashes.read(at: offset, count: min(1 << 20, output.hashes.size - offset))
            part.withUnsafeBytes { bytes in
                for place in stride(from: 0, to: bytes.count, by: hashSize) {
                    let hash = bytes.loadUnaligned(fromByteOffset: place, as: UInt128.self)
                    if wanted.removeValue(forKey: hash) != nil, output.known.count < remembered { output.known.insert(hash) }
                }
            }
            offset += part.count
        }
    }

    private func add(
        _ sample: CheckReport.Sample, _ hash: UInt128, _ table: Int, to output: inout Output
    ) throws(BridgeError) {
        guard var line = try? output.encoder.encode(Line(table: tables[table], difference: sample)) else {
            throw BridgeError(.internalFault, "a difference cannot be written as JSON")
        }
        line.append(UInt8(ascii: "\n"))
        try output.file.append(line)
        try output.hashes.append(withUnsafeBytes(of: hash) { Array($0) })
        if let last = output.runs.indices.last, output.runs[last].table == table {
            output.runs[last].bytes += line.count
            output.runs[last].lines += 1
        } else {
            output.runs.append(Run(table: table, bytes: line.count, lines: 1))
        }
        if output.known.count < remembered { output.known.insert(hash) } else { output.knowsAll = false }
    }

    /// All that was written is in the file afterwards.
    func finish() throws(BridgeError) { try locked { output throws(BridgeError) in try output.file.flush() } }

    // MARK: - Taking back

    /// What ``cut(to:)`` goes back to; void once a table was removed.
    func mark() throws(BridgeError) -> Mark {
        try locked { output throws(BridgeError) in Mark(bytes: output.file.size, lines: output.lines) }
    }

    /// Takes back what was written since.
    func cut(to mark: Mark) throws(BridgeError) {
        try locked { output throws(BridgeError) in
            var (bytes, lines) = (output.file.size - mark.bytes, output.lines - mark.lines)
            guard lines > 0 else { return }
            try output.file.cut(to: mark.bytes)
            try output.hashes.cut(to: mark.lines * Self.hashSize)
            while lines > 0, var last = output.runs.popLast() {
                let part = (bytes: min(bytes, last.bytes), lines: min(lines, last.lines))
                (bytes, lines) = (bytes - part.bytes, lines - part.lines)
                (last.bytes, last.lines) = (last.bytes - part.bytes, last.lines - part.lines)
                if last.lines > 0 { output.runs.append(last) }
            }
            Self.forget(&output)
        }
    }

    /// Takes back all that was written of a table.
    func remove(table: Int) throws(BridgeError) {
        try locked { output throws(BridgeError) in
            guard output.runs.contains(where: { $0.table == table }) else { return }
            var read = (bytes: 0, lines: 0)
            var kept = (bytes: 0, lines: 0)
            for run in output.runs {
                if run.table != table {
                    try output.file.move(from: read.bytes, to: kept.bytes, count: run.bytes)
                    try output.hashes.move(
                        from: read.lines * Self.hashSize, to: kept.lines * Self.hashSize, count: run.lines * Self.hashSize)
                    kept = (kept.bytes + run.bytes, kept.lines + run.lines)
                }
                read = (read.bytes + run.bytes, read.lines + run.lines)
            }
            try output.file.cut(to: kept.bytes)
            try output.hashes.cut(to: kept.lines * Self.hashSize)
            output.runs.removeAll { $0.table == table }
            Self.forget(&output)
        }
    }

    private static func forget(_ output: inout Output) {
        output.known = []
        output.knowsAll = output.lines == 0
    }

    // MARK: - Plumbing

    private func hash(_ key: KeyImage, _ table: Int) -> UInt128 {
        let own = key.bytes.withUnsafeBytes { hasher.hash($0) }
        return own ^ withUnsafeBytes(of: table) { hasher.hash($0) }
    }

    private func locked<Answer: Sendable>(
        _ body: (inout Output) throws(BridgeError) -> Answer
    ) throws(BridgeError) -> Answer {
        let result: Result<Answer, BridgeError> = output.withLock { output in
            do throws(BridgeError) { return .success(try body(&output)) } catch { return .failure(error) }
        }
        return try result.get()
    }
}
