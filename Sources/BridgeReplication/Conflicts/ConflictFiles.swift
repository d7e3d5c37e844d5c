package import BridgeCore
import Foundation

/// What a link's folder in the data directory holds of changes that could not be applied:
///
/// - `stopped.json`: the change that the link stands at. Gone when it got on, or when somebody said what to do.
/// - `decisions.json`: the changes that are to be passed over. One whose place the target has passed means nothing any more.
/// - `dead-letters.jsonl`: the content of each of them, as `bridge journal dump` writes it, a line a change.
///
/// All are readable for their owner only: keys and rows stand in them. All of it blocks, on a thread of its own.
package actor ConflictFiles {
    private nonisolated let executor = ThreadExecutor(name: "conflicts")
    package nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    package nonisolated let directory: String

    /// - Parameter directory: made when something is to be written. The folder above it exists.
    package init(directory: String) { self.directory = directory }

    package nonisolated var stopPath: String { "\(directory)/stopped.json" }
    package nonisolated var decisionsPath: String { "\(directory)/decisions.json" }
    package nonisolated var deadLetterPath: String { "\(directory)/\(Self.deadLetterName)" }
    package static let deadLetterName = "dead-letters.jsonl"

    // MARK: The change that the link stands at

    /// Nil if the link stands at none.
    /// - Throws: `inputOutput` for a file that cannot be read: nobody may take it for none.
    package func stop() throws(BridgeError) -> ConflictStop? {
        let stop: ConflictStop? = try read(stopPath)
        guard let stop, stop.formatVersion == ConflictStop.currentVersion, UInt64(stop.commit) != nil else {
            if stop != nil { throw unreadable(stopPath) }
            return nil
        }
        return stop
    }

    package func put(_ stop: ConflictStop) throws(BridgeError) { try write(stop, to: stopPath, "the record of a stop") }

    /// Forgets the stop.
    package func clearStop() throws(BridgeError) {
        guard unlink(stopPath) == 0 || errno == ENOENT else { throw failure("cannot be removed", stopPath) }
    }

    /// Whether a stop is recorded. Cheap.
    package nonisolated var hasStop: Bool { access(stopPath, F_OK) == 0 }

    // MARK: Decisions

    /// The decisions about a link's changes; those about another capture are left out.
    package func decisions(_ binding: LinkBinding) throws(BridgeError) -> [SkipDecision] {
        try allDecisions().filter { $0.binding == binding }
    }

    private func allDecisions() throws(BridgeError) -> [SkipDecision] {
        let all: [SkipDecision] = try read(decisionsPath) ?? []
        guard all.allSatisfy({ UInt64($0.commit) != nil }) else { throw unreadable(decisionsPath) }
        return all
    }

    /// Writes the change's content to the dead-letter file, then the decision, then forgets the stop. Each is durable before
    /// the next, and each may be done again.
    /// - Parameter line: the change's content, a line of JSON.
    package func passOver(_ decision: SkipDecision, line: String) throws(BridgeError) {
        try exclusively { () throws(BridgeError) in
            guard let stop = try stop(), stop.binding == decision.binding, stop.canBeSkipped, stop.position == decision.position
            else {
                throw BridgeError(.conflictMissing, "the link does not stand at that change any more")
            }
            try appendDeadLetter(line)
            try Failpoint.deadLetterWritten.hit()
            var all = try allDecisions()
            if !all.contains(where: { $0.binding == decision.binding && $0.position == decision.position }) {
                all.append(decision)
                try write(all, to: decisionsPath, "the record of changes to pass over")
            }
            try Failpoint.skipDecided.hit()
            try clearStop()
        }
    }

    /// The dead-letter file's lines; none if there is no file. What a crash cut off is left out.
    package func deadLetters() throws(BridgeError) -> [String] {
        guard let data = FileManager.default.contents(atPath: deadLetterPath) else {
            if access(deadLetterPath, F_OK) != 0 { return [] }
            throw unreadable(deadLetterPath)
        }
        let text = String(decoding: data, as: UTF8.self)
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        lines.removeLast()
        return lines.map(String.init)
    }

    /// Appends a line unless it stands there already: whoever was killed behind this does it again.
    private func appendDeadLetter(_ line: String) throws(BridgeError) {
        guard try !deadLetters().contains(line) else { return }
        let isNew = access(deadLetterPath, F_OK) != 0
        let file = open(deadLetterPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure("cannot be opened", deadLetterPath) }
        defer { close(file) }
        // What a crash cut off is written over.
        var end = try wholeLines(file)
        guard ftruncate(file, end) == 0 else { throw failure("cannot be cut", deadLetterPath) }
        var bytes = Array((line + "\n").utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, end) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("cannot be written", deadLetterPath) }
            bytes = bytes.dropFirst(count)
            end += off_t(count)
        }
        guard fsync(file) == 0 else { throw failure("cannot be made durable", deadLetterPath) }
        if isNew { try syncDirectory() }
    }

    /// Where the last whole line ends.
    private func wholeLines(_ file: Int32) throws(BridgeError) -> off_t {
        var end = lseek(file, 0, SEEK_END)
        guard end >= 0 else { throw failure("cannot be read", deadLetterPath) }
        var byte: UInt8 = 0
        while end > 0 {
            guard pread(file, &byte, 1, end - 1) == 1 else { throw failure("cannot be read", deadLetterPath) }
            if byte == UInt8(ascii: "\n") { break }
            end -= 1
        }
        return end
    }

    // MARK: Details

    private func makeDirectory() throws(BridgeError) {
        guard mkdir(directory, 0o700) != 0 else {
            // Its own entry must last as what is written into it.
            return try sync((directory as NSString).deletingLastPathComponent)
        }
        guard errno == EEXIST else { throw failure("cannot be made", directory) }
    }

    private func syncDirectory() throws(BridgeError) { try sync(directory) }

    private func sync(_ path: String) throws(BridgeError) {
        let folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw failure("cannot be opened", path) }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw failure("cannot be made durable", path) }
    }

    /// Two commands at a time would overwrite each other's decisions.
    private func exclusively(_ body: () throws(BridgeError) -> Void) throws(BridgeError) {
        try makeDirectory()
        let path = "\(directory)/lock"
        let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw failure("cannot be opened", path) }
        defer { close(file) }
        guard flock(file, LOCK_EX) == 0 else { throw failure("cannot be locked", path) }
        try body()
    }

    private func write(_ value: some Encodable, to path: String, _ what: String) throws(BridgeError) {
        try makeDirectory()
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { throw BridgeError(.internalFault, "\(what) cannot be encoded") }
        try WholeFile(path: path, what: what, permissions: 0o600).write(String(decoding: data, as: UTF8.self) + "\n")
    }

    /// Nil if there is no file.
    private func read<Value: Decodable>(_ path: String) throws(BridgeError) -> Value? {
        guard let data = FileManager.default.contents(atPath: path) else {
            guard access(path, F_OK) != 0, errno == ENOENT else { throw unreadable(path) }
            return nil
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let value = try? decoder.decode(Value.self, from: data) else { throw unreadable(path) }
        return value
    }

    private func unreadable(_ path: String) -> BridgeError {
        BridgeError(
            .inputOutput, "a file about changes that could not be applied cannot be read", context: [.init(.file, path)],
            hint: "restore the file from a backup; nothing is applied or passed over meanwhile")
    }

    private func failure(_ problem: String, _ path: String) -> BridgeError {
        let reason = errno
        return BridgeError(
            reason == ENOSPC || reason == EDQUOT ? .diskFull : .inputOutput,
            "a file about changes that could not be applied \(problem)",
            context: [.init(.file, path), .init(.detail, String(cString: strerror(reason)))])
    }
}
