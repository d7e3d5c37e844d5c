/// Every kind of failure that the product can name. Adding a case makes the three switches below ask for its hint, its
/// retry policy and its exit status.
package enum ErrorCode: String, CaseIterable, Sendable {
    // Command line and configuration
    case usage
    case configurationInvalid = "configuration_invalid"
    case configurationUnknownKey = "configuration_unknown_key"
    case configurationFileMissing = "configuration_file_missing"
    // Tables
    case tableMissing = "table_missing"
    case tableWithoutKey = "table_without_key"
    case targetTableMissing = "target_table_missing"
    case targetTableMismatch = "target_table_mismatch"
    case targetTableNotEmpty = "target_table_not_empty"
    case typeUnsupported = "type_unsupported"
    case sourceUnsupported = "source_unsupported"
    // Servers
    case serverUnreachable = "server_unreachable"
    case connectionLost = "connection_lost"
    case authenticationFailed = "authentication_failed"
    case rightsMissing = "rights_missing"
    case serverSettings = "server_settings"
    case serverBusy = "server_busy"
    case serverRefused = "server_refused"
    // Capture
    case slotMissing = "slot_missing"
    case slotLost = "slot_lost"
    case slotLimit = "slot_limit"
    case slotForeign = "slot_foreign"
    case slotInUse = "slot_in_use"
    case slotBlocked = "slot_blocked"
    case sourceReplaced = "source_replaced"
    case captureBroken = "capture_broken"
    case changesUnseen = "changes_unseen"
    case streamMalformed = "stream_malformed"
    case streamingRefused = "streaming_refused"
    // Journal
    case journalDamaged = "journal_damaged"
    case journalForeign = "journal_foreign"
    case journalLocked = "journal_locked"
    case journalVersion = "journal_version"
    case journalMissing = "journal_missing"
    case journalBudget = "journal_budget"
    case recordMalformed = "record_malformed"
    // Files
    case diskFull = "disk_full"
    case inputOutput = "input_output"
    // Apply
    case valueDoesNotFit = "value_does_not_fit"
    case valueMissing = "value_missing"
    case conflict
    case schemaChanged = "schema_changed"
    case changeRefused = "change_refused"
    case conflictMissing = "conflict_missing"
    case checkpointForeign = "checkpoint_foreign"
    // Comparison
    case inconsistent
    case inconclusive
    // Cutover
    case gateShut = "gate_shut"
    case fenceForeign = "fence_foreign"
    case fenceExpired = "fence_expired"
    case sequenceExhausted = "sequence_exhausted"
    case ledgerDiverged = "ledger_diverged"
    case leaseLost = "lease_lost"
    case hookFailed = "hook_failed"
    // Conduct
    case alreadyRunning = "already_running"
    case interrupted
    case internalFault = "internal_fault"

    /// What a person can do about it. An error that knows more gives a hint of its own.
    package var hint: String {
        switch self {
        case .usage: "bridge --help"
        case .configurationInvalid: "correct the value in bridge.yaml, then run: bridge config"
        case .configurationUnknownKey: "remove the key or correct its spelling, then run: bridge config"
        case .configurationFileMissing: "bridge init SOURCE TARGET writes one, or name one with --config FILE"
        case .tableMissing: "correct the table's name under services, or create the table"
        case .tableWithoutKey: "give the table a primary key, or leave it out of the migration"
        case .targetTableMissing: "bridge schema apply creates the target's tables"
        case .targetTableMismatch: "bridge schema show prints the expected shape; alter the target table to match"
        case .targetTableNotEmpty: "empty the target table, or leave it out of the migration"
        case .typeUnsupported: "leave the column out with 'columns:', or change its type"
        case .sourceUnsupported: "bridge preflight lists everything that stands in the way"
        case .serverUnreachable: "check host, port and that the server accepts connections, then run the command again"
        case .connectionLost: "run the command again; it continues where it stopped"
        case .authenticationFailed: "correct the user or the password (PGPASSWORD, ~/.pgpass or ${NAME} in bridge.yaml)"
        case .rightsMissing: "bridge preflight prints the GRANT statements that are needed"
        case .serverSettings: "bridge preflight prints the settings that must be changed"
        case .serverBusy: "run the command again later"
        case .serverRefused: "read the server's message; bridge preflight may know more"
        case .slotMissing:
            "the changes since then cannot be recovered: empty the target tables and begin again under a new migration name, with a new data_dir"
        case .slotLost:
            "the server discarded WAL that was still needed: raise max_slot_wal_keep_size, then empty the target tables and begin again under a new migration name, with a new data_dir"
        case .slotLimit:
            "find out what held the log back, then empty the target tables and begin again under a new migration name, with a new data_dir; replication.slot_retained_limit and at_slot_limit set the limit"
        case .slotForeign: "choose another migration name, or drop the slot if nothing else uses it"
        case .slotInUse: "stop the other process that reads this slot, then run the command again"
        case .slotBlocked: "end the transactions named here, or wait for them, then run the command again"
        case .sourceReplaced: "point 'source' at the database that the migration began with, or start a new migration"
        case .changesUnseen: "bridge run goes on; then bridge check --repair brings the target's older rows in line"
        case .captureBroken: "bridge preflight names what is missing on the source"
        case .streamMalformed: "report this with the server's version; nothing was applied from it"
        case .streamingRefused:
            "none is needed: the source holds large transactions until they commit, and the next start tries anew"
        case .journalDamaged: "bridge journal verify shows the extent; restore the file from a backup, or empty the target tables and begin again under a new migration name"
        case .journalForeign: "point data_dir at this migration's own journal"
        case .journalLocked: "stop the process that holds the journal, or use another data_dir"
        case .journalVersion: "use the version of bridge that wrote the journal, or a newer one"
        case .journalMissing: "restore the data directory, or empty the target tables and begin again under a new migration name"
        case .journalBudget: "let the target catch up, or raise replication.journal_budget"
        case .recordMalformed: "bridge journal verify shows whether the journal is damaged"
        case .diskFull: "make room on the disk, then run the command again; it continues where it stopped"
        case .inputOutput: "check the disk and the permissions of the path, then run the command again"
        case .valueDoesNotFit: "change the target column's type, or correct the row on the source, then run the command again"
        case .valueMissing: "set REPLICA IDENTITY FULL on the source table, then run the command again"
        case .conflictMissing: "bridge conflicts list tells where the links stand"
        case .conflict: "find out who else writes to the target; correct the row, then run the command again"
        case .schemaChanged: "alter the target table to match the source, then run the command again"
        case .changeRefused: "read the database's message, correct the target, then run the command again"
        case .checkpointForeign: "choose another migration name, or clear the target of the other migration's records"
        case .inconsistent: "read the differences above"
        case .inconclusive: "read the reason above; bridge check --mode full begins anew"
        case .gateShut: "bridge cutover status prints every gate with its limit and what it measured"
        case .fenceForeign: "bridge cutover status tells whose fence it is; bridge cutover resume finishes what it belongs to"
        case .fenceExpired: "the application writes where it did before; run the command again"
        case .sequenceExhausted: "give the sequence a larger type or other bounds, then run the command again"
        case .ledgerDiverged: "bridge cutover status compares the ledger with what the databases show"
        case .leaseLost: "another operator took over; bridge cutover status shows who"
        case .hookFailed: "read the hook's output, correct it, then run: bridge cutover resume"
        case .alreadyRunning: "stop the other bridge process, or use its data directory's status: bridge status"
        case .interrupted: "run the command again; it continues where it stopped"
        case .internalFault: "report this with the message above"
        }
    }

    package var retry: RetryPolicy {
        switch self {
        case .serverUnreachable, .connectionLost, .serverBusy, .slotInUse, .slotBlocked, .streamingRefused: .backoff
        case .usage, .configurationInvalid, .configurationUnknownKey, .configurationFileMissing, .tableMissing,
            .tableWithoutKey, .targetTableMissing, .targetTableMismatch, .targetTableNotEmpty, .typeUnsupported,
            .sourceUnsupported, .authenticationFailed, .rightsMissing, .serverSettings, .serverRefused, .slotMissing,
            .slotLost, .slotLimit, .slotForeign, .sourceReplaced, .captureBroken, .changesUnseen, .streamMalformed, .journalDamaged,
            .journalForeign, .journalLocked, .journalVersion, .journalMissing, .journalBudget, .recordMalformed,
            .diskFull, .inputOutput, .valueDoesNotFit, .valueMissing, .conflict, .conflictMissing, .schemaChanged, .changeRefused,
            .checkpointForeign, .inconsistent, .inconclusive, .gateShut, .fenceForeign, .fenceExpired, .sequenceExhausted,
            .ledgerDiverged, .leaseLost, .hookFailed, .alreadyRunning, .interrupted, .internalFault:
            .never
        }
    }

    package var exitStatus: ExitStatus {
        switch self {
        case .usage, .conflictMissing: .usage
        case .configurationInvalid, .configurationUnknownKey, .configurationFileMissing, .tableMissing,
            .tableWithoutKey, .targetTableMissing, .targetTableMismatch, .targetTableNotEmpty, .typeUnsupported,
            .sourceUnsupported, .serverSettings, .slotForeign, .checkpointForeign:
            .configuration
        case .serverUnreachable, .connectionLost: .unavailable
        case .authenticationFailed, .rightsMissing: .rights
        case .serverBusy, .slotInUse, .slotBlocked, .journalLocked, .alreadyRunning, .journalBudget, .streamingRefused: .tryAgain
        case .slotMissing, .slotLost, .slotLimit, .sourceReplaced, .captureBroken, .changesUnseen, .streamMalformed, .journalDamaged,
            .journalForeign, .journalVersion, .journalMissing, .recordMalformed, .valueDoesNotFit, .valueMissing,
            .conflict, .schemaChanged, .changeRefused, .serverRefused:
            .badData
        case .diskFull, .inputOutput: .inputOutput
        case .inconsistent, .gateShut: .inconsistent
        case .inconclusive: .inconclusive
        case .fenceForeign, .fenceExpired, .leaseLost: .tryAgain
        case .sequenceExhausted: .badData
        case .ledgerDiverged: .badData
        case .hookFailed: .unavailable
        case .interrupted: .interrupted
        case .internalFault: .internalFault
        }
    }
}
