#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

enum FolderListing {
    struct Missing: Error {}

    static func names(_ path: String) throws -> [String] {
        guard let folder = opendir(path) else { throw Missing() }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }
}
