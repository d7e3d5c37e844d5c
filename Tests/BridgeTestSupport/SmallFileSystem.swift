import Foundation

/// A file system of one megabyte, where the user may mount one.
package struct SmallFileSystem {
    package let path: String

    package static let canMount: Bool = {
        guard let disk = try? SmallFileSystem() else { return false }
        disk.unmount()
        return true
    }()

    private struct CannotMount: Error {}

    package init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("bridge-disk-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        guard Self.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path) == 0 else {
            try? FileManager.default.removeItem(atPath: path)
            throw CannotMount()
        }
    }

    package func unmount() {
        _ = Self.run("umount", path)
        try? FileManager.default.removeItem(atPath: path)
    }

    private static func run(_ arguments: String...) -> Int32 {
        (try? ChildProcess(arguments))?.waitBlocking().status ?? -1
    }
}
