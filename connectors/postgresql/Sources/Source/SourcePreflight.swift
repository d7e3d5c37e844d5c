import BridgeCore

/// Looks for everything that would make capture or copy impossible. Changes nothing.
struct SourcePreflight {
    let session: PostgresConnection
    let link: LinkDescription

    func findings() throws(BridgeError) -> [Finding] { [] }
}
