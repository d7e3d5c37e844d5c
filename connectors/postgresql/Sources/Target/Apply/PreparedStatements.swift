import BridgeCore

/// Which statement a change needs: its table, what it does, and which columns are left out or looked for as NULL.
struct StatementKey: Hashable {
    enum Kind: Hashable {
        case insert, upsert, delete, remove
        case update(setsKey: Bool)
        /// Makes the row that has the new row's key like it.
        case replace
        /// Removes the row that has the new row's key.
        case deleteTaken
    }
    var plan: Int
    var kind: Kind
    /// Fails by itself unless it hits one row.
    var isChecked: Bool
    var leftOut: [UInt64]
    var oldNulls: [UInt64]
}

/// The statements that the session has prepared. Bounded: a table whose rows leave out ever other columns would
/// otherwise fill the server's memory.
struct PreparedStatements {
    struct Entry {
        let name: String
        let parameters: [ApplyStatements.RowStatement.Parameter]
    }

    private var entries: [StatementKey: Entry] = [:]
    private var made = 0
    static let maximum = 500

    func entry(for key: StatementKey) -> Entry? { entries[key] }
    var isFull: Bool { entries.count >= Self.maximum }

    /// Names a statement that is about to be prepared. A name is never used twice in a session.
    mutating func add(_ key: StatementKey, _ statement: ApplyStatements.RowStatement) -> Entry {
        made += 1
        let entry = Entry(name: "bridge_\(made)", parameters: statement.parameters)
        entries[key] = entry
        return entry
    }

    /// Names of statements that belong to no table.
    var common: Set<String> = []

    mutating func forgetAll() {
        entries.removeAll()
        common.removeAll()
    }
}

/// The parameters of one statement: text values one behind the other, each ended by a zero byte.
struct ParameterList: ~Copyable {
    private let bytes = RecordBuffer(capacity: 4 << 10)
    /// Where each value begins; -1 for NULL.
    private var offsets = ContiguousArray<Int>()
    private var pointers = ContiguousArray<UnsafePointer<CChar>?>()

    mutating func removeAll() {
        bytes.removeAll(retaining: 1 << 20)
        offsets.removeAll(keepingCapacity: true)
    }

    mutating func appendNull() { offsets.append(-1) }

    mutating func append(_ cell: Cell, as type: TargetType) throws(CellRefusal) {
        offsets.append(bytes.count)
        let start = bytes.count
        try CellEncoder.append(cell, as: type, style: .parameter, to: bytes)
        // The protocol would carry a zero byte, but libpq takes text values as C strings and would cut there.
        if bytes.bytes[start...].contains(0) { throw .zeroByte }
        bytes.append(0)
    }

    var byteCount: Int { bytes.count }

    /// Gives the values to C.
    mutating func withPointers<Result>(_ body: (Int32, UnsafePointer<UnsafePointer<CChar>?>?) -> Result) -> Result {
        pointers.removeAll(keepingCapacity: true)
        let base = bytes.bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
        for offset in offsets { pointers.append(offset < 0 ? nil : base.map { $0 + offset }) }
        return pointers.withUnsafeBufferPointer { body(Int32(truncatingIfNeeded: $0.count), $0.baseAddress) }
    }
}
