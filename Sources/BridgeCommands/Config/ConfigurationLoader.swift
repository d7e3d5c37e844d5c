package import BridgeCore
import Foundation

/// Finds `bridge.yaml` and lays environment and flags over it.
package struct ConfigurationLoader: Sendable {
    package var environment: [String: String]
    package var workingDirectory: String
    package var registry: ConnectorRegistry

    package init(
        environment: [String: String] = ProcessInfo.processInfo.environment,
        workingDirectory: String = FileManager.default.currentDirectoryPath,
        registry: ConnectorRegistry = .standard
    ) {
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.registry = registry
    }

    /// The file that ``load(_:)`` would read, as an absolute path.
    package func path(_ overrides: ConfigurationOverrides) -> String {
        absolute(overrides.file ?? value("BRIDGE_CONFIG") ?? "bridge.yaml", in: workingDirectory)
    }

    /// - Throws: `configurationFileMissing`, `configurationInvalid`, `configurationUnknownKey`, `inputOutput`.
    package func load(_ overrides: ConfigurationOverrides = .init()) throws(BridgeError) -> Configuration {
        let path = path(overrides)
        let text = try read(path, named: overrides.file ?? value("BRIDGE_CONFIG") ?? "bridge.yaml")
        return try parse(text, path: path, overrides)
    }

    /// The same for text that was read already.
    package func parse(
        _ text: String, path: String, _ overrides: ConfigurationOverrides = .init()
    ) throws(BridgeError) -> Configuration {
        let directory = (path as NSString).deletingLastPathComponent
        let parser = ConfigurationParser(
            file: (path as NSString).lastPathComponent, directory: directory,
            substitution: Substitution(environment: environment), registry: registry)
        let dataDirectory = overrides.dataDirectory ?? value("BRIDGE_DATA_DIR")
        let given = ConfigurationParser.Given(
            source: try addressFromEnvironment("BRIDGE_SOURCE"), target: try addressFromEnvironment("BRIDGE_TARGET"),
            dataDirectory: dataDirectory)
        let parsed = try parser.parse(text, given: given)
        guard parsed.source.connection != parsed.target.connection else {
            throw BridgeError(
                .configurationInvalid, "'source' and 'target' are the same database",
                context: [.init(.file, parser.file)], hint: "correct 'target' in \(parser.file)")
        }
        var cutover = parsed.cutover
        cutover.routingFile = cutover.routingFile.map { absolute($0, in: directory) }
        var origins: [String: Configuration.Origin] = [:]
        for key in parsed.givenKeys { origins[key] = .file }
        if given.source != nil { origins["source"] = .environment }
        if given.target != nil { origins["target"] = .environment }
        if dataDirectory != nil { origins["data_dir"] = overrides.dataDirectory != nil ? .flag : .environment }
        return Configuration(
            migration: parsed.migration, source: parsed.source, target: parsed.target,
            dataDirectory: dataDirectory.map { absolute($0, in: workingDirectory) }
                ?? absolute(parsed.dataDirectory ?? "./bridge-data", in: directory),
            services: parsed.services, replication: parsed.replication, check: parsed.check, cutover: cutover,
            file: path, origins: origins)
    }

    /// A variable that is set and not empty.
    private func value(_ name: String) -> String? { environment[name].flatMap { $0.isEmpty ? nil : $0 } }

    private func addressFromEnvironment(_ name: String) throws(BridgeError) -> DatabaseAddress? {
        guard let text = value(name) else { return nil }
        do throws(BridgeError) {
            return try DatabaseAddress(text, relativeTo: workingDirectory, registry: registry)
        } catch {
            throw BridgeError(error.code, "\(name): \(error.message)", hint: error.hint)
        }
    }

    private func read(_ path: String, named name: String) throws(BridgeError) -> String {
        guard let data = FileManager.default.contents(atPath: path) else {
            guard FileManager.default.fileExists(atPath: path) else {
                throw BridgeError(.configurationFileMissing, "there is no \(name) here", context: [.init(.file, path)])
            }
            throw BridgeError(.inputOutput, "the configuration cannot be read", context: [.init(.file, path)])
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw BridgeError(.configurationInvalid, "the file is not UTF-8 text", context: [.init(.file, path)])
        }
        return text
    }
}

/// A path made absolute, with `.` and `..` resolved by text.
package func absolute(_ path: String, in directory: String) -> String {
    let joined = path.hasPrefix("/") ? path : directory + "/" + path
    var parts: [Substring] = []
    for part in joined.split(separator: "/") where part != "." {
        if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return "/" + parts.joined(separator: "/")
}
