/// A table's name, with its schema where the engine has schemas. Names are exact: no case folding happens here.
package struct TableName: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// nil for engines without schemas.
    package let schema: String?
    package let name: String

    package init(schema: String? = nil, name: String) {
        self.schema = schema
        self.name = name
    }

    package static func < (a: TableName, b: TableName) -> Bool { (a.schema ?? "", a.name) < (b.schema ?? "", b.name) }

    /// `schema.name`, unquoted: for people and for JSON, never for SQL.
    package var description: String { schema.map { "\($0).\(name)" } ?? name }
}

/// Quotes an identifier for SQL the way both engines read it.
package func quoteIdentifier(_ name: String) -> String {
    doubling("\"", in: name)
}

/// Quotes a string literal for SQL the way both engines read it (PostgreSQL with standard_conforming_strings on).
package func quoteLiteral(_ text: String) -> String {
    doubling("'", in: text)
}

/// By scalars: a quote with a combining mark behind it is one Character, and not equal to a quote.
private func doubling(_ quote: Unicode.Scalar, in text: String) -> String {
    var scalars = String.UnicodeScalarView()
    scalars.append(quote)
    for scalar in text.unicodeScalars {
        if scalar == quote { scalars.append(quote) }
        scalars.append(scalar)
    }
    scalars.append(quote)
    return String(scalars)
}

extension TableName {
    /// The name for SQL, quoted.
    package var quoted: String {
        schema.map { "\(quoteIdentifier($0)).\(quoteIdentifier(name))" } ?? quoteIdentifier(name)
    }
}
