/// Rows of text in columns that line up.
package struct Table {
    package enum Alignment: Sendable { case left, right }

    private let headings: [String]
    private let alignments: [Alignment]
    private var rows: [[String]] = []

    package init(_ columns: [(heading: String, alignment: Alignment)]) {
        headings = columns.map(\.heading)
        alignments = columns.map(\.alignment)
    }

    package mutating func append(_ row: [String]) { rows.append(row) }

    /// The lines, headings first, without blanks at their ends.
    package func lines(style: Style, indentation: String = "") -> [String] {
        let widths = headings.indices.map { column in
            ([headings] + rows).map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        func line(_ row: [String]) -> String {
            var cells: [String] = []
            for (column, width) in widths.enumerated() {
                let cell = column < row.count ? row[column] : ""
                let padding = String(repeating: " ", count: width - cell.count)
                cells.append(alignments[column] == .left ? cell + padding : padding + cell)
            }
            var text = indentation + cells.joined(separator: "  ")
            while text.last == " " { text.removeLast() }
            return text
        }
        return [style.dim(line(headings))] + rows.map(line)
    }
}
