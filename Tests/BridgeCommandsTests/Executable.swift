import BridgeTestSupport
import Foundation
import Testing

/// The executable that the tests run, which the build put beside the test program.
enum Executable {
    static let path: String = {
        var folders: [String] = []
        if let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            folders.append((program as NSString).deletingLastPathComponent)
        }
        let package = (#filePath as NSString).deletingLastPathComponent + "/../.."
        folders += ["\(package)/.build/debug", "\(package)/.build/release"]
        return folders.map { "\($0)/bridge" }.first { FileManager.default.isExecutableFile(atPath: $0) } ?? "bridge"
    }()

    /// Runs it in `folder` to its end.
    static func run(
        _ arguments: [String], in folder: TemporaryDirectory? = nil, environment: [String: String?] = [:]
    ) async throws -> ChildProcess.Outcome {
        try await start(arguments, in: folder, environment: environment).wait()
    }

    static func start(
        _ arguments: [String], in folder: TemporaryDirectory? = nil, environment: [String: String?] = [:]
    ) throws -> ChildProcess {
        var variables: [String: String?] = [
            "BRIDGE_SOURCE": nil, "BRIDGE_TARGET": nil, "BRIDGE_CONFIG": nil, "BRIDGE_DATA_DIR": nil,
            "BRIDGE_LOG_LEVEL": nil,
        ]
        variables.merge(environment) { $1 }
        let command = ["/bin/sh", "-c", "cd \"$1\" && shift && exec \"$@\"", "sh", folder?.path ?? "/", path]
        return try ChildProcess(command + arguments, environment: variables)
    }
}

/// The one JSON object that a command printed.
func object(_ outcome: ChildProcess.Outcome) throws -> [String: Any] {
    try #require(
        try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any],
        "\(outcome.output)\(outcome.errors)")
}
