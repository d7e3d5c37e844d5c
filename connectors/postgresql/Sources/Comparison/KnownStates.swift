import BridgeCore

/// Tells of what changes the rows of a watched table without firing a trigger: a rewriting `ALTER TABLE`, `CLUSTER`,
/// `VACUUM FULL`, `ALTER TYPE … RENAME VALUE`.
///
/// **The rule.** Beside the record of writes stands a table of known states: for each watched table and partition its file
/// (`relfilenode`), its columns' types and the labels of the enums that it uses, as they were when the watch was made. A
/// state that is not known when the record is read counts as a write to the whole table, recorded like any other, and is
/// known from then on. So it is told once, and costs one comparison of that table; CLUSTER and VACUUM FULL, which are
/// harmless, cannot be told from a rewrite and are told as well. GRANT, ANALYZE, VACUUM, new indexes, defaults and
/// constraints change no state.
///
/// TRUNCATE gives a new file too, and has triggers. They make the new state known in the transaction that truncates, and
/// record a write to the whole table, unless it was the link's applier: a session in the replica role, outside any other
/// trigger, that holds the link's lock. Its TRUNCATE came through the journal, which makes the whole table be compared
/// again. If somebody rewrote the table before, unseen, then that is gone with the old file.
///
/// A state never comes back (files have new numbers), so a set of them will do, and an old one can be forgotten. States
/// and known states are read in one statement, hence from one snapshot: a TRUNCATE shows with both or with neither. A
/// rewrite that a view shows was committed before the record is read.
struct KnownStates {
    let link: LinkDescription
    /// The name of the table of known states.
    let table: String
    /// Rows (ordinal, OID) of the link's target tables.
    let targets: String

    var create: String { "CREATE TABLE IF NOT EXISTS \(table) (relid oid NOT NULL, state text NOT NULL)" }

    /// All states as they are, in place of those that were known.
    var makeKnown: String {
        "DELETE FROM \(table); INSERT INTO \(table) SELECT n.relid, n.state FROM (\(now)) AS n"
    }

    /// Records a write for each table with an unknown state and makes it known. For one reader at a time.
    /// - Parameter names: rows (ordinal, schema, name) of the tables as they are recorded.
    func recordUnknown(into records: String, names: String) -> String {
        """
        WITH now AS MATERIALIZED (\(now)), fresh AS (
          INSERT INTO \(table) SELECT n.relid, n.state FROM now n
          WHERE NOT EXISTS (SELECT FROM \(table) k WHERE k.relid = n.relid AND k.state = n.state) RETURNING relid),
        old AS (DELETE FROM \(table) k USING now n WHERE n.relid = k.relid AND n.state <> k.state)
        INSERT INTO \(records) (table_schema, table_name)
        SELECT w.s, w.n FROM (VALUES \(names)) AS w(i, s, n)
        WHERE w.i IN (SELECT n.ordinal FROM now n JOIN fresh f ON f.relid = n.relid)
        """
    }

    private var now: String {
        """
        SELECT w.i AS ordinal, c.oid AS relid, \(Self.state) AS state FROM (VALUES \(targets)) AS w(i, oid)
        CROSS JOIN LATERAL (SELECT w.oid UNION SELECT relid::oid FROM pg_partition_tree(w.oid::regclass)) AS v(relid)
        JOIN pg_class c ON c.oid = v.relid
        """
    }

    /// The state of the table `c`. No numbers of transactions here: what an operator does to prepare the target for the
    /// application, such as GRANT, is no write.
    private static let state = """
        concat_ws('/', c.relfilenode, c.relpersistence,
          (SELECT string_agg(concat_ws(':', a.attnum, a.atttypid, a.atttypmod, a.attcollation), ',' ORDER BY a.attnum)
           FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
          (\(TypesInUse.with("c.oid")) SELECT string_agg(e.oid || ':' || quote_literal(e.enumlabel), ',' ORDER BY e.oid)
           FROM pg_enum e WHERE e.enumtypid IN (SELECT oid FROM used)))
        """

    /// What the trigger's function does on TRUNCATE.
    func onTruncate(record: String) -> String {
        """
        INSERT INTO \(table) SELECT c.oid, \(Self.state) FROM pg_class c WHERE c.oid = TG_RELID;
        IF current_setting('session_replication_role') <> 'replica' OR pg_trigger_depth() > 1 OR NOT EXISTS (
            SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND l.granted AND l.objsubid = 1
            AND (l.classid::bigint << 32 | l.objid::bigint) = \(LinkRecords.lockKey(link))) THEN
          \(record);
        END IF;
        """
    }
}
