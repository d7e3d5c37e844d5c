import BridgeCore

/// What the argument rests on beside the rows: that capture was the same all the time, and the watch over the target.
extension CheckSession {
    /// What must not change while a check runs, as it is at one moment.
    struct Conditions: Sendable {
        var capture: Result<CaptureFingerprint, BridgeError>
        /// What the link's target says that it was captured from.
        var origin: Result<CaptureOrigin?, BridgeError>
        /// Nil where the mode asks for no watch.
        var watch: Result<WatchMark, BridgeError>?
    }

    /// Looks at what must not have changed since the beginning.
    /// - Parameter unaltered: what capture rests on, if it was read after the last comparison.
    func examineConditions(_ unaltered: CaptureFingerprint? = nil) async throws(BridgeError) {
        let capture: Result<CaptureFingerprint, BridgeError> = if let unaltered { .success(unaltered) } else { await readCapture() }
        // The watch last: what was read since the beginning then came from it.
        try judge(Conditions(capture: capture, origin: await readOrigin(), watch: await readWatch(isProven: false)))
    }

    /// What does not wait for the record of writes.
    nonisolated func readCapture() async -> Result<CaptureFingerprint, BridgeError> {
        await caught { [sourceSide] () async throws(BridgeError) in
            guard let from = sourceSide.source else { throw Self.notASource }
            return try await from.captureFingerprint()
        }
    }

    nonisolated func readOrigin() async -> Result<CaptureOrigin?, BridgeError> {
        await caught { [target, link] () async throws(BridgeError) in try await target.linkState(link)?.origin }
    }

    /// - Parameter isProven: whether the record of writes was just read, and so was whole.
    func readWatch(isProven: Bool) async -> Result<WatchMark, BridgeError>? {
        guard mode != .sample, let to = targetSide.target, let known = state.watch else { return nil }
        let before = state.foreignBefore
        return await caught { () async throws(BridgeError) in
            if !isProven { _ = try await to.foreignWrites(after: before, limit: 1) }
            return try await to.watchMark(of: known.check)
        }
    }

    func judge(_ conditions: Conditions) throws(BridgeError) {
        if let now = try fingerprint(conditions.capture) {
            if let changed = now.changedTables(since: state.fingerprint) {
                soundness.hold(.captureUnchanged)
                touch(changed, now)
            } else {
                soundness.fail(.captureUnchanged, "what capture rests on was changed while the check ran")
            }
        }
        guard let now = try conditions.origin.get(), "\(now.position.storedForm)\n\(now.identityText)" == state.origin
        else {
            soundness.fail(.captureUninterrupted, "the link began anew while the check ran")
            return
        }
        guard mode != .sample, targetSide.target != nil else { return }
        if let broken = try examine(conditions.watch, state.watch) { soundness.fail(broken.name, broken.why) }
    }

    // MARK: - Capture

    /// What capture rests on now; nil, with the obligation that fails, if it was interrupted.
    func fingerprint() async throws(BridgeError) -> CaptureFingerprint? { try fingerprint(await readCapture()) }

    private func fingerprint(_ read: Result<CaptureFingerprint, BridgeError>) throws(BridgeError) -> CaptureFingerprint? {
        do throws(BridgeError) { return try read.get() } catch where Self.interruptions.contains(error.code) {
            soundness.fail(.captureUninterrupted, error.message)
            return nil
        }
    }

    static var interruptions: Set<ErrorCode> { [.journalMissing, .slotMissing, .slotLost, .captureBroken, .sourceReplaced] }

    /// Tables whose capture was altered count as touched whole from now on; nothing is known of their rows until the next
    /// full pass.
    func touch(_ changed: [Int], _ now: CaptureFingerprint) {
        for index in changed {
            state.fingerprint.tables[index] = now.tables[index]
            dirty.touchWhole(index)
        }
        guard changed.contains(where: wanted.contains) else { return }
        soundness.fail(.wholeTableChanges, "a table was emptied or altered")
    }

    /// In a full check, tables whose capture was altered are compared again from their first row: the new way is noted
    /// first, then every transaction that may have been captured in the old way is waited for.
    /// - Returns: what capture rests on, if that is what it rested on before; nil if it is not, or not known.
    @discardableResult
    func restartAlteredTables() async throws(BridgeError) -> CaptureFingerprint? {
        guard let from = sourceSide.source, let tail else { throw Self.notASource }
        guard let now = try await fingerprint(), let changed = now.changedTables(since: state.fingerprint) else { return nil }
        guard !changed.isEmpty else { return now }
        let settled = try await from.settledPosition(patience: patience, afterWriters: true)
        try await pass(settled, tail, nil)
        let last = await tail.lastUnseen(before: settled)
        for index in changed {
            logger.info("a table was altered and is compared again", metadata: ["table": "\(pairs[index].mapping.source)"])
            state.fingerprint.tables[index] = now.tables[index]
            state.tables[index].alteredAt = last?.commit
            dirty.touchWhole(index)
        }
        await holdAlteredTables()
        return nil
    }

    /// Until both views see what was captured before a table was altered, it is in dispute.
    func holdAlteredTables() async {
        for (index, table) in state.tables.enumerated() {
            if let position = table.alteredAt { await tail?.touchWhole(index, at: Position(commit: position)) }
        }
    }

    // MARK: - The watch over the target

    /// Makes the watch, and says which it is.
    func makeWatch(_ to: any ComparisonTarget) async throws(BridgeError) -> CheckState.Watch {
        try await to.watchForeignWrites()
        soundness.hold(.targetWatched)
        let check = String(UInt64.random(in: .min ... .max), radix: 36) + String(UInt64.random(in: .min ... .max), radix: 36)
        let mark = try await to.watchMark(of: check)
        noteUnrecorded(mark)
        return CheckState.Watch(identity: mark.identity, check: check, counter: 0)
    }

    /// What speaks against building upon what was known when a watch was as it is given; nil if nothing does.
    func examineWatch(_ known: CheckState.Watch?) async throws(BridgeError) -> (name: Soundness.Name, why: String)? {
        guard let to = targetSide.target else { throw Self.notASource }
        guard let known else { return try examine(nil, nil) }
        return try examine(await caught { () async throws(BridgeError) in try await to.watchMark(of: known.check) }, known)
    }

    private func examine(
        _ read: Result<WatchMark, BridgeError>?, _ known: CheckState.Watch?
    ) throws(BridgeError) -> (name: Soundness.Name, why: String)? {
        guard let read, let known else { return (.targetWatched, "writes to the target by others were not recorded") }
        do throws(BridgeError) {
            let mark = try read.get()
            noteUnrecorded(mark)
            return Self.objection(mark, to: known)
        } catch where error.code == .captureBroken { return (.targetWatched, error.message) }
    }

    private static func objection(_ mark: WatchMark, to known: CheckState.Watch) -> (name: Soundness.Name, why: String)? {
        guard mark.identity == known.identity else {
            return (
                .targetWatched, "the record of writes to the target by others is another than before; what was written in between is not known"
            )
        }
        guard mark.counter >= known.counter else {
            return (.captureUninterrupted, "the target was put back to an earlier state")
        }
        return nil
    }

    private func noteUnrecorded(_ mark: WatchMark) {
        guard !mark.unrecorded.isEmpty else { return }
        let names = mark.unrecorded.prefix(10).joined(separator: ", ") + (mark.unrecorded.count > 10 ? ", …" : "")
        soundness.fail(
            .targetWatched,
            "\(names) may alter what bridge writes, unrecorded; disable them, or ENABLE them without ALWAYS or REPLICA, then run a full check")
    }

    /// Raises the mark on the target: before the first view of a check, so that no older backup holds it, and each time before
    /// the state that goes by it is written down, so that a state on disk is never ahead of its target.
    func leaveMark() async throws(BridgeError) {
        guard let known = state.watch, let to = targetSide.target else { return }
        let deadline = ContinuousClock.now + patience
        while true {
            do throws(BridgeError) {
                var mark = try await to.raiseMark(of: known.check, inPlaceOf: hasWrittenState ? outdatedMark : nil)
                if hasWrittenState { outdatedMark = nil }
                state.watch?.counter = max(known.counter, mark.counter)
                // As it was before it was raised.
                mark.counter -= 1
                if let broken = Self.objection(mark, to: known) { soundness.fail(broken.name, broken.why) }
                return
            } catch where error.code == .captureBroken {
                return soundness.fail(.targetWatched, error.message)
            } catch where [.serverBusy, .connectionLost].contains(error.code) && ContinuousClock.now < deadline {
                await board.sleep(.milliseconds(50))
                try board.goOn()
            }
        }
    }
}
