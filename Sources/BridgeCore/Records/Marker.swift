/// A marker travels as a message record: see ``CutoverSession/writeMarker(_:link:)``.
package enum Marker {
    /// The prefix of such messages.
    package static let prefix = "bridge.marker"

    /// More bytes than any marker has.
    private static let longest = 256

    /// The marker that a message's content is; nil for what bridge would not have written. Anybody who may write messages
    /// to a source can use the prefix, and a marker becomes part of a row on the target.
    package static func text(_ content: UnsafeRawBufferPointer) -> String? {
        guard !content.isEmpty, content.count <= longest, !content.contains(0) else { return nil }
        return String(validating: content, as: UTF8.self)
    }
}
