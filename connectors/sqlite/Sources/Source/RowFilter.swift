import BridgeCore

/// A condition under `where`, and whether it is a function of the row: one that asks the clock, chance, the connection or
/// another table gives another answer later, and rows would come and go without a change that triggers see.
struct RowFilter {
    let table: SQLiteTable
    let condition: String
    private let tokens: SQLTokens

    init(_ table: SQLiteTable, _ condition: String) {
        self.table = table
        self.condition = condition
        tokens = SQLTokens(condition)
    }

    /// - Parameter from: the FROM clause with the alias by which the condition may call the table.
    /// - Throws: `configurationInvalid`.
    func check(_ from: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        guard isOneExpression else { throw Self.refusal("is not one expression") }
        do throws(BridgeError) {
            _ = try database.prepare("SELECT 1 \(from) WHERE (\(condition))")
        } catch { throw Self.refusal("is not one that SQLite understands", cause: error) }
        try checkByIndex()
        try checkDates(database)
    }

    private static func refusal(_ what: String, cause: BridgeError? = nil) -> BridgeError {
        BridgeError(
            .configurationInvalid, "the condition of 'where' \(what)",
            hint: """
                use only the table's own columns and functions that always give the same for the same row, with a fixed \
                date in place of the current one, in 'where:' in bridge.yaml
                """, cause: cause)
    }

    /// Whether the parentheses around it stay around it.
    private var isOneExpression: Bool {
        var depth = 0
        for index in 0..<tokens.count {
            if tokens.isSign(index, "(") { depth += 1 }
            if tokens.isSign(index, ")") { depth -= 1 }
            if depth < 0 || tokens.isSign(index, ";") { return false }
        }
        return depth == 0 && tokens.count > 0
    }

    // MARK: By SQLite's own judgement

    /// The condition of a partial index must be a function of the row: SQLite refuses subqueries, parameters, and functions
    /// that are not deterministic. Tried on an empty table like this one, in memory.
    private func checkByIndex() throws(BridgeError) {
        let memory = try SQLiteDatabase(path: ":memory:", access: .create, busyTimeout: 0)
        let columns = table.columns.enumerated().map { place, column in
            quoteIdentifier(column.name) + (table.keyIsRowid && table.key == [place] ? " INTEGER PRIMARY KEY" : "")
        }
        let name = quoteIdentifier(table.name)
        try memory.execute("CREATE TABLE main.\(name)(\(columns.joined(separator: ", ")))")
        let first = quoteIdentifier(table.columns[0].name)
        do throws(BridgeError) {
            try memory.execute("CREATE INDEX main.\"bridge filter\" ON \(name)(\(first)) WHERE (\(condition))")
        } catch { throw Self.refusal("does not depend on the row alone", cause: error) }
    }

    // MARK: Dates

    /// Where the value of time stands among the arguments; the modifiers follow.
    private static let dateFunctions: [String: [Int]] = [
        "date": [0], "time": [0], "datetime": [0], "julianday": [0], "unixepoch": [0], "strftime": [1], "timediff": [0, 1],
    ]

    /// SQLite takes the functions of date and time for deterministic until one is run that asks the clock or the time zone,
    /// so their arguments are looked at: what stands for a time must be a column, a literal other than 'now', or made of
    /// columns and numbers; a modifier must be a literal that needs no time zone.
    private func checkDates(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        var columns: Set<Int> = []
        for index in 0..<tokens.count where tokens.isSign(index + 1, "(") {
            guard let function = tokens.name(index).map(foldCase), let times = Self.dateFunctions[function] else { continue }
            let arguments = tokens.splitAtCommas(index + 2..<max(index + 2, tokens.endOfGroup(index + 1) - 1))
            guard let last = times.last, arguments.count > last else {
                throw Self.refusal("asks the clock: \(function) without a time is the current one")
            }
            for (place, argument) in arguments.enumerated() {
                if times.contains(place) {
                    guard isFixedTime(argument, &columns) else {
                        throw Self.refusal("asks the clock, or may: \(function) must be given a column or a fixed time")
                    }
                } else if place > last, !isFixedModifier(argument) {
                    throw Self.refusal("asks for the local time zone, or may: the modifiers of \(function) must be fixed")
                }
            }
        }
        try checkStoredTimes(columns, database)
    }

    private func isFixedTime(_ argument: Range<Int>, _ columns: inout Set<Int>) -> Bool {
        if argument.count == 1, let text = string(argument.lowerBound) { return foldCase(text) != "now" }
        for index in argument {
            if string(index) != nil { return false }
            if let column = column(index) { columns.insert(column) }
            switch tokens.tokens[index].kind {
            // A blob could spell anything.
            case .literal:
                let text = tokens.text(index..<index + 1)
                if text.first.map({ "xX".contains($0) }) ?? true { return false }
            // Two texts together could spell anything.
            case .sign(UInt8(ascii: "|")): return false
            case .word, .quoted:
                // Functions that give back what they are given, or a number.
                guard tokens.isSign(index + 1, "("), let name = tokens.name(index).map(foldCase) else { continue }
                let isHarmless = ["coalesce", "ifnull", "nullif", "iif", "min", "max", "abs", "round", "in"].contains(name)
                if !isHarmless, Self.dateFunctions[name] == nil { return false }
            default: continue
            }
        }
        return true
    }

    private func isFixedModifier(_ argument: Range<Int>) -> Bool {
        guard argument.count == 1, let text = string(argument.lowerBound) else { return false }
        return !["localtime", "utc"].contains(foldCase(text))
    }

    private func string(_ index: Int) -> String? {
        guard case .string = tokens.tokens[index].kind else { return nil }
        return tokens.name(index)
    }

    private func column(_ index: Int) -> Int? {
        guard let name = tokens.name(index).map(foldCase) else { return nil }
        return table.columns.firstIndex { foldCase($0.name) == name }
    }

    /// A column that is taken for a time may hold the word that stands for the current one.
    private func checkStoredTimes(
        _ columns: Set<Int>, _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) {
        for column in columns.sorted() {
            let name = quoteIdentifier(table.columns[column].name)
            let query = "SELECT 1 FROM main.\(quoteIdentifier(table.name)) WHERE lower(CAST(\(name) AS TEXT)) = 'now' LIMIT 1"
            guard try database.integer(query) == nil else {
                throw Self.refusal("asks the clock: column \(table.columns[column].name) holds the word 'now'")
            }
        }
    }
}
