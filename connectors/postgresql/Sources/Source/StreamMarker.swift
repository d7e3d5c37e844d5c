import BridgeCore

/// How a marker travels in the server's log: as a transactional message.
///
/// Every slot of a database is sent every message, so its content can say which link it is for: the link's name, a line
/// break, the marker. Other links of the database then do not take it for theirs, where it would stand in the place of a
/// marker that somebody waits for. Without a line break it is for whoever sees it.
enum StreamMarker {
    /// The statement that writes a marker for one link. In a transaction of the caller's, or one of its own.
    static func statement(_ marker: String, link: LinkDescription) -> String {
        "SELECT pg_logical_emit_message(true, \(quoteLiteral(Marker.prefix)), \(quoteLiteral("\(link.name)\n\(marker)")))"
    }

    /// The marker in a message's content; nil if it is for another link.
    static func text(_ content: UnsafeRawBufferPointer, link: LinkDescription) -> UnsafeRawBufferPointer? {
        guard let end = content.firstIndex(of: UInt8(ascii: "\n")) else { return content }
        guard content[..<end].elementsEqual(link.name.utf8) else { return nil }
        return UnsafeRawBufferPointer(rebasing: content[(end + 1)...])
    }
}
