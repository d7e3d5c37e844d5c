import BridgeCore
import CSQLite

extension SQLiteSource {
    /// `pragma_table_list` came with 3.37.
    static var isSupportedLibrary: Bool { sqlite3_libversion_number() >= 3_037_000 }
}

/// Proves, when a session begins, that the source is what the link began with and has everything that is not durable
/// yet, and claims the log for the session.
struct CaptureOpening {
    let link: LinkDescription
    let origin: CaptureOrigin
    let path: String

    /// How long a session's beginning waits for a moment in which no other process would be disturbed.
    private static let patience: Duration = .milliseconds(500)

    struct Claim {
        let nonce: String
        let session: String
        let durable: Int64
        let acknowledged: Int64
        let acknowledgements: Int64
        /// Where the sequence leapt to, if it did.
        let leap: Int64?
        /// By which the log is known up to `durable`, and will be.
        let proofs: DeliveryProofs
        /// The mark of the row before `durable`.
        let mark: Int64
    }

    func claim(
        _ database: borrowing SQLiteDatabase, durable: Position, workspace: CaptureWorkspace? = nil
    ) throws(BridgeError) -> Claim {
        let names = CaptureNames(link)
        guard let durable = Int64(exactly: durable.commit), let nonce = origin.identity["epoch"] else {
            throw BridgeError(.sourceReplaced, "the link's origin is not one of an SQLite change log")
        }
        let proofs = try DeliveryProofs(directory: workspace?.directory, nonce: nonce)
        LockHolders(path: path).waitUntilUnused(
            isWriteAhead: try database.string("PRAGMA main.journal_mode")?.lowercased() == "wal", patience: Self.patience)
        let claim = try database.transaction(.immediate) { () throws(BridgeError) in
            for name in names.all where try !CaptureState.exists(name, database) {
                throw BridgeError(
                    .captureBroken, "the change log is not in the source: it was removed, or this is another database",
                    context: [.init(.slot, name), .init(.file, path)],
                    hint: """
                        point 'source' at the database that the migration began with; if the log was removed, start the \
                        migration again with empty target tables
                        """)
            }
            guard let state = try CaptureState.read(names, database), state.nonce == nonce else {
                throw BridgeError(
                    .sourceReplaced, "the source has another change log than the one that the link began with",
                    context: [.init(.slot, names.log), .init(.file, path)])
            }
            guard state.format == CaptureState.format else {
                throw BridgeError(
                    .captureBroken, "the change log was made by another version of bridge",
                    context: [.init(.slot, names.log)], hint: "use the version of bridge that began the migration")
            }
            guard state.link == link.name else {
                throw BridgeError(
                    .slotForeign, "the change log belongs to another migration",
                    context: [.init(.slot, names.log), .init(.migration, state.link)])
            }
            let captured = try CapturedTable.read(names, database)
            try OwnSchemaChanges.counting(database) { () throws(BridgeError) in
                try CaptureInstaller(link).renew(database)
            }
            try checkTables(captured)
            let mark = try checkPlace(state, durable, proofs, names, database)
            return try take(state, durable, (proofs, mark), names, database)
        }
        try proofs.begin(durable: durable)
        return claim
    }

    private func checkTables(_ captured: [CapturedTable]) throws(BridgeError) {
        let logged = Set(captured.map(\.name))
        guard let missing = link.mappings.first(where: { !logged.contains($0.source.name) })?.source.name
            ?? logged.subtracting(link.mappings.map(\.source.name)).first
        else { return }
        throw BridgeError(
            .captureBroken, "the change log was made for other tables than the configuration names",
            context: [.init(.table, missing)],
            hint: "restore the list of tables in bridge.yaml, or start a new migration")
    }

    /// Whether the log still has everything from `durable` on, and is the log that was read up to there.
    /// - Returns: the mark of the last row that was read.
    private func checkPlace(
        _ state: CaptureState, _ durable: Int64, _ proofs: DeliveryProofs, _ names: CaptureNames,
        _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> Int64 {
        guard state.acknowledged <= durable else {
            throw BridgeError(
                .slotForeign,
                "the change log was read further than this journal reaches: somebody else took changes from it",
                context: [
                    .init(.slot, names.log),
                    .init(.position, CaptureState.describe(Position(commit: UInt64(clamping: durable)))),
                ],
                hint: """
                    restore the data directory that belongs to this migration, or empty the target tables and begin \
                    again under a new migration name
                    """)
        }
        let row = try database.prepare(CaptureState.markOfRow(names))
        // What was acknowledged may have been pruned; behind it every row is there, or the log is not the one that was read.
        for proof in proofs.proofs(from: state.acknowledged, before: durable) {
            try row.bind(1, integer: proof.sequence)
            guard try row.step(), row.integer(0) == proof.mark else { throw CaptureState.rewound(path: path, names: names) }
            row.reset()
        }
        try row.bind(1, integer: durable - 1)
        guard try row.step() else { throw CaptureState.rewound(path: path, names: names) }
        return row.integer(0)
    }

    /// Marks the log as read by a new session, and makes the sequence leap.
    private func take(
        _ state: CaptureState, _ durable: Int64, _ known: (proofs: DeliveryProofs, mark: Int64), _ names: CaptureNames,
        _ database: borrowing SQLiteDatabase
    ) throws(BridgeError) -> Claim {
        let log = quoteIdentifier(names.log)
        let leap = try leapIfNeeded(
            database.prepare(CaptureState.newestRow(names)),
            database.prepare("INSERT INTO main.\(log)(seq, tbl) VALUES(?1, \(CaptureState.markerTable))"))
        let claim = Claim(
            nonce: state.nonce, session: CaptureState.randomNonce(), durable: durable,
            acknowledged: state.acknowledged, acknowledgements: state.acknowledgements + 1, leap: leap,
            proofs: known.proofs, mark: known.mark)
        let update = try database.prepare("UPDATE main.\(quoteIdentifier(names.state)) SET value = ?2 WHERE key = ?1")
        try update.bind(1, string: "session")
        try update.bind(2, string: claim.session)
        try update.run()
        try update.bind(1, string: "acknowledgements")
        try update.bind(2, integer: claim.acknowledgements)
        try update.run()
        return claim
    }
}
