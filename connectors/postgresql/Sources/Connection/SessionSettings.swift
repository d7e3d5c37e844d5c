/// The settings that every session pins (requirement P14).
///
/// They travel in the startup packet, where they outrank the settings of the role and of the database: a role's
/// `extra_float_digits = 0` would otherwise turn 0.1 + 0.2 into 0.3 in what the server sends. A replication session
/// takes them over into the output functions of the values that it decodes.
enum SessionSettings {
    static let pinned: [(name: String, value: String)] = [
        // The text form of values.
        ("DateStyle", "ISO,YMD"),
        ("IntervalStyle", "postgres"),
        // Anything above 0 gives the shortest exact text from version 12 on; older ones need 3 to be exact.
        ("extra_float_digits", "3"),
        ("bytea_output", "hex"),
        ("TimeZone", "UTC"),
        ("lc_monetary", "C"),
        // How SQL and values are read.
        ("search_path", "pg_catalog,pg_temp"),
        ("standard_conforming_strings", "on"),
        ("quote_all_identifiers", "off"),
        ("transform_null_equals", "off"),
        ("array_nulls", "on"),
        ("xmloption", "content"),
        // No limit of the role ends a long copy or an idle capture.
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("idle_session_timeout", "0"),
        // A policy that hides rows makes an error, not a copy with holes.
        ("row_security", "off"),
        ("default_transaction_isolation", "read\\ committed"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"),
        ("exit_on_error", "off"),
        ("client_min_messages", "warning"),
    ]

    /// The `options` word of a connection: what the operator asked for, then what is pinned, which wins.
    /// - Parameter keepingSearchPath: leaves the role's own search path, to be read before it is pinned.
    static func options(adding given: String?, keepingSearchPath: Bool) -> String {
        var words: [String] = given.map { [$0] } ?? []
        for (name, value) in pinned where !(keepingSearchPath && name == "search_path") {
            words.append("-c \(name)=\(value)")
        }
        return words.joined(separator: " ")
    }
}
