import Foundation

/// The system's time zones by name.
enum TimeZoneDatabase {
    /// Whether `Area/City` is a zone that this machine can compute with.
    static func contains(_ name: String) -> Bool {
        name.contains("/") && !name.contains("..") && TimeZone(identifier: name) != nil
    }
}
