import BridgeTestSupport
import Foundation
import GRDB
import Testing

/// Replays records into plain dictionaries. It reads the bytes by the layout that the record format documents, without the
/// product's code, so that a mistake there is not made twice.
struct Mirror {
    typealias Bytes = [UInt8]

    struct Table {
        var name: String
        var columns: [String]
        var keyFlags: [Bool]
        /// By the key's cells as bytes.
        var rows: [Bytes: Bytes] = [:]
    }

    struct Malformed: Error { let what: String }

    private(set) var tables: [UInt32: Table] = [:]
    private(set) var transactions = 0
    private(set) var changes = 0
    private var isOpen = false
    private var changesInTransaction: UInt64 = 0
    private var beginPosition: UInt64 = 0
    private(set) var lastEnd: UInt64 = 0
    private(set) var lastCommitPosition: UInt64 = 0
    /// Where columns came from that a table did not have when its rows arrived: the target's schema is altered by its
    /// operator, so rows that do not travel again have what the application's ALTER gave them.
    var origins: [String: FuzzStatements.Origin] = [:]
    /// The tables as the open transaction found them.
    private var tablesBefore: [UInt32: Table] = [:]
    /// Tables whose relation came in this session.
    private var announced: Set<UInt32> = []

    /// The session ended: what it left unfinished is told again by the next one, which knows of no relation.
    mutating func endSession() {
        if isOpen { tables = tablesBefore }
        isOpen = false
        announced = []
    }

    /// A table is copied again.
    mutating func forget(table name: String) { tables = tables.filter { $0.value.name != name } }

    /// What stands behind a position comes again.
    mutating func resume(at position: UInt64) { lastEnd = min(lastEnd, position) }

    mutating func apply(_ bytes: UnsafeRawBufferPointer) throws {
        var reader = Reader(bytes: Array(bytes))
        while reader.offset < reader.bytes.count {
            let length = Int(try reader.number(4))
            let end = reader.offset + length
            let kind = try reader.number(1)
            switch kind {
            case 1: try relation(&reader)
            case 2:
                guard !isOpen else { throw Malformed(what: "begin inside a transaction") }
                isOpen = true
                tablesBefore = tables
                changesInTransaction = 0
                _ = try reader.number(8)
                beginPosition = try reader.number(8)
                guard beginPosition >= lastEnd else { throw Malformed(what: "begin before the last end") }
                _ = try reader.number(8)
            case 7:
                guard isOpen else { throw Malformed(what: "commit outside of a transaction") }
                isOpen = false
                let position = try reader.number(8)
                guard position >= beginPosition else { throw Malformed(what: "commit before its begin") }
                lastEnd = try reader.number(8)
                guard lastEnd > position else { throw Malformed(what: "end not behind the commit") }
                _ = try reader.number(8)
                guard try reader.number(8) == changesInTransaction else { throw Malformed(what: "count of changes") }
                lastCommitPosition = position
                transactions += 1
            case 8, 9:
                guard isOpen else { throw Malformed(what: "row outside of a transaction") }
                changesInTransaction += 1
                changes += 1
                try row(&reader, isUpsert: kind == 8)
            case 11:
                guard isOpen else { throw Malformed(what: "message outside of a transaction") }
                changesInTransaction += 1
                reader.offset = end
            default: throw Malformed(what: "kind \(kind)")
            }
            guard reader.offset == end else { throw Malformed(what: "length of kind \(kind)") }
        }
    }

    private mutating func relation(_ reader: inout Reader) throws {
        let id = UInt32(try reader.number(4))
        _ = try reader.number(1)
        _ = try reader.number(1)
        _ = try reader.text()
        _ = try reader.number(1)
        _ = try reader.text()
        let name = try reader.text()
        var table = Table(name: name, columns: [], keyFlags: [])
        for _ in 0..<Int(try reader.number(2)) {
            table.keyFlags.append(try reader.number(1) == 1)
            table.columns.append(try reader.text())
            _ = try reader.text()
            _ = try reader.text()
        }
        if let old = tables[id] { table.rows = try Self.rows(old, as: table.columns, origins) }
        tables[id] = table
        announced.insert(id)
    }

    /// A table's rows with the columns that it has now.
    private static func rows(_ old: Table, as columns: [String], _ origins: [String: FuzzStatements.Origin]) throws -> [Bytes: Bytes] {
        guard old.columns != columns else { return old.rows }
        return try old.rows.mapValues { image in
            var reader = Reader(bytes: image)
            var cells: [String: Bytes] = [:]
            for name in old.columns { cells[name] = try reader.cell() }
            return columns.flatMap { name -> Bytes in
                var ancestor = name
                while cells[ancestor] == nil, case .renamed(let earlier)? = origins[ancestor] { ancestor = earlier }
                if let cell = cells[ancestor] { return cell }
                // No cell at all is equal to none.
                guard case .added(let value, _)? = origins[ancestor] else { return [] }
                return switch value {
                case .null: [0x6E]
                case .integer(let integer): [0x69, 0, 0, 0, 8] + withUnsafeBytes(of: integer.bigEndian) { Array($0) }
                case .text(let text): [0x73, 0, 0, 0, UInt8(text.utf8.count)] + Array(text.utf8)
                }
            }
        }
    }

    /// A table's rows with the columns that it has now.
    func rows(of name: String, as columns: [String]) throws -> [Bytes: Bytes] {
        try table(named: name).map { try Self.rows($0, as: columns, origins) } ?? [:]
    }

    private mutating func row(_ reader: inout Reader, isUpsert: Bool) throws {
        let id = UInt32(try reader.number(4))
        guard announced.contains(id), var table = tables.removeValue(forKey: id) else { throw Malformed(what: "unknown relation") }
        let (key, image) = try Self.image(&reader, table.keyFlags, isUpsert: isUpsert)
        table.rows[key] = isUpsert ? image : nil
        tables[id] = table
    }

    /// Reads an image as a row of this many columns, checking that a key image has nothing but the key.
    private static func image(_ reader: inout Reader, _ keyFlags: [Bool], isUpsert: Bool) throws -> (Bytes, Bytes) {
        let count = Int(try reader.number(2))
        guard count == keyFlags.count else { throw Malformed(what: "count of cells") }
        var key: Bytes = []
        let first = reader.offset
        for place in 0..<count {
            let start = reader.offset
            let tag = UInt8(try reader.number(1))
            if [0x69, 0x72, 0x73, 0x78].contains(tag) {
                let length = Int(try reader.number(4))
                try reader.skip(length)
            } else if tag == 0x61 {
                guard !isUpsert, !keyFlags[place] else { throw Malformed(what: "absent cell") }
            } else if tag != 0x6E {
                throw Malformed(what: "tag \(tag)")
            }
            if keyFlags[place] { key += reader.bytes[start..<reader.offset] }
        }
        return (key, Bytes(reader.bytes[first..<reader.offset]))
    }

    /// Takes rows that a copy read: a length and an image each.
    mutating func load(id: UInt32, name: String, columns: [String], keyFlags: [Bool], _ bytes: UnsafeRawBufferPointer) throws {
        var table = tables[id] ?? Table(name: name, columns: columns, keyFlags: keyFlags)
        var reader = Reader(bytes: Array(bytes))
        while reader.offset < reader.bytes.count {
            let length = Int(try reader.number(4))
            let end = reader.offset + length
            let (key, image) = try Self.image(&reader, keyFlags, isUpsert: true)
            guard reader.offset == end else { throw Malformed(what: "length of a copied row") }
            table.rows[key] = image
        }
        tables[id] = table
    }

    func table(named name: String) -> Table? { tables.values.first { $0.name == name } }

    struct Reader {
        let bytes: Bytes
        var offset = 0

        mutating func number(_ size: Int) throws -> UInt64 {
            guard offset + size <= bytes.count else { throw Malformed(what: "cut off") }
            var value: UInt64 = 0
            for _ in 0..<size {
                value = value << 8 | UInt64(bytes[offset])
                offset += 1
            }
            return value
        }

        mutating func skip(_ size: Int) throws {
            guard offset + size <= bytes.count else { throw Malformed(what: "cut off") }
            offset += size
        }

        mutating func cell() throws -> Bytes {
            let start = offset
            if try number(1) != 0x6E { try skip(Int(try number(4))) }
            return Bytes(bytes[start..<offset])
        }

        mutating func text() throws -> String {
            let size = Int(try number(2))
            defer { offset += size }
            guard offset + size <= bytes.count else { throw Malformed(what: "cut off") }
            return String(decoding: bytes[offset..<offset + size], as: UTF8.self)
        }
    }
}

/// A table's rows as GRDB reads them, written as cells.
func realRows(_ database: Database, _ table: String, columns: [String]) throws -> Set<[UInt8]> {
    func quote(_ name: String) -> String { "\"" + name.replacingOccurrences(of: "\"", with: "\"\"") + "\"" }
    let list = columns.map(quote).joined(separator: ", ")
    var rows: Set<[UInt8]> = []
    let cursor = try Row.fetchCursor(database, sql: "SELECT \(list) FROM \(quote(table))")
    while let row = try cursor.next() {
        var image: [UInt8] = []
        for place in 0..<columns.count {
            func number(_ bits: UInt64, _ size: Int) -> [UInt8] {
                (0..<size).reversed().map { UInt8(truncatingIfNeeded: bits >> (8 * UInt64($0))) }
            }
            let value: DatabaseValue = row[place]
            switch value.storage {
            case .null: image.append(0x6E)
            case .int64(let integer): image += [0x69] + number(8, 4) + number(UInt64(bitPattern: integer), 8)
            case .double(let real): image += [0x72] + number(8, 4) + number(real.bitPattern, 8)
            case .string(let text): image += [0x73] + number(UInt64(text.utf8.count), 4) + Array(text.utf8)
            case .blob(let data): image += [0x78] + number(UInt64(data.count), 4) + Array(data)
            }
        }
        rows.insert(image)
    }
    return rows
}

/// The difference between mirror and table in words; nil if there is none.
func difference(_ mirror: Mirror, _ database: Database, _ table: String, columns: [String]) throws -> String? {
    let real = try realRows(database, table, columns: columns)
    let rows = try mirror.rows(of: table, as: columns)
    let held = Set(rows.values)
    let count = rows.count
    guard real != held || count != real.count else { return nil }
    return "\(table): \(real.subtracting(held).count) rows not in the mirror, \(held.subtracting(real).count) only there, \(real.count) in the table"
}
