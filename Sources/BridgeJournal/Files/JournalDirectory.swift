import BridgeCore
import CBridgeSystem

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The directory of one journal.
struct JournalDirectory: Sendable {
    let path: String
    let files: any JournalFiles

    func path(of name: String) -> String { path + "/" + name }

    /// Makes the directory and those above it, durably, where they are missing.
    func create() throws(BridgeError) {
        var made: [String] = []
        var missing = path
        while mkdir(missing, 0o750) != 0 {
            if errno == EEXIST { break }
            guard errno == ENOENT, let parent = Self.parent(of: missing), parent != missing else {
                throw .system("cannot make the journal's directory", missing)
            }
            made.append(missing)
            missing = parent
        }
        made.append(missing)
        for directory in made.reversed() {
            guard mkdir(directory, 0o750) == 0 || errno == EEXIST else {
                throw .system("cannot make the journal's directory", directory)
            }
            try files.synchronizeDirectory(Self.parent(of: directory) ?? ".")
        }
    }

    private static func parent(of path: String) -> String? {
        var trimmed = path[...]
        while trimmed.count > 1, trimmed.last == "/" { trimmed.removeLast() }
        guard let slash = trimmed.lastIndex(of: "/") else { return trimmed == "." ? nil : "." }
        return slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
    }

    /// The names of what stands in the directory.
    /// - Throws: `journalMissing` if there is no such directory.
    func names() throws(BridgeError) -> [String] {
        guard let stream = opendir(path) else {
            if errno == ENOENT || errno == ENOTDIR {
                throw BridgeError(.journalMissing, "there is no journal", context: [.init(.file, path)])
            }
            throw .system("cannot read the journal's directory", path)
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }
}

/// Holds the journal's lock as long as it lives.
final class JournalLock: Sendable {
    private let file: OpenFile

    /// - Throws: `journalLocked`, naming process and host, if another writer has it.
    init(_ directory: JournalDirectory) throws(BridgeError) {
        let path = directory.path(of: JournalFileName.lock)
        let file = try SystemFiles().open(path, flags: O_RDWR | O_CREAT | O_CLOEXEC)
        guard bridge_lock_file(file.descriptor) == 0 else {
            guard errno == EWOULDBLOCK else { throw .system("cannot lock the journal", path) }
            throw Self.held(path, file)
        }
        let holder = Array("process \(getpid()) on host \(Self.hostName)\n".utf8)
        guard ftruncate(file.descriptor, 0) == 0 else { throw .system("cannot write the journal's lock", path) }
        try holder.withBytes { bytes throws(BridgeError) in try SystemFiles().write(bytes, to: file, at: 0) }
        self.file = file
    }

    private static func held(_ path: String, _ file: OpenFile) -> BridgeError {
        var text = [UInt8](repeating: 0, count: 512)
        let count = text.withUnsafeMutableBytes { pread(file.descriptor, $0.baseAddress, $0.count, 0) }
        let holder = String(decoding: text.prefix(max(0, count)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
        let who = holder.isEmpty ? "another process" : holder
        return BridgeError(
            .journalLocked, "the journal is being written by \(who)",
            context: [.init(.file, path), .init(.processes, who)])
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "unknown" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
