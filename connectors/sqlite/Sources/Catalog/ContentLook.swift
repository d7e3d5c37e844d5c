import BridgeCore
import CSQLite

/// What one column's values are, as bits: the result of an aggregate function that looks at each of them once.
struct ContentLook: OptionSet {
    let rawValue: Int64
    static let null = ContentLook(rawValue: 1)
    static let integer = ContentLook(rawValue: 2)
    static let real = ContentLook(rawValue: 4)
    static let text = ContentLook(rawValue: 8)
    static let blob = ContentLook(rawValue: 16)
    /// An integer other than 0 and 1.
    static let otherThanZeroAndOne = ContentLook(rawValue: 32)
    /// An integer that comes back as another value from a double, or, as the least does, as a double.
    static let beyondReals = ContentLook(rawValue: 64)
    static let zeroByte = ContentLook(rawValue: 128)
    static let invalidUTF8 = ContentLook(rawValue: 256)

    /// The expression that looks at a column. Of a blob the type alone is read, from the row's header.
    static func expression(_ column: String) -> String { "\(name)(CASE typeof(\(column)) WHEN 'blob' THEN x'' ELSE \(column) END)" }

    private static let name = "_bridge_content_look"

    /// Makes the function known to a connection.
    static func register(_ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let result = sqlite3_create_function_v2(
            database.handle, name, 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, nil, nil,
            { context, _, values in
                // What could not be looked at is not the same as nothing.
                guard let value = values?[0], let room = sqlite3_aggregate_context(context, 8), let look = ContentLook(value)
                else { return sqlite3_result_error_nomem(context) }
                room.assumingMemoryBound(to: Int64.self).pointee |= look.rawValue
            },
            { context in
                // Without a row nothing was seen, and there is no room.
                let room = sqlite3_aggregate_context(context, 0)
                sqlite3_result_int64(context, room?.assumingMemoryBound(to: Int64.self).pointee ?? 0)
            }, nil)
        try database.check(result, doing: "a function cannot be registered")
    }

    init(rawValue: Int64) { self.rawValue = rawValue }

    /// nil if memory does not suffice to look at it.
    private init?(_ value: OpaquePointer) {
        switch sqlite3_value_type(value) {
        case SQLITE_INTEGER:
            let integer = sqlite3_value_int64(value)
            self = .integer
            if integer != 0, integer != 1 { insert(.otherThanZeroAndOne) }
            if Double(exactly: integer) == nil || integer == .min { insert(.beyondReals) }
        case SQLITE_FLOAT: self = .real
        case SQLITE_BLOB: self = .blob
        case SQLITE_TEXT:
            self = .text
            guard let text = sqlite3_value_text(value) else { return nil }
            switch TextFault(UnsafeRawBufferPointer(start: text, count: Int(sqlite3_value_bytes(value)))) {
            case .none: break
            case .zeroByte: insert(.zeroByte)
            case .invalidUTF8: insert(.invalidUTF8)
            }
        default: self = .null
        }
    }
}
