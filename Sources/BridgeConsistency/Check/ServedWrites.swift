package import BridgeCore

/// How far the record of others' writes to a link's target goes that the application made while it was served there. When it
/// has gone back to the link's source, these are no foreign writes: the other link has carried them over. The rows are
/// looked at all the same.
package struct ServedWrites: Codable, Hashable, Sendable {
    /// Which record it is: see ``WatchMark/identity``.
    package var watch: String
    /// The last of the writes.
    package var number: Int64

    package init(watch: String, number: Int64) {
        self.watch = watch
        self.number = number
    }

    /// To be called when nobody but appliers may write to the target any more, and before anybody may again.
    /// - Parameter older: what was kept last, from where it is gone on.
    /// - Returns: nil if nothing is recorded there, so that there is nothing to tell apart.
    package static func newest(
        of link: LinkDescription, target: any TargetConnector, older: ServedWrites?
    ) async throws(BridgeError) -> ServedWrites? {
        let session = try await target.openComparison(link, role: .target)
        let result: Result<ServedWrites?, BridgeError>
        do throws(BridgeError) { result = .success(try await newest(session, older)) } catch { result = .failure(error) }
        await session.close()
        return try result.get()
    }

    private static func newest(_ session: any ComparisonSession, _ older: ServedWrites?) async throws(BridgeError) -> ServedWrites? {
        guard let side = session.target else { return nil }
        do throws(BridgeError) {
            let watch = try await side.watchMark(of: "").identity
            var newest = ServedWrites(watch: watch, number: older.flatMap { $0.watch == watch ? $0.number : nil } ?? 0)
            while let last = try await side.foreignWrites(after: newest.number, limit: 10_000).last { newest.number = last.number }
            return newest
        } catch where error.code == .captureBroken { return nil }
    }
}
