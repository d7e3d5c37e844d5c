#pragma once
#include <sqlite3.h>

// sqlite3_db_config is variadic, which Swift cannot call. One inline function for each use.

/// Switches triggers on or off for one connection. Returns an SQLite result code.
static inline int bridge_sqlite_enable_triggers(sqlite3 *database, int enabled) {
    return sqlite3_db_config(database, SQLITE_DBCONFIG_ENABLE_TRIGGER, enabled, (int *)0);
}

/// Whether a word in double quotes that is no column is a string in the statements of this connection: SQLite's old reading,
/// on by default, which turns a misspelt column into a string.
static inline int bridge_sqlite_allow_quoted_strings(sqlite3 *database, int allowed) {
    return sqlite3_db_config(database, SQLITE_DBCONFIG_DQS_DML, allowed, (int *)0);
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
