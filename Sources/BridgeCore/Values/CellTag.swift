/// What one cell of a row image holds. The raw value is the tag byte in a record.
///
/// `null`, `unchanged` and `text` are the bytes that PostgreSQL's pgoutput uses, and a row image has pgoutput's layout,
/// so capturing PostgreSQL for a PostgreSQL target copies tuples as they came. The others are the *canonical* form,
/// which is also how SQLite stores values.
package enum CellTag: UInt8, Sendable {
    /// SQL NULL. No bytes.
    case null = 0x6E  // n
    /// The value did not change and the source did not send it (TOAST). No bytes.
    case unchanged = 0x75  // u
    /// Native: the source engine's own text for the value.
    case text = 0x74  // t
    /// Not part of a key tuple. Not NULL: nothing is known of it. No bytes.
    case absent = 0x61  // a
    /// Canonical: a signed 64-bit integer, 8 bytes, big-endian.
    case integer = 0x69  // i
    /// Canonical: an IEEE 754 double, 8 bytes, big-endian.
    case real = 0x72  // r
    /// Canonical: text in UTF-8, or whatever bytes the source calls text.
    case string = 0x73  // s
    /// Canonical: raw bytes.
    case blob = 0x78  // x

    /// Whether a length and bytes follow the tag.
    @inlinable package var hasBytes: Bool {
        switch self {
        case .null, .unchanged, .absent: false
        case .text, .integer, .real, .string, .blob: true
        }
    }
}

/// In which form a relation's values travel.
package enum ValueForm: UInt8, Sendable {
    /// The source engine's own bytes: source and target are the same engine.
    case native = 0
    /// One form per logical type, which every connector can write and read: see ``LogicalType``.
    case canonical = 1
}

/// The engine that a connector is for: `postgresql`, `sqlite`.
package struct EngineName: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    package let rawValue: String
    package init(rawValue: String) { self.rawValue = rawValue }
    package var description: String { rawValue }
}
