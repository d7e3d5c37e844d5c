/// Rows that are written: made before the clock runs, in one piece of memory each side reads from.
struct Rows {
    let keys: [Int64]
    let customers: [Int64]
    /// All names one behind the other, each of the same length.
    let names: [UInt8]
    static let nameLength = 24

    /// - Parameter keyOf: the key of a row by its place.
    init(count: Int, seed: UInt64, keyOf: (Int) -> Int64) {
        keys = (0..<count).map(keyOf)
        customers = (0..<count).map { Int64(Self.mix(seed &+ UInt64($0)) % 100_000) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count * Self.nameLength)
        for place in 0..<count {
            var value = Self.mix(seed ^ UInt64(place) << 20)
            for _ in 0..<Self.nameLength {
                bytes.append(UInt8(ascii: "a") + UInt8(value & 15))
                value = value >> 4 | value << 60
            }
        }
        names = bytes
    }

    /// A bijection: different numbers give different ones.
    static func mix(_ number: UInt64) -> UInt64 {
        var x = number &+ 0x9E37_79B9_7F4A_7C15
        x = (x ^ (x >> 30)) &* 0xBF58_476D_1CE4_E5B9
        x = (x ^ (x >> 27)) &* 0x94D0_49BB_1331_11EB
        return x ^ (x >> 31)
    }
}

/// What is measured.
enum Work: String, CaseIterable {
    /// New rows, as a source that logs rows sends them.
    case inserts
    /// New rows, as a source that logs keys sends them.
    case statedInserts = "new rows by upsert"
    /// Rows that are there, in no order.
    case upserts = "random upserts"
    /// The same, with a unique index beside the key.
    case uniqueUpserts = "random upserts, unique index"

    var isNew: Bool { self == .inserts || self == .statedInserts }
    var hasUniqueIndex: Bool { self == .uniqueUpserts }

    /// What the plain loop runs for each row.
    var statement: String {
        let insert = "INSERT INTO rows(id, customer, name) VALUES(?1, ?2, ?3)"
        return self == .inserts
            ? insert : insert + " ON CONFLICT(id) DO UPDATE SET customer = excluded.customer, name = excluded.name"
    }

    var wanted: Double { 0.7 }
}
