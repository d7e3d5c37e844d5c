import BridgeCore
import BridgeReplication
import BridgeTestSupport
import Testing

/// What a link does with markers.
extension ConformanceSuite {
    private func marker() async throws -> String? {
        let target = try target.makeTarget()
        let state = try await target.linkState(link)
        await target.close()
        return state?.checkpoint?.marker
    }

    /// Thousands of small commits with a marker behind them: when the marker has arrived, nothing is missing.
    package func markerAfterManyCommits() async throws {
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        let commits = (1...5_000).map {
            "INSERT INTO accounts VALUES (\($0), 'm\($0)', 0, NULL); " + ($0 % 3 == 0 ? "UPDATE accounts SET balance = \($0) WHERE id = \($0 - 1);" : "")
        }
        try await source.execute(commits.joined(separator: "\n"))
        try await source.writeMarker("drained", link)
        try await waitUntil { try await marker() == "drained" }
        try await expectEqual("when the marker had arrived")
        #expect(try await target.rows(.accounts).count == 5_000)
        runner.stop()
        #expect(try await !outcome)
    }

    /// Markers that stand alone arrive, the later one in place of the earlier, and stay when changes follow without one.
    package func markersAlone() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        #expect(try await marker() == nil)
        try await source.writeMarker("while stopped", link)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        #expect(try await marker() == "while stopped")
        let runner = try makeRunner()
        async let outcome = runner.run(untilCaughtUp: false)
        try await waitUntil { runner.progress.activity == .streaming }
        for text in ["one", "two 'quoted' \"x\" \\ ünï"] {
            try await source.writeMarker(text, link)
            try await waitUntil { try await marker() == text }
        }
        try await source.execute(Self.changes)
        let (source, target) = (source, target)
        try await waitUntil { try await source.rows(.accounts) == target.rows(.accounts) }
        #expect(try await marker() == "two 'quoted' \"x\" \\ ünï")
        runner.stop()
        #expect(try await !outcome)
        try await expectEqual("after markers and changes")
    }

    /// A link whose records an earlier version made gets its place for the marker when it runs.
    package func recordsOfEarlierVersion() async throws {
        try await source.execute(Self.first)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        let table = try target.makeTarget().engine == EngineName(rawValue: "sqlite") ? "_bridge_link" : "_bridge.link"
        try await target.execute("ALTER TABLE \(table) DROP COLUMN marker;")
        #expect(try await marker() == nil)
        try await source.writeMarker("late", link)
        #expect(try await makeRunner().run(untilCaughtUp: true))
        #expect(try await marker() == "late")
    }

    /// A link that needs no copy, because both sides hold the same: begun where capture began, and streaming from there.
    package func adopts() async throws {
        try await source.execute(Self.first)
        try await target.execute(Self.first)
        let (from, to) = (try source.makeSource(), try target.makeTarget())
        try await from.connect()
        try await to.connect()
        let origin = try await from.prepareCapture(link, replacingLeftovers: false)
        try await to.adoptLink(link, origin)
        let state = try #require(try await to.linkState(link))
        #expect(state.phase == .syncing)
        #expect(state.origin == origin)
        #expect(state.checkpoint?.position == origin.position && state.checkpoint?.frontier == origin.position)
        #expect(state.checkpoint?.marker == nil)
        #expect(Set(state.tables.keys) == Set(link.mappings.map(\.source)))
        #expect(state.tables.values.allSatisfy { $0.state == .done })
        // Again, and behind an intent.
        try await to.adoptLink(link, origin)
        #expect(try await to.linkState(link) == state)
        try await to.removeLink(link)
        _ = try await to.prepareLink(link)
        try await to.adoptLink(link, origin)
        #expect(try await to.linkState(link)?.phase == .syncing)

        let applier = try await to.openApplier(link)
        await applier.close()
        var other = origin
        other.identity["made"] = "elsewhere"
        for foreign in [other, CaptureOrigin(identity: origin.identity, position: Position(commit: origin.position.commit + 1))] {
            let error = await #expect(throws: BridgeError.self) { try await to.adoptLink(link, foreign) }
            #expect(error?.code == .checkpointForeign)
        }
        #expect(try await to.linkState(link)?.origin == origin)
        // Records of a link that copies are not taken over.
        try await to.removeLink(link)
        _ = try await to.prepareLink(link)
        try await to.recordOrigin(link, origin)
        let copying = await #expect(throws: BridgeError.self) { try await to.adoptLink(link, origin) }
        #expect(copying?.code == .checkpointForeign)
        #expect(try await to.linkState(link)?.phase == .copying)
        try await to.removeLink(link)
        try await from.removeCapture(link)
        await from.close()
        await to.close()
        #expect(try await target.traces().isEmpty)
    }
}
