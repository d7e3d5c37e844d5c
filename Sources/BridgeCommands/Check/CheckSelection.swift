import BridgeConsistency
import BridgeCore

/// Which tables `--table` means.
enum CheckSelection {
    /// - Parameter names: as they were written, with or without a schema; none for all tables.
    /// - Returns: the source's names, each once, in the order of the link; nil for all.
    /// - Throws: `usage` for a name that no table, or more than one, has.
    static func tables(_ names: [String], in link: LinkDescription) throws(BridgeError) -> [TableName]? {
        guard !names.isEmpty else { return nil }
        let all = link.mappings.map(\.source)
        var chosen: Set<TableName> = []
        for name in names {
            let exact = all.filter { $0.description == name }
            let found = exact.isEmpty ? all.filter { $0.name == name } : exact
            guard found.count < 2 else {
                throw BridgeError(
                    .usage, "more than one table of the migration is called '\(name)'",
                    hint: "write one of: \(found.map(\.description).joined(separator: ", "))")
            }
            guard let table = found.first else { throw unknown(name, all) }
            chosen.insert(table)
        }
        return all.filter(chosen.contains)
    }

    private static func unknown(_ name: String, _ all: [TableName]) -> BridgeError {
        let candidates = name.contains(".") ? all.map(\.description) : all.map(\.name)
        let near = nearestName(to: name, in: candidates)
        return BridgeError(
            .usage, "the migration has no table '\(name)'",
            hint: near.map { "write --table \($0)" } ?? "bridge config lists the tables")
    }
}
