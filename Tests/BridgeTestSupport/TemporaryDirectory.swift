#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A folder of its own under /tmp that goes when its owner goes. The path is short, since a Unix socket's path must
/// fit into 107 bytes.
package final class TemporaryDirectory: Sendable {
    package let path: String
    private let isKept: Bool

    /// - Parameter isKept: somebody else removes it.
    package init(prefix: String = "test", isKept: Bool = false) throws {
        var template = Array("/tmp/bridge-\(prefix)-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw ChildProcess.Failure("no temporary folder: \(String(cString: strerror(errno)))")
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.isKept = isKept
    }

    deinit { if !isKept { Self.remove(path) } }

    /// The path of something inside.
    package func path(_ name: String) -> String { "\(path)/\(name)" }

    /// Replaces a file's content.
    package func write(_ name: String, _ text: String) throws {
        guard let file = fopen(path(name), "we") else {
            throw ChildProcess.Failure("\(path(name)): \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        let bytes = Array(text.utf8)
        guard fwrite(bytes, 1, bytes.count, file) == bytes.count else {
            throw ChildProcess.Failure("\(path(name)): \(String(cString: strerror(errno)))")
        }
    }

    /// A whole file inside as text.
    package func read(_ name: String) throws -> String { try Self.readFile(path(name)) }

    /// A whole file as text.
    package static func readFile(_ path: String) throws -> String {
        guard let file = fopen(path, "re") else {
            throw ChildProcess.Failure("\(path): \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count <= 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk[..<count]
        }
    }

    /// Removes a folder and all that is in it, following no links.
    package static func remove(_ path: String) {
        if let folder = opendir(path) {
            var names: [String] = []
            while let entry = readdir(folder) {
                names.append(
                    withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) })
            }
            closedir(folder)
            for name in names where name != "." && name != ".." {
                let inner = "\(path)/\(name)"
                var status = stat()
                if lstat(inner, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
                    remove(inner)
                } else {
                    unlink(inner)
                }
            }
        }
        rmdir(path)
    }
}
