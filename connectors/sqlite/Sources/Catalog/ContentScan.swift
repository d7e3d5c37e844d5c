package import BridgeCore

extension SQLiteTable {
    /// Rows looked at between two pauses of the read lock: some milliseconds' worth.
    private static let chunkRows = 50_000

    /// Looks at every value of every column whose storage class the declaration does not fix, and says what was found, in
    /// column order.
    ///
    /// The table is read in chunks along its key, each in a read transaction of its own, so that neither a writer (in
    /// rollback-journal mode) nor the checkpoint of the WAL has to wait for the whole. Rows that appear meanwhile may be
    /// missed; a plan is about what is there when a migration is set up.
    package func scanContents(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [ColumnContents] {
        try ContentLook.register(database)
        var contents = columns.map { _ in ColumnContents() }
        let scanned = columns.indices.filter { columns[$0].kind == .ordinary && !(keyIsRowid && key.contains($0)) }
        guard !scanned.isEmpty else { return contents }
        let keyNames = key.map { "t." + quoteIdentifier(columns[$0].name) }
        guard !keyNames.isEmpty else {
            let all = try database.prepare(scanSQL(scanned, condition: ""))
            if try all.step() { merge(all, scanned, into: &contents) }
            return contents
        }
        let keyList = keyNames.joined(separator: ", ")
        let tuple = keyNames.count == 1 ? keyList : "(\(keyList))"
        let parameters = { (first: Int) in
            let list = keyNames.indices.map { "?\(first + $0)" }.joined(separator: ", ")
            return keyNames.count == 1 ? list : "(\(list))"
        }
        let firstBound = try database.prepare(
            "SELECT \(keyList) FROM main.\(quoteIdentifier(name)) AS t ORDER BY \(keyList) LIMIT 1 OFFSET \(Self.chunkRows)")
        guard try firstBound.step() else {
            let all = try database.prepare(scanSQL(scanned, condition: ""))
            if try all.step() { merge(all, scanned, into: &contents) }
            return contents
        }
        let bound = try database.prepare(
            """
            SELECT \(keyList) FROM main.\(quoteIdentifier(name)) AS t WHERE \(tuple) > \(parameters(1)) \
            ORDER BY \(keyList) LIMIT 1 OFFSET \(Self.chunkRows)
            """)
        let upTo = try database.prepare(scanSQL(scanned, condition: "WHERE \(tuple) <= \(parameters(1))"))
        let between = try database.prepare(
            scanSQL(scanned, condition: "WHERE \(tuple) > \(parameters(1)) AND \(tuple) <= \(parameters(keyNames.count + 1))"))
        let rest = try database.prepare(scanSQL(scanned, condition: "WHERE \(tuple) > \(parameters(1))"))
        // Rows with NULL in the key compare as unknown and are passed over; preflight refuses them by name.
        let start = RecordBuffer()
        let end = RecordBuffer()
        try copyKey(firstBound, to: end)
        firstBound.reset()
        try bindKey(upTo, from: end, at: 1)
        if try upTo.step() { merge(upTo, scanned, into: &contents) }
        upTo.reset()
        while true {
            start.removeAll()
            start.append(end.bytes)
            try bindKey(bound, from: start, at: 1)
            guard try bound.step() else { break }
            end.removeAll()
            try copyKey(bound, to: end)
            bound.reset()
            try bindKey(between, from: start, at: 1)
            try bindKey(between, from: end, at: keyNames.count + 1)
            if try between.step() { merge(between, scanned, into: &contents) }
            between.reset()
        }
        bound.reset()
        try bindKey(rest, from: start, at: 1)
        if try rest.step() { merge(rest, scanned, into: &contents) }
        return contents
    }

    private func scanSQL(_ scanned: [Int], condition: String) -> String {
        let looks = scanned.map { ContentLook.expression("t." + quoteIdentifier(columns[$0].name)) }
        return "SELECT \(looks.joined(separator: ", ")) FROM main.\(quoteIdentifier(name)) AS t \(condition)"
    }

    private func merge(_ row: SQLiteStatement, _ scanned: [Int], into contents: inout [ColumnContents]) {
        for (offset, place) in scanned.enumerated() {
            let look = ContentLook(rawValue: row.integer(offset))
            if look.contains(.null) { contents[place].hasNull = true }
            if look.contains(.integer) { contents[place].hasInteger = true }
            if look.contains(.real) { contents[place].hasReal = true }
            if look.contains(.text) { contents[place].hasText = true }
            if look.contains(.blob) { contents[place].hasBlob = true }
            if look.contains(.otherThanZeroAndOne) { contents[place].hasOtherThanZeroAndOne = true }
            if look.contains(.beyondReals) { contents[place].hasIntegerBeyondReals = true }
            let fault: TextFault = look.contains(.invalidUTF8) ? .invalidUTF8 : look.contains(.zeroByte) ? .zeroByte : .none
            contents[place].textFault = max(contents[place].textFault, fault)
        }
    }

    /// Copies the first columns of a row, as many as the key has, as a row image.
    package func copyKey(_ row: SQLiteStatement, to buffer: RecordBuffer) throws(BridgeError) {
        buffer.beginRowImage(columns: key.count)
        for place in key.indices { try row.appendCell(place, to: buffer) }
    }

    /// Binds the cells of a key's row image to parameters from `first` on. The bytes are copied.
    package func bindKey(_ statement: SQLiteStatement, from buffer: RecordBuffer, at first: Int) throws(BridgeError) {
        var reader = ByteReader(buffer.bytes)
        var cells = try RowImage(&reader).cells
        var index = first
        while let cell = try cells.next() {
            try statement.bind(index, cell: cell)
            index += 1
        }
    }
}
