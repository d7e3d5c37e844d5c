import BridgeCore

/// The temporary table in which rows wait for their place in a target table. It has the target's writable columns with
/// their affinities, collations and defaults, so that values are stored and compared as there, and no constraint.
struct AsideTable: Sendable {
    let quoted: String
    let rowidName: String?
    /// Makes it, empty. It goes when the transaction is rolled back; after a commit the empty table is used again.
    let creation: String
    /// The column that says which change of the transaction a row was brought here by, and the expression for the present
    /// one; see ``setPlace``.
    let extra: (column: String, value: String)
    /// Says which change is the present one: its place in its transaction is the parameter.
    let setPlace: String
    /// Each row's own name and the change that brought it; nil where a row has no name.
    let places: String?
    /// Inserts one row, by its name, into the target table.
    let moveOneBack: String
    /// Inserts all its rows into the target table.
    let moveBack: String
    /// The same; rows that are in the way are deleted.
    let moveBackDisplacing: String
    private let copyAll: String

    init(_ plan: RelationPlan) {
        let table = plan.target.table
        let name = "_bridge_aside_\(plan.relation.id)"
        let writable = table.columns.filter { $0.kind == .ordinary }
        let names = writable.map { quoteIdentifier($0.name) }.joined(separator: ", ")
        quoted = "temp.\(name)"
        let taken = Set(table.columns.map { foldCase($0.name) })
        rowidName = ["rowid", "_rowid_", "oid"].first { !taken.contains($0) }
        let definitions = writable.map { column in
            var definition = quoteIdentifier(column.name) + Self.declaration(column.affinity)
            if column.collation != "BINARY" { definition += " COLLATE \(quoteIdentifier(column.collation))" }
            if let value = column.defaultExpression { definition += " " + sqliteDefaultClause(value) }
            return definition
        }
        let place = Self.free("_bridge_place", taken)
        extra = (place, "(SELECT place FROM temp.\(name)_now)")
        setPlace = "INSERT OR REPLACE INTO temp.\(name)_now(one, place) VALUES(1, ?1)"
        var statements =
            "DROP TABLE IF EXISTS \(quoted); CREATE TABLE \(quoted)(\((definitions + [place]).joined(separator: ", ")));"
            + " DROP TABLE IF EXISTS temp.\(name)_now; CREATE TABLE temp.\(name)_now(one INTEGER PRIMARY KEY, place);"
        let keys = plan.text.columns.filter(\.isKey).map(\.quoted)
        if !keys.isEmpty { statements += " CREATE INDEX temp.\(name)_key ON \(name)(\(keys.joined(separator: ", ")))" }
        creation = statements
        let back = "INTO \(plan.target.quoted)(\(names)) SELECT \(names) FROM \(quoted)"
        moveBack = "INSERT \(back)"
        moveBackDisplacing = "INSERT OR REPLACE \(back)"
        if let rowidName {
            places = "SELECT \(rowidName), \(place) FROM \(quoted) ORDER BY \(rowidName)"
        } else {
            places = nil
        }
        moveOneBack = "\(moveBack) WHERE \(rowidName ?? "NULL") = ?1"
        copyAll = "INSERT INTO \(quoted)(\(names), \(place)) SELECT \(names), \(extra.value) FROM \(plan.target.quoted)"
    }

    /// A name that no column of the target has.
    private static func free(_ name: String, _ taken: Set<String>) -> String {
        var name = name
        while taken.contains(name) { name += "_" }
        return name
    }

    /// Copies the target's rows that fulfil a condition into it.
    func copy(where condition: String) -> String { "\(copyAll) WHERE \(condition)" }

    private static func declaration(_ affinity: Affinity) -> String {
        switch affinity {
        case .integer: " INTEGER"
        case .real: " REAL"
        case .text: " TEXT"
        case .numeric: " NUMERIC"
        case .blob: " BLOB"
        }
    }
}
