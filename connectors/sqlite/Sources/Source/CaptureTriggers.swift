import BridgeCore

/// Writes the triggers that log the keys of one table's changed rows.
///
/// The log takes keys and no values, so a key too many does no harm and a key too few loses a change. Every rule here is
/// one that a differential test against SQLite has shown to be needed:
/// - BEFORE INSERT and BEFORE UPDATE log the rows that REPLACE would remove, because their delete triggers do not fire.
///   They are found through each unique index, with its collation.
/// - So does the rowid, where it is not the key: `UPDATE OR REPLACE t SET rowid = 3` removes the row that had it.
/// - BEFORE INSERT logs the new key wherever it is known by then: an AFTER trigger does not fire if a newer one of the
///   application skips (`RAISE(IGNORE)`), or fails in a way that leaves the row (`RAISE(FAIL)`, `OR FAIL`).
/// - AFTER INSERT logs the new key where SQLite may yet choose it: an automatic rowid is -1 before, and a default that
///   varies is not there yet. ``TriggerOrder`` keeps this trigger in front of the application's.
/// - NOT NULL with a DEFAULT is compared by what REPLACE will put there, which it does after BEFORE triggers ran.
/// - BEFORE UPDATE looks through an index for such rows only if a column of it changes: nobody else can have what the row has.
/// - No trigger is `UPDATE OF`: `SET rowid` and generated columns do not fire those.
///
/// The application may alter its table at any time, and SQLite refuses what would leave a trigger unreadable. So no trigger
/// may name a column that can be dropped, or must bear its absence: see `selection(through:)`.
struct CaptureTriggers {
    enum Event: String, CaseIterable {
        case beforeInsert = "bi"
        case afterInsert = "ai"
        case beforeUpdate = "bu"
        case afterUpdate = "au"
        case beforeDelete = "bd"

        var clause: String {
            switch self {
            case .beforeInsert: "BEFORE INSERT"
            case .afterInsert: "AFTER INSERT"
            case .beforeUpdate: "BEFORE UPDATE"
            case .afterUpdate: "AFTER UPDATE"
            case .beforeDelete: "BEFORE DELETE"
            }
        }
    }

    struct Trigger {
        let name: String
        let event: Event
        let sql: String
    }

    /// Around what says the same by whatever names, in texts that are made to be compared.
    static let mark: (begin: Character, end: Character) = ("\u{1}", "\u{2}")

    let table: SQLiteTable
    let number: Int64
    let names: CaptureNames
    var hasMarks = false

    /// All triggers of the table, in the order in which they are made.
    func make() throws(BridgeError) -> [Trigger] {
        var triggers: [Trigger] = []
        var before = try candidateSelections(isUpdate: false).map { "\(insert) \($0);" }
        if isKnownBefore { before.append("\(insert) VALUES(\(number), \(newKey));") }
        if !before.isEmpty { triggers.append(trigger(.beforeInsert, before)) }
        if !isKnownBefore || table.key.contains(where: { defaultMayVary($0) }) {
            triggers.append(trigger(.afterInsert, ["\(insert) VALUES(\(number), \(key { "NEW.\($0)" }));"]))
        }
        var update = ["\(insert) VALUES(\(number), \(newKey));"]
        update.append("\(insert) SELECT \(number), \(key { "OLD.\($0)" }) WHERE \(oldKeyDiffers);")
        update += try candidateSelections(isUpdate: true).map { "\(insert) \($0) AND (\(differsFromOldKey));" }
        triggers.append(trigger(.beforeUpdate, update))
        if table.key.contains(where: { takesDefault($0) && defaultMayVary($0) }) {
            triggers.append(trigger(.afterUpdate, ["\(insert) VALUES(\(number), \(key { "NEW.\($0)" }));"]))
        }
        triggers.append(trigger(.beforeDelete, ["\(insert) VALUES(\(number), \(key { "OLD.\($0)" }));"]))
        return triggers
    }

    private func trigger(_ event: Event, _ statements: [String]) -> Trigger {
        let name = names.trigger(number, event)
        let sql =
            "CREATE TRIGGER \(quoteIdentifier(name)) \(event.clause) ON \(tableName) BEGIN "
            + statements.joined(separator: " ") + " END"
        return Trigger(name: name, event: event, sql: sql)
    }

    // MARK: Keys

    var tableName: String { quoteIdentifier(table.name) }
    var insert: String {
        "INSERT INTO \(quoteIdentifier(names.log))(tbl, \(table.key.indices.map { "k\($0)" }.joined(separator: ", ")))"
    }

    func name(_ column: Int) -> String { quoteIdentifier(table.columns[column].name) }

    func key(_ value: (String) -> String) -> String {
        table.key.map { value(name($0)) }.joined(separator: ", ")
    }

    /// The key as it will be: with the defaults that REPLACE puts in place of NULL.
    private var newKey: String { table.key.map { effectiveNew($0) }.joined(separator: ", ") }

    private var oldKeyDiffers: String {
        table.key.map { differs("OLD.\(name($0))", effectiveNew($0)) }.joined(separator: " OR ")
    }

    /// Whether a row found is another one than the one being updated, whose key is logged already.
    var differsFromOldKey: String {
        table.key.map { differs("\(tableName).\(name($0))", "OLD.\(name($0))") }.joined(separator: " OR ")
    }

    /// Whether two values are not the same bytes: 1 and 1.0 are equal to SQLite, and not the same.
    private func differs(_ a: String, _ b: String) -> String {
        "\(a) COLLATE BINARY IS NOT \(b) OR typeof(\(a)) <> typeof(\(b))"
    }

    func takesDefault(_ column: Int) -> Bool {
        let definition = table.columns[column]
        let isNotNull = definition.isNotNull || (table.isWithoutRowid && table.key.contains(column))
        return isNotNull && definition.defaultExpression != nil && definition.kind == .ordinary
    }

    /// Whether the new key is known before the row is inserted, but for defaults that vary.
    private var isKnownBefore: Bool { !table.keyIsRowid }

    /// Whether a column's default can give another value each time, so that what it will be is not known before.
    private func defaultMayVary(_ column: Int) -> Bool {
        guard let text = table.columns[column].defaultExpression else { return false }
        return SQLTokens(text).tokens.contains { if case .word = $0.kind { true } else { false } }
    }

    func effectiveNew(_ column: Int) -> String {
        guard takesDefault(column), let text = table.columns[column].defaultExpression else {
            return "NEW.\(name(column))"
        }
        return "coalesce(NEW.\(name(column)), \(convertedDefault(text, table.columns[column].affinity)))"
    }

    private static let defaultKeywords = [
        "NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP",
    ]

    /// A default as the column's affinity will store it, where it is a plain number.
    private func convertedDefault(_ text: String, _ affinity: Affinity) -> String {
        let words = SQLTokens(text)
        let tokens = words.tokens
        // A name alone is a string here and nowhere else: DEFAULT "x", DEFAULT x.
        if tokens.count == 1, let name = words.name(0), !Self.defaultKeywords.contains(where: { words.isKeyword(0, $0) }) {
            return quoteLiteral(name)
        }
        let isNumber = tokens.count <= 2 && tokens.contains { if case .literal = $0.kind { true } else { false } }
        switch affinity {
        case .text where isNumber: return "CAST(\(text) AS TEXT)"
        case .real where isNumber: return "CAST(\(text) AS REAL)"
        default: return "(\(text))"
        }
    }
}
