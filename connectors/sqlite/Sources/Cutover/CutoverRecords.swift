import BridgeCore

/// Lease, ledger and routes of one migration. All functions work in the caller's transaction; those that write, under the
/// write lock.
struct CutoverRecords {
    let migration: String

    // MARK: Lease

    func takeLease(owner: String, lasting: Duration, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try CutoverTables.prepare(database)
        let now = try CutoverTables.now(database)
        if let held = try lease(database), held.owner != owner, held.expires > now {
            throw BridgeError(
                .alreadyRunning, "another operator is at work on this migration's cutover",
                context: [.init(.migration, migration), .init(.processes, held.owner)],
                hint: "wait for it to end; its lease lasts \((held.expires - now + 999) / 1_000) more seconds unless renewed")
        }
        let row = try database.prepare(
            "INSERT OR REPLACE INTO main.\(CutoverTables.lease)(migration, owner, expires) VALUES(?1, ?2, ?3)")
        try row.bind(1, string: migration)
        try row.bind(2, string: owner)
        try row.bind(3, integer: moment(lasting.millisecondsRoundedUp, after: now))
        try row.run()
    }

    func releaseLease(owner: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        guard try CutoverTables.exists(CutoverTables.lease, database) else { return }
        let delete = try database.prepare("DELETE FROM main.\(CutoverTables.lease) WHERE migration = ?1 AND owner = ?2")
        try delete.bind(1, string: migration)
        try delete.bind(2, string: owner)
        try delete.run()
    }

    private func lease(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> (owner: String, expires: Int64)? {
        guard try CutoverTables.exists(CutoverTables.lease, database) else { return nil }
        let row = try database.prepare("SELECT owner, expires FROM main.\(CutoverTables.lease) WHERE migration = ?1")
        try row.bind(1, string: migration)
        guard try row.step(), let owner = row.string(0) else { return nil }
        return (owner, row.integer(1))
    }

    // MARK: Ledger

    func append(_ entry: LedgerEntry, owner: String, _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        let now = try CutoverTables.now(database)
        guard let held = try lease(database), held.owner == owner, held.expires > now else {
            throw BridgeError(
                .leaseLost, "the lease on this migration's cutover is lost, so nothing is written to its ledger",
                context: [.init(.migration, migration)])
        }
        let last = try lastNumber(database)
        guard last < .max, entry.number == last + 1 else {
            throw BridgeError(
                .ledgerDiverged, "the ledger's last entry is not the one that was expected",
                context: [.init(.migration, migration), .init(.detail, "entry \(last) is the last, \(entry.number) was to follow")])
        }
        let row = try database.prepare(
            """
            INSERT INTO main.\(CutoverTables.ledger)(migration, number, written_at, attempt, kind, content, checksum)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)
            """)
        try row.bind(1, string: migration)
        try row.bind(2, integer: entry.number)
        try row.bind(3, integer: entry.writtenAt.microseconds)
        for (place, text) in [entry.attempt, entry.kind, entry.content, entry.checksum].enumerated() {
            try row.bind(place + 4, string: text)
        }
        try row.run()
    }

    private func lastNumber(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> Int64 {
        let row = try database.prepare("SELECT max(number) FROM main.\(CutoverTables.ledger) WHERE migration = ?1")
        try row.bind(1, string: migration)
        return try row.step() ? row.integer(0) : 0
    }

    func ledger(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [LedgerEntry] {
        guard try CutoverTables.exists(CutoverTables.ledger, database) else { return [] }
        let rows = try database.prepare(
            """
            SELECT number, written_at, attempt, kind, content, checksum FROM main.\(CutoverTables.ledger)
            WHERE migration = ?1 ORDER BY number
            """)
        try rows.bind(1, string: migration)
        var entries: [LedgerEntry] = []
        while try rows.step() {
            entries.append(
                LedgerEntry(
                    number: rows.integer(0), writtenAt: Timestamp(microseconds: rows.integer(1)),
                    attempt: rows.string(2) ?? "", kind: rows.string(3) ?? "", content: rows.string(4) ?? "",
                    checksum: rows.string(5) ?? ""))
        }
        return entries
    }

    // MARK: Routes

    func publish(_ routes: [Route], _ database: borrowing SQLiteDatabase) throws(BridgeError) {
        try CutoverTables.prepare(database)
        let row = try database.prepare(
            """
            INSERT INTO main.\(CutoverTables.routing)(migration, service, reads, writes, epoch, published_at)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT(migration, service) DO UPDATE SET
              reads = excluded.reads, writes = excluded.writes, epoch = excluded.epoch, published_at = excluded.published_at
            WHERE excluded.epoch > epoch
            """)
        for route in routes {
            for (place, text) in [migration, route.service, route.reads, route.writes].enumerated() {
                try row.bind(place + 1, string: text)
            }
            try row.bind(5, integer: route.epoch)
            try row.bind(6, integer: route.publishedAt.microseconds)
            try row.run()
        }
    }

    func routes(_ database: borrowing SQLiteDatabase) throws(BridgeError) -> [Route] {
        guard try CutoverTables.exists(CutoverTables.routing, database) else { return [] }
        let rows = try database.prepare(
            """
            SELECT service, reads, writes, epoch, published_at FROM main.\(CutoverTables.routing)
            WHERE migration = ?1 ORDER BY service
            """)
        try rows.bind(1, string: migration)
        var routes: [Route] = []
        while try rows.step() {
            routes.append(
                Route(
                    service: rows.string(0) ?? "", reads: rows.string(1) ?? "", writes: rows.string(2) ?? "",
                    epoch: rows.integer(3), publishedAt: Timestamp(microseconds: rows.integer(4))))
        }
        return routes
    }
}
