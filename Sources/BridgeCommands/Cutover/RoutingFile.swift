package import BridgeCore
import BridgeReplication

/// The routes as a file, for applications that rather watch one than ask a database. It is replaced as a whole.
package struct RoutingFile: Sendable {
    package let path: String

    package init(path: String) { self.path = path }

    /// The object in the file, and in the JSON of verbs.
    package static func json(_ migration: String, _ routes: [Route]) -> JSONValue {
        [
            "format_version": 1,
            "migration": .string(migration),
            "epoch": .integer(routes.map(\.epoch).max() ?? 0),
            "services": .object(
                routes.sorted { $0.service < $1.service }.map { JSONValue.Member(name: $0.service, value: json($0)) }),
        ]
    }

    package static func json(_ route: Route) -> JSONValue {
        [
            "reads": .string(route.reads), "writes": .string(route.writes), "epoch": .integer(route.epoch),
            "published_at": .string(route.publishedAt.rfc3339),
        ]
    }

    /// Replaces the file. Blocks.
    /// - Throws: `inputOutput`, `diskFull`.
    package func write(_ migration: String, _ routes: [Route]) throws(BridgeError) {
        // Not secret: applications of other users read it.
        try WholeFile(path: path, what: "the routing file", permissions: 0o644).write(Self.json(migration, routes).pretty + "\n")
    }
}
