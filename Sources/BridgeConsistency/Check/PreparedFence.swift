import BridgeCore

/// A fence check in two parts: what takes time is done before the fence, with the session left open; what is left is done
/// behind it.
extension CheckSession {
    /// Takes up the last full check and does what an incremental check does.
    func prepareFence() async throws(BridgeError) -> CheckReport {
        isPreparing = true
        soundness.hold(.databasesRead)
        board.begin(rowsEstimated: nil)
        isResumed = try await resume()
        return try await refreshFence()
    }

    /// The same once more, so that few keys are left.
    func refreshFence() async throws(BridgeError) -> CheckReport {
        equalByPolicy = [:]
        if isResumed { try await checkChanged() }
        return try await makeReport()
    }

    /// Looks at all that is dirty or suspect until nothing is open, and at the conditions beside it. Nothing is written down
    /// if both sides are equal: what was written before holds as well, and has only more to be looked at again.
    func finishFence(patience limit: Duration) async throws(BridgeError) -> CheckReport {
        mode = .fence
        isPreparing = false
        isFenced = true
        patience = limit
        equalByPolicy = [:]
        if isResumed {
            try await drain(untilAllSettled: true)
            judgeWholeTables()
            // Most often they were read beside the last comparison.
            if let conditions { try judge(conditions) } else { try await examineConditions() }
        }
        let report = try await makeReport()
        if report.verdict == .consistent { isToBeSaved = true } else { try await saveIfResumed() }
        return report
    }

    /// Has both sides read of each table what a look-up needs to know, and what a connection reads once only.
    func readAhead(_ views: AlignedViews) async throws(BridgeError) {
        for index in wanted where pairs[index].incomparable.isEmpty && !views.dispute.excludedTables.contains(index) {
            let pair = pairs[index]
            _ = try await onBothSides { () async throws(BridgeError) in
                try await views.source.findRows(pair.request(.source), keys: [], into: RecordBuffer())
            } _: { () async throws(BridgeError) in
                try await views.target.findRows(pair.request(.target), keys: [], into: RecordBuffer())
            }
        }
    }

    private func saveIfResumed() async throws(BridgeError) { if isResumed { try await save() } }

    /// Writes down what the end of the check left unwritten, then gives everything up. What cannot be written is no loss.
    func endFence() async {
        if isToBeSaved {
            do throws(BridgeError) { try await save() } catch {
                logger.warning("the check's state was not written: \(error.message)")
            }
        }
        await close()
    }
}
