package import BridgeCore

/// What a server reported, and its translation: the one place where SQLSTATEs become error codes.
package struct ServerError: Sendable {
    package let sqlState: String
    /// The primary message. Only shown where it cannot hold values of rows.
    package let message: String
    package var schema: String?
    package var table: String?
    package var column: String?
    package var constraint: String?
    /// The server's function that raised it.
    package var sourceFunction: String?

    package init(sqlState: String, message: String) {
        self.sqlState = sqlState
        self.message = message
    }

    init(_ result: borrowing PGResult) {
        sqlState = result.errorField(.sqlState) ?? ""
        message = result.errorField(.primary) ?? ""
        schema = result.errorField(.schema)
        table = result.errorField(.table)
        column = result.errorField(.column)
        constraint = result.errorField(.constraint)
        sourceFunction = result.errorField(.sourceFunction)
    }

    /// The error for everybody else.
    /// - Parameter action: what was being done: `reading the catalog`; part of the message where ours replaces the
    ///   server's.
    package func bridgeError(during action: String? = nil) -> BridgeError {
        var context: [ErrorContext] = []
        if let table { context.append(.init(.table, TableName(schema: schema, name: table).description)) }
        if let column { context.append(.init(.column, column)) }
        if let constraint { context.append(.init(.detail, "constraint \(constraint)")) }
        context.append(.init(.sqlstate, sqlState))
        let subject = action.map { " while \($0)" } ?? ""
        return BridgeError(code, shownMessage + subject, context: context)
    }

    /// The error code of the SQLSTATE. Callers that know more replace it.
    package var code: ErrorCode {
        switch sqlState {
        case "57P03": return .serverBusy
        case "57014": return .serverBusy
        case "53100": return .diskFull
        case "53400": return .serverSettings
        case "40001", "40P01", "55P03", "55006", "53200", "53300": return .serverBusy
        case "42501": return .rightsMissing
        case "3D000": return .configurationInvalid
        case "25006": return .serverSettings
        case "42P01": return .tableMissing
        case "42703": return .schemaChanged
        case "23505", "23P01": return .conflict
        default: break
        }
        switch sqlState.prefix(2) {
        case "08": return .connectionLost
        case "57": return .connectionLost
        case "28": return .authenticationFailed
        case "53": return .serverBusy
        case "22": return .valueDoesNotFit
        case "23": return .changeRefused
        default: return .serverRefused
        }
    }

    /// The server's words, unless they may hold values: class 22 and 23 quote them, and so may anything that a
    /// function or trigger of the application raised.
    private var shownMessage: String {
        if sourceFunction == "exec_stmt_raise" { return "a function or trigger of the database refused the statement" }
        switch sqlState.prefix(2) {
        case "22": return "a value cannot be read as the column's type, or does not fit it"
        case "23":
            switch sqlState {
            case "23502": return "a value is missing in a column that must not be NULL"
            case "23503": return "a foreign key is violated"
            case "23505": return "a row with the same unique value exists already"
            case "23514": return "a check constraint is violated"
            default: return "a constraint is violated"
            }
        case "08", "0A", "0B", "25", "26", "28", "2B", "34", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57", "58",
            "72", "F0", "XX":
            return message
        default: return "the database refused the statement"
        }
    }
}

extension BridgeError {
    /// The SQLSTATE that a server gave, if one did.
    package var sqlState: String? { context.first { $0.key == .sqlstate }?.value }
}
