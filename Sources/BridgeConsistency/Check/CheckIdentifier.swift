package import BridgeCore

/// The name of a check: `20261121T055900Z-0a3f`. Names sort by the time at which the checks began, to the microsecond,
/// and are safe as names of files.
package enum CheckIdentifier {
    /// Behind the second stand its microseconds in base 36, which four places hold.
    package static func make(at time: Timestamp = .now) -> String {
        let text = time.rfc3339
        let digits = text.prefix(19).filter { $0 != "-" && $0 != ":" }
        let fraction = String(Int64(text.dropFirst(20).prefix(6)) ?? 0, radix: 36)
        return "\(digits)Z-" + String(repeating: "0", count: max(0, 4 - fraction.count)) + fraction
    }

    /// Whether a text has the form of a check's name.
    package static func isValid(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard bytes.count == 21 else { return false }
        return bytes.enumerated().allSatisfy { place, byte in
            switch place {
            case 8: byte == UInt8(ascii: "T")
            case 15: byte == UInt8(ascii: "Z")
            case 16: byte == UInt8(ascii: "-")
            case 17...: isDigit(byte) || (byte >= UInt8(ascii: "a") && byte <= UInt8(ascii: "z"))
            default: isDigit(byte)
            }
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
}
