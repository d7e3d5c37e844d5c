import BridgeCore

/// Telling a server that works for long from one that cannot be heard any more.
///
/// A statement may take hours, so no deadline can be set for its answer; and what stands between, such as a proxy or a
/// firewall that lost its state, may go on acknowledging bytes that reach nobody, so TCP notices nothing. After
/// ``ConnectionString/silenceLimit`` without a byte the server is therefore asked over another connection what the session's
/// process does. Where it waits for us while we wait for it, and no byte comes of it, the connection is lost.
extension PostgresConnection {
    /// What the server says of the session's process.
    enum Occupation {
        case working
        /// It waits for its client, or is idle.
        case waiting
        case gone
        /// The server cannot be asked either.
        case unknown
    }

    /// To be called when nothing has come for ``silenceLimit``. Returns if going on waiting is right.
    /// - Parameter events: what is waited for.
    /// - Throws: `connectionLost`.
    func examineSilence(_ events: WaitEvents, during action: String? = nil) throws(BridgeError) {
        let subject = action.map { " while \($0)" } ?? ""
        let what: String
        switch occupation() {
        case .working: return
        case .gone: what = "the server has ended the session"
        case .waiting: what = "what the server sends does not arrive"
        case .unknown: what = "the server says nothing, and cannot be asked over another connection"
        }
        // An answer may have been on its way while we asked.
        guard case .timedOut = wait(events, until: .now + min(silenceLimit, .seconds(5))) else { return }
        throw BridgeError(.connectionLost, what + subject, context: [.init(.server, displayName)])
    }

    private func occupation() -> Occupation {
        guard let inquiries else { return .unknown }
        do throws(BridgeError) {
            let session = try PostgresConnection(
                inquiries, applicationName: "bridge inquiry", interrupter: interrupter, isInquiry: true)
            let row = try session.rows(
                "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1", [String(backendProcess)],
                during: "asking for a session").first
            guard let row else { return .gone }
            return row[0] == "Client" || row[0] == "Activity" ? .waiting : .working
        } catch {
            // A server that refuses is alive, and may be at work: it has no room for another session, say. Whoever
            // interrupted us is answered by the caller.
            return error.sqlState != nil && error.code != .connectionLost || error.code == .interrupted ? .working : .unknown
        }
    }
}
