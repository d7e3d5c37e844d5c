import BridgeCore

/// What a migration's fence is called in the catalog, and the text that it is made of.
///
/// A fence is two triggers on each table and partition, enabled ALWAYS, with one function of the migration:
/// - BEFORE every statement that writes, TRUNCATE too. It refuses also what would have touched no row: an application
///   must not conclude from an old table that a row is not there.
/// - BEFORE each row, on what holds rows. Workers of logical replication write without firing triggers of statements, and
///   so does a statement that names a parent of the table that is not fenced itself.
///
/// Who raised it, until when it holds, service and routing epoch are the triggers' arguments. They change by making the
/// triggers anew, under a lock that no writer shares. A changed function would not do: a transaction that is under way may
/// go on with the old one.
struct FenceText {
    let migration: String
    let function: String
    let statementTrigger: String
    let rowTrigger: String
    /// What appliers of this migration call themselves in the setting `bridge.applier`.
    private let appliers: [String]

    /// The SQLSTATE of a write that a fence refused.
    static let sqlState = "BR001"

    init(migration: String) {
        self.migration = migration
        let suffix = migration.map { $0 == "-" ? "_" : String($0) }.joined()
        function = Self.functionPrefix + suffix
        statementTrigger = "bridge_fence_" + suffix
        rowTrigger = "bridge_rows_" + suffix
        appliers = [LinkDescription.Direction.forward, .reverse].map {
            LinkDescription(migration: migration, direction: $0, mappings: [], form: .native).identifier
        }
    }

    static let functionPrefix = "fence_"
    var qualifiedFunction: String { "_bridge.\(quoteIdentifier(function))" }

    // MARK: The function

    static let functionSettings = "search_path=pg_catalog, pg_temp"

    /// The replica role alone does not pass, since anybody who may set it would; the applier's own mark alone does not
    /// either, since anybody may set that.
    var functionBody: String {
        """

        BEGIN
          IF (current_setting('session_replication_role') <> 'replica'
              OR coalesce(current_setting('bridge.applier', true), '') NOT IN (\(appliers.map(quoteLiteral).joined(separator: ", "))))
            AND extract(epoch FROM clock_timestamp()) * 1000000 < TG_ARGV[1]::numeric THEN
            RAISE EXCEPTION USING ERRCODE = '\(Self.sqlState)',
              MESSAGE = format('writes to %I.%I are stopped: migration %s moves service %s (routing epoch %s)',
                TG_TABLE_SCHEMA, TG_TABLE_NAME, \(quoteLiteral(migration)), TG_ARGV[2], TG_ARGV[3]),
              HINT = 'Read the route of the service anew, connect to where it says, and run the transaction again.',
              SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
          END IF;
          IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
          RETURN NEW;
        END

        """
    }

    var createFunction: String {
        """
        CREATE OR REPLACE FUNCTION \(qualifiedFunction)() RETURNS trigger LANGUAGE plpgsql \
        SET search_path = pg_catalog, pg_temp AS \(quoteLiteral(functionBody))
        """
    }

    // MARK: The triggers

    /// What says, in a trigger's arguments, whose it is and how long it holds.
    struct Arguments: Hashable {
        var attempt: String
        /// Microseconds since 1970 by the database's clock, `Infinity` for good, `-Infinity` for one that was lifted and
        /// could not be removed yet.
        var expiry: String
        var service: String
        var epoch: Int64
        /// The table that was to be fenced, of which this may be a partition.
        var root: UInt32

        static let permanent = "Infinity"
        static let lifted = "-Infinity"

        var list: [String] { [attempt, expiry, service, "\(epoch)", "\(root)"] }

        init(attempt: String, expiry: String, service: String, epoch: Int64, root: UInt32) {
            (self.attempt, self.expiry, self.service, self.epoch, self.root) = (attempt, expiry, service, epoch, root)
        }

        /// From the catalog, where each ends with a zero byte; nil for anything that is not ours.
        init?(hexadecimal: String) {
            var bytes: [UInt8] = []
            var high: UInt8?
            for digit in hexadecimal {
                guard let value = digit.hexDigitValue.map({ UInt8(truncatingIfNeeded: $0) }) else { return nil }
                if let first = high {
                    bytes.append(first << 4 | value)
                    high = nil
                } else {
                    high = value
                }
            }
            let parts = bytes.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
            guard parts.count == 6, let epoch = Int64(parts[3]), let root = UInt32(parts[4]),
                [Self.permanent, Self.lifted].contains(parts[1]) || Int64(parts[1]) != nil
            else { return nil }
            self.init(attempt: parts[0], expiry: parts[1], service: parts[2], epoch: epoch, root: root)
        }
    }

    /// The names of the triggers that belong on a table.
    func triggers(on relation: FenceCatalog.Relation) -> [String] {
        relation.holdsRows ? [statementTrigger, rowTrigger] : [statementTrigger]
    }

    /// The text of a trigger as the server gives it (`pg_get_triggerdef`), up to its arguments.
    /// - Parameter table: quoted.
    func definition(_ trigger: String, on table: String) -> String {
        let appliers = appliers.map { "\(quoteLiteral($0))::text" }.joined(separator: ", ")
        let what =
            trigger == rowTrigger
            ? """
            INSERT OR DELETE OR UPDATE ON \(table) FOR EACH ROW \
            WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) \
            OR (COALESCE(current_setting('bridge.applier'::text, true), ''::text) <> ALL (ARRAY[\(appliers)]))))
            """
            : "INSERT OR DELETE OR UPDATE OR TRUNCATE ON \(table) FOR EACH STATEMENT"
        return "CREATE TRIGGER \(trigger) BEFORE \(what) EXECUTE FUNCTION _bridge.\(function)("
    }

    /// Makes a trigger, or makes it anew.
    func create(_ trigger: String, on table: String, _ arguments: Arguments) -> String {
        let list = arguments.list.map(quoteLiteral).joined(separator: ", ")
        let text = definition(trigger, on: table).replacing("CREATE TRIGGER", with: "CREATE OR REPLACE TRIGGER", maxReplacements: 1)
        // Made anew, a trigger is enabled in the ordinary way.
        return "\(text)\(list)); ALTER TABLE ONLY \(table) ENABLE ALWAYS TRIGGER \(trigger)"
    }
}
