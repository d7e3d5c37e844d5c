/// A type that both engines can be asked for, with one canonical form each.
///
/// | logical type | canonical cell |
/// | --- | --- |
/// | boolean | integer, 0 or 1 |
/// | int16, int32, int64 | integer |
/// | float32, float64 | real (float32 widened exactly) |
/// | numeric | string: optional sign, digits, optional point and digits; or `NaN`, `Infinity`, `-Infinity` |
/// | text, varchar, character | string |
/// | bytes | blob |
/// | uuid | string, lower case with hyphens |
/// | json, jsonb | string |
/// | timestampWithTimeZone | string `YYYY-MM-DD HH:MM:SS.ffffffZ`, UTC, always six digits; ` BC` behind it; `infinity`, `-infinity` |
/// | timestamp, date, time, interval and all others | string: PostgreSQL's output under ISO date style, ISO 8601 not used |
/// | dynamic | whatever storage class the value has (an SQLite column without a plan) |
package enum LogicalType: Hashable, Sendable {
    case boolean
    case int16
    case int32
    case int64
    case float32
    case float64
    case numeric(precision: Int?, scale: Int?)
    case text
    case varchar(Int?)
    case character(Int?)
    case bytes
    case uuid
    case json
    case jsonb
    case timestampWithTimeZone
    case timestamp
    case date
    case time
    case interval
    case dynamic
    /// A type that only its engine knows, by its SQL name.
    case other(String)

    /// The name by which the type stands in records: the SQL name in PostgreSQL's spelling.
    package var name: String {
        switch self {
        case .boolean: "boolean"
        case .int16: "smallint"
        case .int32: "integer"
        case .int64: "bigint"
        case .float32: "real"
        case .float64: "double precision"
        case .numeric(let precision?, let scale?): "numeric(\(precision),\(scale))"
        case .numeric(let precision?, nil): "numeric(\(precision))"
        case .numeric: "numeric"
        case .text: "text"
        case .varchar(let length?): "character varying(\(length))"
        case .varchar: "character varying"
        case .character(let length?): "character(\(length))"
        case .character: "character"
        case .bytes: "bytea"
        case .uuid: "uuid"
        case .json: "json"
        case .jsonb: "jsonb"
        case .timestampWithTimeZone: "timestamp with time zone"
        case .timestamp: "timestamp without time zone"
        case .date: "date"
        case .time: "time without time zone"
        case .interval: "interval"
        case .dynamic: "dynamic"
        case .other(let name): name
        }
    }

    /// Reads a type by the SQL name that PostgreSQL's `format_type` gives it. Never fails: what is not known is `other`.
    package init(name: String) {
        let base: Substring
        var arguments: [Int] = []
        if let open = name.firstIndex(of: "("), let close = name[open...].firstIndex(of: ")") {
            arguments = name[name.index(after: open)..<close].split(separator: ",").compactMap {
                Int($0.filter { $0 != " " })
            }
            base = name[..<open] + name[name.index(after: close)...]
        } else {
            base = name[...]
        }
        switch base {
        case "boolean", "bool": self = .boolean
        case "smallint", "int2": self = .int16
        case "integer", "int4", "int": self = .int32
        case "bigint", "int8": self = .int64
        case "real", "float4": self = .float32
        case "double precision", "float8": self = .float64
        case "numeric", "decimal": self = .numeric(precision: arguments.first, scale: arguments.dropFirst().first)
        case "text": self = .text
        case "character varying", "varchar": self = .varchar(arguments.first)
        case "character", "char", "bpchar": self = .character(arguments.first)
        case "bytea": self = .bytes
        case "uuid": self = .uuid
        case "json": self = .json
        case "jsonb": self = .jsonb
        case "timestamp with time zone", "timestamptz": self = .timestampWithTimeZone
        case "timestamp without time zone", "timestamp": self = .timestamp
        case "date": self = .date
        case "time without time zone", "time": self = .time
        case "interval": self = .interval
        case "dynamic": self = .dynamic
        default: self = .other(name)
        }
    }
}
