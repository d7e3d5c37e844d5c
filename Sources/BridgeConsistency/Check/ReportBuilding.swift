import BridgeCore

extension CheckSession {
    func makeReport() async throws(BridgeError) -> CheckReport {
        var report = CheckReport(
            checkId: state.checkId, migration: link.migration, mode: mode, verdict: .consistent,
            gate: .init(isOpen: false), startedAt: state.startedAt, source: source.displayName,
            target: target.displayName)
        report.completedAt = Timestamp.now.rfc3339
        report.soundness = soundness.report
        report.progress = board.progress
        report.progress.etaSeconds = 0
        report.tables = wanted.map { tableReport($0) }
        report.validations = try await validations(report.tables)
        report.policies = options.policies.names
        if mode == .sample || mode == .full { report.sampleSeed = String(sampleSeed) }
        report.fenceSeconds = predictedFence
        if mode != .sample { report.foreignWrites = foreignWrites }
        report.verdict = verdict(report)
        report.gate = gate(report)
        return report
    }

    private func tableReport(_ index: Int) -> CheckReport.Table {
        var table = state.tables[index].report
        let differences = suspects.differences(of: index)
        if !suspects.overflown.contains(index) {
            table.mismatched = Int64(differences.count { $0.kind == .different })
            table.sourceOnly = Int64(differences.count { $0.kind == .missing })
            table.targetOnly = Int64(differences.count { $0.kind == .extra })
        }
        // A full check has counted them chunk by chunk.
        if mode != .full { table.equalByPolicy = equalByPolicy[index] ?? [:] }
        table.samples = Array(differences.prefix(options.sampleLimit))
        if mode != .fence {
            table.sourceSchema = state.schemas.source(pairs[index].mapping)
            table.targetSchema = state.schemas.target(pairs[index].mapping)
        }
        table.samplesCut = differences.count > table.samples.count || suspects.overflown.contains(index)
        table.pending = Int64(dirty.count(of: index)) + state.tables[index].chunks.rowsAgain
        if !differences.isEmpty || suspects.overflown.contains(index) {
            table.status = .inconsistent
        } else if dirty.wholeTables.contains(index) {
            table.status = .inconclusive
            table.reason = "it was emptied or altered; bridge check --mode full compares it anew"
        } else if uncompared[index, default: 0] > 0, !isPreparing {
            // Behind the fence each is compared, whatever a report before it says.
            table.status = .inconclusive
            table.reason = "\(uncompared[index, default: 0]) rows changed all the time and were never compared; check again when the link keeps up"
        } else if mode == .incremental || mode == .fence, !state.isComplete {
            table.status = .inconclusive
            table.reason = "there is no completed full check to build upon; run bridge check --mode full"
        }
        return table
    }

    private var predictedFence: Double? {
        guard let views = state.viewSeconds else { return nil }
        // A row that is read with its neighbours costs a tenth of one that is looked up, or less.
        let rows = state.tables.reduce(0) { $0 + $1.chunks.rowsAgain }
        return views + (Double(dirty.count + suspects.count) + Double(rows) / 10) / (state.keysPerSecond ?? 10_000)
    }

    private func validations(_ tables: [CheckReport.Table]) async throws(BridgeError) -> [CheckReport.Validation] {
        let isRowsChecked = mode != .sample
        let counts = tables.filter { $0.sourceOnly != $0.targetOnly }.map {
            "\($0.source): \($0.sourceOnly) rows are missing and \($0.targetOnly) are extra"
        }
        let sums = tables.filter { $0.mismatched > 0 || ($0.sourceOnly == $0.targetOnly && $0.sourceOnly > 0) }.map {
            "\($0.source): \($0.mismatched + $0.sourceOnly + $0.targetOnly) rows differ"
        }
        let samples = sampleFindings.sorted { $0.key < $1.key }.map {
            "\(pairs[$0.key].mapping.source): \($0.value.count) of the rows sampled differ"
        }
        let isOpen = tables.contains { $0.status == .inconclusive }
        func status(_ findings: [String]) -> CheckReport.Validation.Status {
            findings.isEmpty ? (isOpen ? .inconclusive : .passed) : .failed
        }
        let facts = if let facts { facts } else { try await Self.readFacts(sourceSide, targetSide).get() }
        let structure = StructureComparison(
            mappings: wanted.map { link.mappings[$0] }, source: wanted.map { facts.source[$0] },
            target: wanted.map { facts.target[$0] })
        return [
            .init(name: .rowCounts, status: isRowsChecked ? status(counts) : .skipped, findings: counts),
            structure.schemas(), structure.indexes(), structure.constraints(),
            .init(
                name: .dataSamples, status: sampledRows == 0 && mode != .sample && mode != .full ? .skipped : status(samples),
                findings: samples),
            .init(name: .checksums, status: isRowsChecked ? status(sums) : .skipped, findings: sums),
        ]
    }

    private func verdict(_ report: CheckReport) -> CheckReport.Verdict {
        if report.tables.contains(where: { $0.status == .inconsistent })
            || report.validations.contains(where: { $0.status == .failed })
        {
            return .inconsistent
        }
        // A sample says nothing of what others write later, so it makes no watch.
        let isSound = soundness.allHold(besides: mode == .sample ? [.targetWatched] : [])
        if report.tables.contains(where: { $0.status != .consistent }) || !isSound { return .inconclusive }
        if mode == .fence, report.tables.contains(where: { $0.pending > 0 }) { return .inconclusive }
        return .consistent
    }

    private func gate(_ report: CheckReport) -> CheckReport.Gate {
        var reasons: [String] = []
        switch report.verdict {
        case .consistent: break
        case .inconsistent: reasons.append("source and target differ")
        case .inconclusive: reasons.append("the check could not prove that source and target are the same")
        case .error: reasons.append("the check failed")
        }
        if mode == .sample { reasons.append("a sample proves little; run bridge check --mode full") }
        if options.tables != nil, !options.buildsOnWhole { reasons.append("only some tables were compared") }
        if foreignWrites > 0 {
            reasons.append("\(foreignWrites) writes to the target by others than bridge; find who writes, then run bridge check --mode full")
        }
        return CheckReport.Gate(isOpen: reasons.isEmpty, reasons: reasons)
    }
}
