package import BridgeCore

extension SourceConnector {
    /// A picture that is bound to no capture's tables.
    package func openSnapshot(_ link: LinkDescription) async throws(BridgeError) -> any SourceSnapshot {
        try await openSnapshot(link, origin: CaptureOrigin(identity: [:], position: .zero))
    }
}
