/// What the text of a CREATE TABLE says and no pragma does: CHECKs, names of constraints, the expressions of generated
/// columns, AUTOINCREMENT, deferrable foreign keys.
struct TableDefinition {
    struct Column {
        var name: String
        var collation: String?
        var generatedAs: String?
    }
    struct Check {
        var name: String?
        var expression: String
    }
    struct ForeignKey {
        var name: String?
        var isDeferrable = false
        var isInitiallyDeferred = false
    }
    struct Unique {
        var name: String?
    }

    private(set) var columns: [Column] = []
    private(set) var checks: [Check] = []
    /// In the order written; `PRAGMA foreign_key_list` counts them from the last.
    private(set) var foreignKeys: [ForeignKey] = []
    /// UNIQUE constraints in the order written.
    private(set) var uniques: [Unique] = []
    private(set) var primaryKeyName: String?
    private(set) var isAutoincrement = false

    private let tokens: SQLTokens

    init(_ sql: String) {
        tokens = SQLTokens(sql)
        guard let open = tokens.tokens.indices.first(where: { tokens.isSign($0, "(") }) else { return }
        let close = tokens.endOfGroup(open)
        for piece in tokens.splitAtCommas(open + 1..<max(open + 1, close - 1)) { readPiece(piece) }
    }

    private static let tableConstraints = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]

    private mutating func readPiece(_ piece: Range<Int>) {
        guard let first = piece.first else { return }
        if Self.tableConstraints.contains(where: { tokens.isKeyword(first, $0) }) {
            readConstraints(piece, column: nil)
        } else if let name = tokens.name(first) {
            columns.append(Column(name: name))
            readConstraints(first + 1..<piece.upperBound, column: columns.count - 1)
        }
    }

    /// Reads column or table constraints; SQLite needs no comma between table constraints.
    private mutating func readConstraints(_ range: Range<Int>, column: Int?) {
        var position = range.lowerBound
        var pendingName: String?
        while position < range.upperBound {
            if tokens.isKeyword(position, "CONSTRAINT") {
                pendingName = tokens.name(position + 1)
                position += 2
            } else if tokens.isKeyword(position, "DEFAULT") {
                position = endOfDefault(position + 1)
            } else if tokens.isKeyword(position, "COLLATE") {
                if let column { columns[column].collation = tokens.name(position + 1) }
                position += 2
            } else if tokens.isKeyword(position, "CHECK"), tokens.isSign(position + 1, "(") {
                let end = tokens.endOfGroup(position + 1)
                checks.append(Check(name: pendingName, expression: tokens.text(position + 2..<end - 1)))
                pendingName = nil
                position = end
            } else if tokens.isKeyword(position, "AS"), tokens.isSign(position + 1, "(") {
                let end = tokens.endOfGroup(position + 1)
                if let column { columns[column].generatedAs = tokens.text(position + 2..<end - 1) }
                position = end
            } else if tokens.isKeyword(position, "PRIMARY") {
                primaryKeyName = pendingName
                pendingName = nil
                position += 2
            } else if tokens.isKeyword(position, "UNIQUE") {
                uniques.append(Unique(name: pendingName))
                pendingName = nil
                position += 1
            } else if tokens.isKeyword(position, "AUTOINCREMENT") {
                isAutoincrement = true
                position += 1
            } else if tokens.isKeyword(position, "REFERENCES") {
                position = readReference(position + 1, name: pendingName, end: range.upperBound)
                pendingName = nil
            } else if tokens.isSign(position, "(") {
                // AUTOINCREMENT may stand inside: PRIMARY KEY(id AUTOINCREMENT).
                let end = tokens.endOfGroup(position)
                if (position..<end).contains(where: { tokens.isKeyword($0, "AUTOINCREMENT") }) {
                    isAutoincrement = true
                }
                position = end
            } else {
                position += 1
            }
        }
    }

    /// DEFAULT takes an expression in parentheses, or a literal or name, perhaps with a sign.
    private func endOfDefault(_ position: Int) -> Int {
        if tokens.isSign(position, "(") { return tokens.endOfGroup(position) }
        if tokens.isSign(position, "-") || tokens.isSign(position, "+") { return position + 2 }
        return position + 1
    }

    /// Reads behind REFERENCES: table, columns, actions, deferral. Returns where it ended.
    private mutating func readReference(_ start: Int, name: String?, end: Int) -> Int {
        var key = ForeignKey(name: name)
        var position = start + 1
        if tokens.isSign(position, "(") { position = tokens.endOfGroup(position) }
        scan: while position < end {
            if tokens.isKeyword(position, "ON") {
                position += tokens.isKeyword(position + 2, "SET") || tokens.isKeyword(position + 2, "NO") ? 4 : 3
            } else if tokens.isKeyword(position, "MATCH") {
                position += 2
            } else if tokens.isKeyword(position, "NOT"), tokens.isKeyword(position + 1, "DEFERRABLE") {
                position = endOfDeferral(position + 2)
            } else if tokens.isKeyword(position, "DEFERRABLE") {
                key.isDeferrable = true
                key.isInitiallyDeferred = tokens.isKeyword(position + 2, "DEFERRED")
                position = endOfDeferral(position + 1)
            } else {
                break scan
            }
        }
        foreignKeys.append(key)
        return position
    }

    private func endOfDeferral(_ position: Int) -> Int {
        tokens.isKeyword(position, "INITIALLY") ? position + 2 : position
    }
}

/// What the text of a CREATE INDEX says and no pragma does: expressions and the condition of a partial index.
struct IndexDefinition {
    /// The text of each part, without COLLATE and direction.
    private(set) var parts: [String] = []
    private(set) var predicate: String?

    init(_ sql: String) {
        let tokens = SQLTokens(sql)
        // The first parenthesis opens the list of parts: names before it are quoted if they hold one.
        guard let open = tokens.tokens.indices.first(where: { tokens.isSign($0, "(") }) else { return }
        let close = tokens.endOfGroup(open)
        for piece in tokens.splitAtCommas(open + 1..<max(open + 1, close - 1)) {
            var end = piece.upperBound
            if tokens.isKeyword(end - 1, "ASC") || tokens.isKeyword(end - 1, "DESC") { end -= 1 }
            while end - 2 > piece.lowerBound, tokens.isKeyword(end - 2, "COLLATE") { end -= 2 }
            parts.append(tokens.text(piece.lowerBound..<end))
        }
        if tokens.isKeyword(close, "WHERE") { predicate = tokens.text(close + 1..<tokens.count) }
    }
}
