/// Differences that are let pass on request and then counted under the policy's name. None by default.
package struct EqualityPolicies: OptionSet, Hashable, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    /// -0 and 0, in floating point and in numerics as text.
    package static let negativeZero = EqualityPolicies(rawValue: 1)
    /// numeric 1.0 and 1.00.
    package static let numericScale = EqualityPolicies(rawValue: 2)
    /// Blanks between the tokens of json.
    package static let jsonSpacing = EqualityPolicies(rawValue: 4)
    /// Trailing blanks of character without a length.
    package static let characterPadding = EqualityPolicies(rawValue: 8)

    package static let all: EqualityPolicies = [.negativeZero, .numericScale, .jsonSpacing, .characterPadding]

    private static let known: [(EqualityPolicies, String)] = [
        (.negativeZero, "negative_zero"), (.numericScale, "numeric_scale"), (.jsonSpacing, "json_spacing"),
        (.characterPadding, "character_padding"),
    ]

    /// All names that there are.
    package static var knownNames: [String] { all.names }

    /// The names under which reports count.
    package var names: [String] { Self.known.filter { contains($0.0) }.map(\.1) }

    /// One set for each policy in it.
    var singles: [EqualityPolicies] { Self.known.map(\.0).filter { contains($0) } }

    /// Reads a name out of a report or a configuration.
    package init?(name: String) {
        guard let found = Self.known.first(where: { $0.1 == name }) else { return nil }
        self = found.0
    }
}
