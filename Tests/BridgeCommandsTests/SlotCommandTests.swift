import BridgeCore
import BridgeTestSupport
import Foundation
import Testing

@testable import BridgeCommands
@testable import BridgeReplication

/// What the program says of a migration's slot: how much it holds back, and that it is not what it was.
@Suite("The slot, as the program tells of it")
struct SlotCommandTests {
    @Test("P5 P18 another timeline, another cluster, a slot that was lost and one made anew each end a run with their own words")
    func bindings() async throws {
        let cluster = try await PostgresCluster.started(
            settings: ["max_wal_size": "32MB", "min_wal_size": "32MB", "fsync": "off"], isListening: true)
        let place = try await PostgresWorkplace(cluster: cluster, migration: "bindings")
        let proxy = try TCPProxy(to: try #require(cluster.port))
        let address = cluster.overTCP(place.uri, port: proxy.port, words: ["connect_timeout=5"])
        try place.configure(source: address, migration: "bindings")
        try await place.succeeding("schema", "apply")
        try await place.succeeding("run", "--until-caught-up")

        // A standby takes over under a running migration.
        let standby = try await BlockingWork().run { try cluster.makeStandby() }
        let run = try Executable.start(["run"], in: place.folder)
        try await waitUntil(deadline: .seconds(60), "the run streams; \(run.errorsSoFar)") {
            RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))?.isCapturing == true
        }
        try await BlockingWork().run { try standby.promote() }
        proxy.redirect(to: try #require(standby.port))
        proxy.drop()
        let replaced = await run.wait()
        #expect(replaced.status == 65 && replaced.errors.contains("another timeline"), "\(replaced.errors)")
        proxy.redirect(to: try #require(cluster.port))

        let other = try await PostgresWorkplace(migration: "bindings")
        let foreign = try await place.bridge("run", environment: ["BRIDGE_SOURCE": other.uri])
        #expect(foreign.status == 65 && foreign.errors.contains("another database cluster"), "\(foreign.errors)")

        try await place.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf()")
        try await waitUntil("the slot loses its log") {
            try await place.sql("CREATE TABLE IF NOT EXISTS u(id int); INSERT INTO u VALUES (1); SELECT pg_switch_wal(); CHECKPOINT")
            return try await place.sql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'bridge_bindings'") == "lost"
        }
        let lost = try await place.bridge("run")
        #expect(lost.status == 65 && lost.errors.contains("removed WAL") && lost.errors.contains("max_slot_wal_keep_size"), "\(lost.errors)")
        let status = try object(try await place.succeeding("status", "--json"))
        #expect((status["links"] as? [[String: Any]])?.first?["slot_state"] as? String == "lost")
        #expect((status["next_steps"] as? [String])?.first?.contains("begin again") == true)

        try await place.sql(
            "SELECT pg_drop_replication_slot('bridge_bindings'); SELECT pg_create_logical_replication_slot('bridge_bindings', 'pgoutput')")
        let anew = try await place.bridge("run")
        #expect(anew.status == 78 && anew.errors.contains("made anew"), "\(anew.errors)")
        #expect(try await place.sql("SELECT count(*) FROM pg_replication_slots") == "1")
    }

    @Test("P6 status tells how much a slot holds back, and of how much, with and without a run; preflight names the server's limit")
    func retained() async throws {
        let place = try await PostgresWorkplace(migration: "retained")
        try place.configure(
            source: place.uri, migration: "retained", settings: "replication: { slot_retained_limit: 64MB, at_slot_limit: hold }")
        try await place.succeeding("schema", "apply")
        let preflight = try await place.succeeding("preflight")
        #expect(preflight.output.contains("ALTER SYSTEM SET max_slot_wal_keep_size = '61MB'"), "\(preflight.output)")
        try await place.succeeding("run", "--until-caught-up")
        for _ in 0..<5 { try await place.sql("SELECT pg_logical_emit_message(false, 'other', 'x'); SELECT pg_switch_wal()") }
        let status = try object(try await place.succeeding("status", "--json"))
        let link = try #require((status["links"] as? [[String: Any]])?.first)
        #expect(link["slot_retained_limit"] as? Int == 64_000_000)
        #expect((link["slot_retained_bytes"] as? Int ?? 0) > 64_000_000)
        #expect(link["slot_state"] as? String == "reserved")
        let steps = try #require(status["next_steps"] as? [String])
        #expect(steps.first == "bridge run" && steps.last?.contains("of 64MB that it may") == true, "\(steps)")
        #expect(try await place.succeeding("status").output.contains("of 64.0 MB that it may"))

        let run = try Executable.start(["run"], in: place.folder)
        try await waitUntil(deadline: .seconds(60), "the run tells of it; \(run.errorsSoFar)") {
            RunReport.read(from: DataDirectory(place.folder.path("bridge-data")))?.slotWarning != nil
        }
        let running = try object(try await place.succeeding("status", "--json"))
        #expect(((running["links"] as? [[String: Any]])?.first?["trouble"] as? String)?.contains("of log for the link") == true)
        run.send(signal: SIGTERM)
        let ended = await run.wait()
        #expect(ended.status == 0 && ended.errors.contains("raise replication.slot_retained_limit"), "\(ended.errors)")
    }

    @Test("P6 a slot that was given up is told of by a later run and by status, as what it is")
    func givenUp() async throws {
        let place = try await PostgresWorkplace(migration: "given-up")
        try await place.succeeding("schema", "apply")
        try await place.succeeding("run", "--until-caught-up")
        let configuration = try ConfigurationLoader(environment: [:], registry: .standard).load(
            .init(file: place.folder.path("bridge.yaml"), dataDirectory: nil))
        let migration = try Migration(configuration, registry: .standard)
        let link = try await migration.open()
        let origin = try #require(try await migration.target.linkState(link.description)?.origin)
        let limit = try #require(migration.linkConfiguration(link).slotLimit)
        try limit.record(origin, SlotLimit.error(link.description, "it was too much"))
        // Killed before the slot was gone, the link goes on.
        try await place.succeeding("run", "--until-caught-up")
        #expect(try await place.link()["slot_state"] as? String == "reserved")
        try await waitUntil("the slot can be dropped") { (try? await migration.source.removeCapture(link.description)) != nil }
        await migration.close()
        let run = try await place.bridge("run")
        #expect(run.status == 65 && run.errors.contains("it was too much") && run.errors.contains("new migration name"), "\(run.errors)")
        let status = try object(try await place.succeeding("status", "--json"))
        #expect((status["links"] as? [[String: Any]])?.first?["slot_state"] as? String == "dropped")
        #expect((status["next_steps"] as? [String])?.first?.contains("begin again") == true)
    }
}
