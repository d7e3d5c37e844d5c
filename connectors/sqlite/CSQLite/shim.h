#pragma once
#include <sqlite3.h>

// sqlite3_db_config is variadic, which Swift cannot call. One inline function for each use.

/// Switches triggers on or off for one connection. Returns an SQLite result code.
static inline int bridge_sqlite_enable_triggers(sqlite3 *database, int enabled) {
    return sqlite3_db_config(database, SQLITE_DBCONFIG_ENABLE_TRIGGER, enabled, (int *)0);
}

/// A misspelt column in double quotes is an error, not a string, in the statements of this connection. Views, triggers and
/// CHECKs of the application are compiled as before: their text may rely on the old reading.
static inline void bridge_sqlite_harden(sqlite3 *database) {
    (void)sqlite3_db_config(database, SQLITE_DBCONFIG_DQS_DML, 0, (int *)0);
}

/// The value of SQLITE_TRANSIENT, a cast that Swift does not import: SQLite copies what is bound.
static inline sqlite3_destructor_type bridge_sqlite_transient(void) {
    return SQLITE_TRANSIENT;
}

/// SQLITE_READONLY_DBMOVED, a macro with a shift that Swift does not import.
static const int bridge_sqlite_readonly_dbmoved = SQLITE_READONLY_DBMOVED;

// How the connector waits for a commit: Swift's own module for the C library leaves these out.
#include <sys/eventfd.h>
#include <sys/inotify.h>
