import BridgeCore
import Foundation
import Synchronization

/// Takes the differences of one chunk: so many are remembered, and all go to the file that was asked for.
final class DifferenceCollector: Sendable {
    struct Found: Sendable {
        var rows: [(key: KeyImage, sample: CheckReport.Sample)] = []
        var hasMore = false
    }

    private let found = Mutex(Found())
    private let file: DifferenceFile?
    private let table: String

    init(table: String, file: DifferenceFile?) {
        self.table = table
        self.file = file
    }

    /// - Throws: `inputOutput`, `diskFull`.
    func take(_ sample: CheckReport.Sample, _ key: KeyImage) throws(BridgeError) {
        found.withLock { found in
            if found.rows.count < SuspectSet.mostOfTable {
                found.rows.append((key, sample))
            } else {
                found.hasMore = true
            }
        }
        try file?.write(sample, table: table)
    }

    var all: Found { found.withLock { $0 } }
}

/// All differing keys, one JSON object a line.
final class DifferenceFile: Sendable {
    private struct Line: Encodable {
        var table: String
        var difference: CheckReport.Sample
    }

    private struct Output {
        let handle: FileHandle
        let encoder: JSONEncoder
    }

    private let output: Mutex<Output>
    private let path: String

    /// - Throws: `inputOutput` if the file cannot be made.
    init(path: String) throws(BridgeError) {
        self.path = path
        guard FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]),
            let handle = FileHandle(forWritingAtPath: path)
        else {
            throw BridgeError(.inputOutput, "the file for the differences cannot be made", context: [.init(.file, path)])
        }
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        output = Mutex(Output(handle: handle, encoder: encoder))
    }

    func write(_ sample: CheckReport.Sample, table: String) throws(BridgeError) {
        do {
            try output.withLock { output in
                var line = try output.encoder.encode(Line(table: table, difference: sample))
                line.append(UInt8(ascii: "\n"))
                try output.handle.write(contentsOf: line)
            }
        } catch {
            throw BridgeError(.inputOutput, "the differences cannot be written", context: [.init(.file, path)])
        }
    }
}
