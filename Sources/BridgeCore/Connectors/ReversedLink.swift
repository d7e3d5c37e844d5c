extension LinkDescription {
    /// The migration's other direction by its names alone; it has no tables.
    package var opposite: LinkDescription {
        LinkDescription(migration: migration, direction: direction == .forward ? .reverse : .forward, mappings: [], form: form)
    }

    /// Whether the link begins with a copy. The way back does not: it begins when both sides hold the same, but for what
    /// the way forward still carries, and every row that it would copy is there.
    package var needsCopy: Bool { direction == .forward }

    /// The same tables the other way round. Reversed again, it is what it was.
    ///
    /// - Source and target change places, table by table. Columns bear the same names on both sides, so a list of them
    ///   stands as it is. The form of values is the same: it says whether both ends are one engine.
    /// - The row filter does not choose what travels any more. It is written in the dialect of what is the target now, and
    ///   more than that: a row that the application writes on the side that it moved to is its only copy, whatever the
    ///   filter says of it, so all of them travel. What the filter says is kept as ``TableMapping/targetFilter``: the
    ///   tables on the way back hold rows beside the link's, which emptying a table must leave alone.
    package var reversed: LinkDescription {
        var link = opposite
        link.mappings = mappings.map { mapping in
            TableMapping(
                source: mapping.target, target: mapping.source, columns: mapping.columns, rowFilter: mapping.targetFilter,
                targetFilter: mapping.rowFilter)
        }
        return link
    }

    /// The same for tables that are known. Where the columns are not listed, and this link's target has columns of its own
    /// that the source has not, or computes, the columns in common are listed: others would have no place to go back to.
    /// Where there are none of its own the list stays open, so that a column that both sides get later travels by itself.
    ///
    /// The list is part of what the way back begins with: later it is to be made from the same columns.
    /// - Parameters:
    ///   - sources: this link's source tables; those that are missing leave their mappings as they are.
    ///   - targets: this link's target tables.
    package func reversed(sources: [TableSchema], targets: [TableSchema]) -> LinkDescription {
        var link = reversed
        for (index, mapping) in mappings.enumerated() where mapping.columns == nil {
            guard let source = sources.first(where: { $0.name == mapping.source }),
                let target = targets.first(where: { $0.name == mapping.target })
            else { continue }
            let travelling = target.columns.filter { $0.generation == nil }.map(\.name)
            let common = travelling.filter { name in source.column(named: name).map { $0.generation == nil } ?? false }
            if common.count < travelling.count { link.mappings[index].columns = common }
        }
        return link
    }
}
