/// The 64-bit hash of a whole row, as an expression of SQL.
///
/// Columns of the common types enter by a hash of their own with a seed for each place, put together by XOR; all others
/// in one record, whose hash is a weighted sum of its columns'. Both are linear: of either alone, the sum over rows would
/// not see that two rows have exchanged a column's values. So what comes of them is hashed once more, as the seed of a
/// hash, which takes all of its 64 bits.
struct RowHash {
    /// The columns in the order that both servers share.
    let columns: [ComparedTable.Column]

    /// - Parameter reference: gives the reference to a column's value, by the column's place.
    func expression(_ reference: (Int) -> String) -> String {
        var terms: [String] = []
        var others: [String] = []
        for (place, column) in columns.enumerated() {
            let value = column.value(reference(place))
            if let hash = column.form.hash(value, seed: Self.seed(place)) {
                // The hash of NULL is NULL, which would swallow the other columns. Some functions give the seed for a value.
                terms.append(column.isNotNull ? hash : "COALESCE(\(hash), \(Self.seed(~place)))")
            } else {
                others.append(column.form.expression(value))
            }
        }
        if !others.isEmpty || terms.isEmpty {
            terms.append("pg_catalog.hash_record_extended(ROW(\(others.joined(separator: ", "))), 0)")
        }
        return "pg_catalog.hashint4extended(0, \(terms.joined(separator: " OPERATOR(pg_catalog.#) ")))"
    }

    /// A number for each place, as different from the others' as random ones (the steps of SplitMix64).
    static func seed(_ place: Int) -> String {
        var bits = UInt64(truncatingIfNeeded: place &+ 1) &* 0x9E37_79B9_7F4A_7C15
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        return "'\(Int64(bitPattern: bits ^ (bits >> 31)))'::pg_catalog.int8"
    }
}
