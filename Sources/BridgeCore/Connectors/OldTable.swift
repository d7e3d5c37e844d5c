/// A table that the application has left for good, and the name that it gets where the operator asks for one.
package struct OldTable: Hashable, Sendable {
    package let table: TableName
    /// In the same schema.
    package let newName: String

    /// What every engine's names fit into: PostgreSQL cuts longer ones without a word.
    private static let longestName = 63

    package init(_ table: TableName, migration: String) {
        self.table = table
        let suffix = "_before_" + migration.map { $0 == "-" ? "_" : String($0) }.joined()
        guard (table.name + suffix).utf8.count > Self.longestName else {
            newName = table.name + suffix
            return
        }
        let hash = "_" + Self.hash(table.name)
        var beginning = ""
        for scalar in table.name.unicodeScalars {
            guard (beginning + String(scalar) + hash + suffix).utf8.count <= Self.longestName else { break }
            beginning.unicodeScalars.append(scalar)
        }
        newName = beginning + hash + suffix
    }

    /// FNV-1a over the name in lower case: the file may write it in another case than the database.
    private static func hash(_ name: String) -> String {
        var hash: UInt32 = 0x811C_9DC5
        for byte in name.utf8 {
            hash = (hash ^ UInt32((0x41...0x5A).contains(byte) ? byte + 0x20 : byte)) &* 0x0100_0193
        }
        let digits = String(hash, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    /// The same for many tables, in a fixed order.
    /// - Throws: `configurationInvalid` where two of them would get one name.
    package static func all(_ tables: some Sequence<TableName>, migration: String) throws(BridgeError) -> [OldTable] {
        let all = Set(tables).sorted().map { OldTable($0, migration: migration) }
        var names: Set<TableName> = []
        for old in all where !names.insert(TableName(schema: old.table.schema, name: old.newName.lowercased())).inserted {
            throw BridgeError(
                .configurationInvalid, "two old tables would get the name \(old.newName)",
                context: [.init(.table, old.table.description)], hint: leaving)
        }
        return all
    }

    /// What to do where nothing else helps.
    package static let leaving = "set cutover.old_tables to leave, and rename the table yourself"

    // MARK: What is to be done

    /// What a database shows of it.
    package struct Sight: Sendable {
        /// The table of the old name bears this migration's fence, which is for good.
        package var isFenced: Bool
        /// The table that bears it has the new name.
        package var isRenamed: Bool
        /// Something, whatever it is, has the new name.
        package var isTaken: Bool

        package init(isFenced: Bool, isRenamed: Bool, isTaken: Bool) {
            self.isFenced = isFenced
            self.isRenamed = isRenamed
            self.isTaken = isTaken
        }
    }

    /// Whether it is to be renamed, or has been.
    ///
    /// The fence tells the table that the application has left from one that somebody made meanwhile under a name that
    /// became free. It is removed after the rename: where there is none any more, a new name that is there is the table's.
    /// - Parameter isTrial: nothing was done yet, so whatever has the new name is somebody else's.
    /// - Throws: `configurationInvalid` for a name that is taken, and for a table that is not fenced.
    package func isToBeRenamed(_ sight: Sight, isTrial: Bool) throws(BridgeError) -> Bool {
        if sight.isRenamed { return false }
        if sight.isTaken {
            if !sight.isFenced, !isTrial { return false }
            throw BridgeError(
                .configurationInvalid, "the name that an old table is to get, \(newName), is taken",
                context: [.init(.table, table.description)],
                hint: "rename or drop what is called \(newName); or \(Self.leaving)")
        }
        guard sight.isFenced else {
            throw BridgeError(
                .configurationInvalid, "an old table is not fenced any more, so it may be somebody else's and is not renamed",
                context: [.init(.table, table.description)],
                hint: "bridge cutover status tells what differs; or \(Self.leaving)")
        }
        return true
    }
}
