import BridgeCore

/// Matches the rows of differing buckets of both sides and tells a reporter what it finds.
struct DifferenceMatching {
    let pair: TablePair
    let memory: Int
    let reporter: DifferenceReporter

    private struct Item {
        var entry: DifferenceEntry
        var place: Int
    }

    /// Partition by partition, if one of the sides did not fit into memory.
    func match(_ source: DifferenceSide, _ target: DifferenceSide) async throws(BridgeError) {
        guard source.isSpilled || target.isSpilled else { return try await match(source.table, target.table) }
        try await source.spill()
        try await target.spill()
        for partition in 0..<DifferenceSide.partitions {
            let bytes = source.bytes(in: partition) + target.bytes(in: partition)
            guard bytes > 0 else { continue }
            // Entries take more in memory than in the file.
            let parts = UInt64((bytes * 5 / 2 + memory - 1) / memory)
            for part in 0..<parts {
                try await match(
                    try await source.load(partition, part: part, of: parts),
                    try await target.load(partition, part: part, of: parts))
            }
        }
    }

    private func match(_ source: DifferenceTable, _ target: DifferenceTable) async throws(BridgeError) {
        let (a, b) = (source.sorted(), target.sorted())
        var (i, j) = (0, 0)
        while i < a.count || j < b.count {
            if Task.isCancelled { throw BridgeError(.interrupted, "the comparison was stopped") }
            let key = i < a.count ? (j < b.count ? min(a[i].key, b[j].key) : a[i].key) : b[j].key
            var (left, right): ([Item], [Item]) = ([], [])
            while i < a.count, a[i].key == key {
                left.append(Item(entry: source.entry(at: a[i].place), place: a[i].place))
                i += 1
            }
            while j < b.count, b[j].key == key {
                right.append(Item(entry: target.entry(at: b[j].place), place: b[j].place))
                j += 1
            }
            try await match(key, &left, &right, source, target)
        }
    }

    /// Rows with one key: first those that are equal, then those that a policy makes equal, then what is left.
    private func match(
        _ key: UInt128, _ left: inout [Item], _ right: inout [Item], _ source: DifferenceTable, _ target: DifferenceTable
    ) async throws(BridgeError) {
        func row(_ item: Item, _ table: DifferenceTable) -> DifferenceReporter.Row {
            .init(key: table.image(at: item.place), hash: item.entry.strict, weight: item.entry.weight)
        }
        pairUp(&left, &right, { $0.strict == $1.strict }) { _, _, count in reporter.addMatching(count) }
        var findings: [DifferenceReporter.Finding] = []
        pairUp(&left, &right, { $0.lenient == $1.lenient }) { a, b, count in
            reporter.addMatching(count)
            findings.append(.init(kind: nil, key: key, source: row(a, source), target: row(b, target), count: count))
        }
        if pair.hasKey {
            pairUp(&left, &right, { _, _ in true }) { a, b, count in
                findings.append(
                    .init(kind: .different, key: key, source: row(a, source), target: row(b, target), count: count))
            }
        }
        for item in left where item.entry.count > 0 {
            findings.append(.init(kind: .missing, key: key, source: row(item, source), count: item.entry.count))
        }
        for item in right where item.entry.count > 0 {
            findings.append(.init(kind: .extra, key: key, target: row(item, target), count: item.entry.count))
        }
        for finding in findings { try await reporter.add(finding) }
    }

    private func pairUp(
        _ left: inout [Item], _ right: inout [Item], _ fits: (DifferenceEntry, DifferenceEntry) -> Bool,
        _ found: (Item, Item, Int64) -> Void
    ) {
        for i in left.indices {
            for j in right.indices where left[i].entry.count > 0 && right[j].entry.count > 0 {
                guard fits(left[i].entry, right[j].entry) else { continue }
                let count = min(left[i].entry.count, right[j].entry.count)
                found(left[i], right[j], count)
                left[i].entry.count -= count
                right[j].entry.count -= count
            }
        }
    }
}
