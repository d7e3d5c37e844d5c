package import BridgeCore

/// The two sides of one table and how they are compared; made once a check.
package struct TablePair: Sendable {
    package enum Method: String, Sendable {
        /// Rows are read and hashed here.
        case client
        /// Each server hashes its own rows; both do it in the same way.
        case server
    }

    package let mapping: TableMapping
    package let source: ComparisonLayout
    /// With the source's key: what names a row must be the same on both sides.
    package let target: ComparisonLayout
    package let method: Method
    /// Whether both sides order the first key column alike.
    package let usesRanges: Bool
    /// For the report.
    package var hashAlgorithm: String
    /// Columns that cannot be compared, with why. They are left out of the comparison.
    package let incomparable: [String: String]

    /// Those of the policies asked for that some column could need.
    let policies: EqualityPolicies
    /// How each column is compared.
    let forms: [CellForm]
    /// As `forms`, but raw where both sides usually have the same bytes: what is equal so is equal for good, and faster
    /// to tell. What differs so is looked at again.
    let firstForms: [CellForm]
    /// How many bytes a row takes on average, on the side that has the larger ones; nil if neither side knows.
    var estimatedRowBytes: Int64? {
        [source, target].compactMap { layout in
            guard let bytes = layout.estimatedBytes, let rows = layout.estimatedRows, rows > 0 else { return nil }
            return bytes / rows
        }.max()
    }

    /// The key's columns; none if the whole row is the key.
    let keyIndexes: [Int]

    package init(
        mapping: TableMapping, source: ComparisonLayout, target: ComparisonLayout, policies: EqualityPolicies = []
    ) {
        self.mapping = mapping
        self.source = source
        var target = target
        var incomparable = source.incomparable.merging(target.incomparable) { first, second in
            first == second ? first : "\(first); on the target \(second)"
        }
        var forms: [CellForm] = []
        var firstForms: [CellForm] = []
        for (index, column) in source.columns.enumerated() {
            guard index < target.columns.count, target.columns[index].name == column.name else {
                incomparable[column.name] = incomparable[column.name] ?? "the target has no such column at this place"
                forms.append(column.isKey ? .raw : .skip)
                firstForms.append(column.isKey ? .raw : .skip)
                continue
            }
            target.columns[index].isKey = column.isKey
            var form: CellForm
            let other = target.columns[index].type
            let isDecimalBesideNumbers =
                (source.scaleless.contains(column.name) && CellForm.isDecimal(other, besideNumbers: column.type))
                || (target.scaleless.contains(column.name) && CellForm.isDecimal(column.type, besideNumbers: other))
            switch CellForm.choose(column, target.columns[index]) {
            case _ where isDecimalBesideNumbers: form = .decimal(byValue: true, scale: nil)
            case .form(let chosen): form = chosen
            case .incomparable(let reason):
                incomparable[column.name] = incomparable[column.name] ?? reason
                form = .raw
            }
            // A key names the row whatever its type, so it is never left out.
            if incomparable[column.name] != nil, !column.isKey { form = .skip }
            forms.append(form)
            firstForms.append(form.isUsuallyRaw(column, target.columns[index]) ? .raw : form)
        }
        for column in target.columns.dropFirst(source.columns.count) {
            incomparable[column.name] = incomparable[column.name] ?? "the source has no such column"
        }
        let relevant = policies.intersection(forms.reduce(into: EqualityPolicies()) { $0.formUnion($1.policies) })
        self.target = target
        self.incomparable = incomparable
        self.forms = forms
        self.firstForms = firstForms
        self.policies = relevant
        keyIndexes = source.columns.indices.filter { source.columns[$0].isKey }
        usesRanges = source.keyOrder != nil && source.keyOrder == target.keyOrder
        let isServer =
            source.serverHash != nil && source.serverHash == target.serverHash && relevant.isEmpty
            && incomparable.isEmpty
        method = isServer ? .server : .client
        hashAlgorithm = isServer ? (source.serverHash ?? "") : RowHasher.name
    }

    /// Whether rows are told apart by a key; otherwise by all that is in them, and one may occur twice.
    package var hasKey: Bool { !keyIndexes.isEmpty }

    /// Whether a key is the same bytes on both sides, so that what one side does not find by the other's spelling is not
    /// there.
    var hasExactKey: Bool { hasKey && keyIndexes.allSatisfy { [.raw, .dynamic].contains(forms[$0]) } }

    /// Whether a key may stand on a side in more than one spelling, of which a look-up finds only the one that it is given:
    /// as text, where the other side has values of a type.
    func spellsFreely(_ side: ComparisonRole) -> Bool {
        let columns = side == .source ? source.columns : target.columns
        return keyIndexes.contains { index in
            guard ![.raw, .dynamic].contains(forms[index]) else { return false }
            switch columns[index].type {
            case .text, .varchar, .character, .other, .dynamic: return true
            default: return false
            }
        }
    }

    func request(_ side: ComparisonRole, from: KeyImage? = nil, to: KeyImage? = nil) -> ComparisonRequest {
        switch side {
        case .source: ComparisonRequest(layout: source, rowFilter: mapping.rowFilter, from: from, to: to)
        case .target: ComparisonRequest(layout: target, from: from, to: to)
        }
    }
}
