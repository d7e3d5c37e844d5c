import BridgeCore

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The files in which transactions that are still running wait for their commit: one for each, in the session's folder.
///
/// They hold what ``StreamedTransactions`` keeps, and outlive neither the session nor, by more than the time to the next
/// start, the process. Nothing is synced. Only the file in use is open, so the number of transactions does not matter.
final class TransactionSpill {
    private static let suffix = ".streamed"
    /// Appended bytes are written once they are this many, or when the block ends.
    private static let writeSize = 256 << 10
    /// How much is written between two looks at the disk's room.
    private static let roomStep: UInt64 = 16 << 20

    private let workspace: CaptureWorkspace
    /// What of the open block was not written yet.
    let block = RecordBuffer(capacity: 64 << 10)
    private var sizes: [UInt32: UInt64] = [:]
    private(set) var totalBytes: UInt64 = 0
    /// Up to so many bytes the disk was seen to have room.
    private var roomKnown: UInt64 = 0
    private var open: (transaction: UInt32, file: SpillFile)?

    /// Makes the folder, and removes what an earlier session left in it.
    /// - Throws: `streamingRefused`.
    init(_ workspace: CaptureWorkspace) throws(BridgeError) {
        self.workspace = workspace
        guard Self.makeDirectory(workspace.directory) else {
            throw Self.failed("the folder for running transactions cannot be made", workspace.directory)
        }
        try removeFiles()
    }

    deinit { try? removeFiles() }

    // MARK: Writing

    /// Writes what was appended to ``block`` if there is enough of it, or if `isEnd`.
    /// - Throws: `streamingRefused`.
    func write(_ transaction: UInt32, isEnd: Bool) throws(BridgeError) {
        guard !block.isEmpty, isEnd || block.count >= Self.writeSize else {
            if isEnd { open = nil }
            return
        }
        try Failpoint.captureSpill.hit()
        if let budget = workspace.budget, totalBytes + UInt64(block.count) > UInt64(clamping: budget) {
            throw BridgeError(
                .streamingRefused,
                "running transactions take more than \(budget) bytes; from now on the source holds them until they commit",
                context: [.init(.file, workspace.directory)], hint: "a larger replication.journal_budget leaves more room for them")
        }
        try needRoom(block.count)
        let size = sizes[transaction] ?? 0
        let file: SpillFile
        if let open, open.transaction == transaction {
            file = open.file
        } else {
            file = try SpillFile(path(transaction), flags: O_WRONLY | O_CREAT | (size == 0 ? O_TRUNC : 0))
        }
        open = isEnd ? nil : (transaction, file)
        try file.write(block.bytes, at: size)
        sizes[transaction] = size + UInt64(block.count)
        totalBytes += UInt64(block.count)
        block.removeAll(retaining: 1 << 20)
    }

    /// Sees to it that the disk keeps as much free as is held here, beside what is about to be written: at its commit a
    /// transaction goes to the journal, which must not find the disk full with it. Asked again for each ``roomStep`` bytes.
    /// - Throws: `streamingRefused`.
    private func needRoom(_ count: Int) throws(BridgeError) {
        if totalBytes + UInt64(count) <= roomKnown { return }
        var facts = statvfs()
        // What cannot be asked cannot be short.
        guard statvfs(workspace.directory, &facts) == 0, facts.f_blocks > 0 else { return }
        let (free, isEndless) = UInt64(facts.f_bavail).multipliedReportingOverflow(by: UInt64(facts.f_frsize))
        guard isEndless || free >= totalBytes + 2 * (UInt64(count) + Self.roomStep) else {
            throw BridgeError(
                .streamingRefused,
                "the disk has \(free) bytes left, and running transactions take \(totalBytes), which their commit needs again; from now on the source holds them until they commit",
                context: [.init(.file, workspace.directory)], hint: "make room on the disk of data_dir")
        }
        roomKnown = totalBytes + UInt64(count) + Self.roomStep
    }

    /// Cuts a transaction back. Its block is closed.
    func cut(_ transaction: UInt32, to size: UInt64) throws(BridgeError) {
        guard let known = sizes[transaction], size < known else { return }
        guard truncate(path(transaction), off_t(clamping: size)) == 0 else {
            throw Self.failed("a running transaction cannot be cut back", path(transaction))
        }
        sizes[transaction] = size
        totalBytes -= known - size
        roomKnown = 0
    }

    /// Removes a transaction.
    func discard(_ transaction: UInt32) throws(BridgeError) {
        guard let known = sizes.removeValue(forKey: transaction) else { return }
        totalBytes -= known
        roomKnown = 0
        guard unlink(path(transaction)) == 0 || errno == ENOENT else {
            throw Self.failed("the file of a transaction cannot be removed", path(transaction))
        }
    }

    // MARK: Reading

    /// Reads back what was kept of a transaction; nil if that is nothing.
    func reader(_ commit: StreamCommit) throws(BridgeError) -> SpillReader? {
        guard (sizes[commit.transaction] ?? 0) == commit.length else {
            throw BridgeError(.internalFault, "a running transaction was not kept whole", context: [.init(.file, path(commit.transaction))])
        }
        guard commit.length > 0 else { return nil }
        return SpillReader(try SpillFile(path(commit.transaction), flags: O_RDONLY), length: commit.length)
    }

    // MARK: Files

    private func path(_ transaction: UInt32) -> String { "\(workspace.directory)/\(transaction)\(Self.suffix)" }

    /// Removes the files of all transactions. The folder may hold others, which are nobody's business here.
    private func removeFiles() throws(BridgeError) {
        guard let directory = opendir(workspace.directory) else {
            throw Self.failed("the folder for running transactions cannot be read", workspace.directory)
        }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            guard name.hasSuffix(Self.suffix) else { continue }
            let path = "\(workspace.directory)/\(name)"
            guard unlink(path) == 0 || errno == ENOENT else { throw Self.failed("a left-over file cannot be removed", path) }
        }
    }

    /// For the owner only: the files hold rows of the application.
    private static func makeDirectory(_ path: String) -> Bool {
        if mkdir(path, 0o700) == 0 || errno == EEXIST { return true }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return false }
        return makeDirectory(String(path[..<slash])) && (mkdir(path, 0o700) == 0 || errno == EEXIST)
    }

    /// The error for a system call that just failed. Whatever it is, the source can hold the transactions instead.
    fileprivate static func failed(_ what: String, _ path: String) -> BridgeError {
        let reason = String(cString: strerror(errno))
        return BridgeError(
            .streamingRefused, "\(what): \(reason); from now on the source holds large transactions until they commit",
            context: [.init(.file, path)], hint: "large transactions arrive sooner where there is room for them")
    }
}

/// One open file.
final class SpillFile {
    private let path: String
    private let descriptor: Int32

    fileprivate init(_ path: String, flags: Int32) throws(BridgeError) {
        self.path = path
        descriptor = open(path, flags | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw TransactionSpill.failed("the file of a running transaction cannot be opened", path) }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    fileprivate func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(BridgeError) {
        var done = 0
        while done < bytes.count {
            let count = pwrite(
                descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(clamping: offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw TransactionSpill.failed("a running transaction cannot be kept", path) }
            done += count
        }
    }

    fileprivate func read(_ room: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(BridgeError) -> Int {
        while true {
            let count = pread(descriptor, room.baseAddress, room.count, off_t(clamping: offset))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw TransactionSpill.failed("a transaction cannot be read back", path) }
            return count
        }
    }
}

/// Gives back the messages of one transaction, one by one.
final class SpillReader {
    private static let readSize = 256 << 10

    private let file: SpillFile
    private let length: UInt64
    private var position: UInt64 = 0
    private let buffer = RecordBuffer(capacity: readSize)
    private var offset = 0

    fileprivate init(_ file: SpillFile, length: UInt64) {
        self.file = file
        self.length = length
    }

    /// The next message, valid until the next call; nil behind the last.
    /// - Throws: `streamingRefused` if the file cannot be read: the source has the transaction still.
    func next() throws(BridgeError) -> UnsafeRawBufferPointer? {
        if offset == buffer.count, position == length { return nil }
        try need(4)
        let size = Int(UInt32(bigEndian: buffer.bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
        try need(4 + size)
        let message = UnsafeRawBufferPointer(rebasing: buffer.bytes[(offset + 4)..<(offset + 4 + size)])
        offset += 4 + size
        return message
    }

    /// Takes the last message back: ``next()`` gives it again.
    func stepBack(over message: UnsafeRawBufferPointer) { offset -= min(offset, message.count + 4) }

    /// Sees to it that so many bytes are in the buffer.
    private func need(_ count: Int) throws(BridgeError) {
        guard buffer.count - offset < count else { return }
        guard UInt64(count - (buffer.count - offset)) <= length - position else {
            throw BridgeError(.internalFault, "a transaction was not kept whole")
        }
        buffer.removeFirst(offset)
        offset = 0
        if buffer.isEmpty { buffer.removeAll(retaining: 1 << 20) }
        while buffer.count < count {
            let size = max(Self.readSize, count - buffer.count)
            let room = Int(clamping: min(UInt64(size), length - position))
            let before = buffer.count
            try buffer.appendUninitialized(room) { bytes throws(BridgeError) in try file.read(bytes, at: position) }
            position += UInt64(buffer.count - before)
        }
    }
}
