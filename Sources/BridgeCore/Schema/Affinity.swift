/// An SQLite column's affinity: how SQLite converts what is stored in it. Section 3.1 of SQLite's page on data types.
package enum Affinity: Hashable, Sendable {
    case integer, real, text, numeric, blob

    /// By the declared type's name.
    package init(declared: String, isStrict: Bool) {
        let name = declared.uppercased()
        if isStrict, name == "ANY" {
            self = .blob
        } else if name.contains("INT") {
            self = .integer
        } else if name.contains("CHAR") || name.contains("CLOB") || name.contains("TEXT") {
            self = .text
        } else if name.contains("BLOB") || name.isEmpty {
            self = .blob
        } else if name.contains("REAL") || name.contains("FLOA") || name.contains("DOUB") {
            self = .real
        } else {
            self = .numeric
        }
    }
}
