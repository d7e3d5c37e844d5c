#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// The built `bridge` program, which stands beside the test program in the build folder.
package enum BridgeProgram {
    /// Its path.
    package static var path: String {
        get throws {
            var buffer = [UInt8](repeating: 0, count: 4096)
            let length = readlink("/proc/self/exe", &buffer, buffer.count)
            let own = String(decoding: buffer[..<max(0, length)], as: UTF8.self)
            let folder = own.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            let path = "\(folder)/bridge"
            guard access(path, X_OK) == 0 else {
                throw ChildProcess.Failure("\(path) is not built; swift build makes it")
            }
            return path
        }
    }

    /// Writes a configuration for a migration of whole tables into a folder; returns the file's path.
    /// - Parameter settings: more lines of the file.
    package static func configure(
        in folder: TemporaryDirectory, migration: String, source: String, target: String, tables: [String],
        settings: String = ""
    ) throws -> String {
        let quoted = tables.map { "      - \"\($0.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\\\""))\"\n" }
        try folder.write(
            "bridge.yaml",
            """
            migration: \(migration)
            source: "\(source)"
            target: "\(target)"
            data_dir: "\(folder.path("data"))"
            services:
              all:
                tables:
            \(quoted.joined())\(settings)
            """)
        return folder.path("bridge.yaml")
    }

    /// Runs it to its end.
    package static func run(
        _ arguments: [String], environment: [String: String?] = [:]
    ) async throws -> ChildProcess.Outcome {
        await (try ChildProcess([try path] + arguments, environment: environment)).wait()
    }
}
