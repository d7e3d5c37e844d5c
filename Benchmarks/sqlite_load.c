// An application that uses SQLite through its C interface, for sqlite_writers.py: so fast that what its triggers cost shows.
//
//   sqlite_load write FILE SYNCHRONOUS KIND ROWS PER_TRANSACTION SEED   inserts or updates, and how long they took
//   sqlite_load busy FILE PATTERN SECONDS SEED                          writes with a busy timeout of 0, and what was refused
//   sqlite_load locks SHM PID SECONDS                                   how long PID held the write lock of a WAL database
//   sqlite_load latency SOURCE TARGET COUNT SEED                        from a commit until the target shows the row
//
// Every answer is one line of JSON.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double processor(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6 + usage.ru_stime.tv_sec + usage.ru_stime.tv_usec * 1e-6;
}

// A bijection, so that what it makes of different numbers is different.
static uint64_t mix(uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t dice;
static uint64_t roll(uint64_t below) { return mix(dice++) % below; }

static void fail(sqlite3 *database, const char *what) {
    fprintf(stderr, "%s: %s\n", what, database ? sqlite3_errmsg(database) : "");
    exit(1);
}

static sqlite3 *open_database(const char *path, const char *synchronous, int timeout) {
    sqlite3 *database = NULL;
    if (sqlite3_open(path, &database) != SQLITE_OK) fail(database, path);
    sqlite3_extended_result_codes(database, 1);
    // Opening meets locks of recovery, which are not the question.
    sqlite3_busy_timeout(database, 10000);
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA synchronous = %s; SELECT count(*) FROM sqlite_master", synchronous);
    if (sqlite3_exec(database, sql, NULL, NULL, NULL) != SQLITE_OK) fail(database, sql);
    sqlite3_busy_timeout(database, timeout);
    return database;
}

static sqlite3_stmt *prepare(sqlite3 *database, const char *sql) {
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(database, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) fail(database, sql);
    return statement;
}

static int run(sqlite3_stmt *statement) {
    int result = sqlite3_step(statement);
    sqlite3_reset(statement);
    return result;
}

// Samples, and their percentiles.
typedef struct { double *values; size_t count, capacity; } Samples;

static void add(Samples *samples, double value) {
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 4096;
        samples->values = realloc(samples->values, samples->capacity * sizeof(double));
        if (!samples->values) exit(1);
    }
    samples->values[samples->count++] = value;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, Samples *samples) {
    qsort(samples->values, samples->count, sizeof(double), compare);
    double sum = 0;
    for (size_t i = 0; i < samples->count; i++) sum += samples->values[i];
    size_t n = samples->count;
    printf("\"%s\": {\"count\": %zu", name, n);
    if (n > 0)
        printf(", \"mean_ms\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f", sum / n * 1e3,
               samples->values[n / 2] * 1e3, samples->values[n * 99 / 100] * 1e3, samples->values[n - 1] * 1e3);
    printf("}");
}

// A row whose number has never been used.
static void bind_row(sqlite3_stmt *insert, uint64_t number) {
    static char name[32], note[64];
    uint64_t value = mix(number);
    int name_length = snprintf(name, sizeof name, "Name %016llx", (unsigned long long)value);
    int note_length = snprintf(note, sizeof note, "a note that nobody reads %llu", (unsigned long long)number);
    sqlite3_bind_int64(insert, 1, (int64_t)(number % 1000));
    sqlite3_bind_int64(insert, 2, (int64_t)number);
    sqlite3_bind_int64(insert, 3, (int64_t)(mix(value) >> 1));
    sqlite3_bind_text(insert, 4, name, name_length, SQLITE_STATIC);
    sqlite3_bind_text(insert, 5, note, note_length, SQLITE_STATIC);
    sqlite3_bind_double(insert, 6, (double)(value % 100000) / 100);
}

static const char *INSERT = "INSERT INTO rows(customer, number, code, name, note, amount) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";

static int64_t integer(sqlite3 *database, const char *sql) {
    sqlite3_stmt *statement = prepare(database, sql);
    if (sqlite3_step(statement) != SQLITE_ROW) fail(database, sql);
    int64_t value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static int write_rows(char **words) {
    const char *kind = words[2];
    uint64_t rows = strtoull(words[3], NULL, 10), size = strtoull(words[4], NULL, 10);
    dice = strtoull(words[5], NULL, 10);
    sqlite3 *database = open_database(words[0], words[1], 60000);
    uint64_t next = (uint64_t)integer(database, "SELECT coalesce(max(number), 0) FROM rows") + 1;
    uint64_t largest = (uint64_t)integer(database, "SELECT coalesce(max(id), 0) FROM rows");
    int updates = strcmp(kind, "update") == 0;
    sqlite3_stmt *begin = prepare(database, "BEGIN IMMEDIATE"), *commit = prepare(database, "COMMIT");
    sqlite3_stmt *change = prepare(database, updates ? "UPDATE rows SET amount = amount + 1 WHERE id = ?1" : INSERT);
    Samples latencies = {0};
    double started = now(), used = processor();
    for (uint64_t done = 0; done < rows;) {
        double began = now();
        if (run(begin) != SQLITE_DONE) fail(database, "begin");
        for (uint64_t i = 0; i < size && done < rows; i++, done++) {
            if (updates) sqlite3_bind_int64(change, 1, (int64_t)(1 + roll(largest)));
            else bind_row(change, next++);
            if (run(change) != SQLITE_DONE) fail(database, "change");
        }
        if (run(commit) != SQLITE_DONE) fail(database, "commit");
        add(&latencies, now() - began);
    }
    double seconds = now() - started;
    printf("{\"rows\": %llu, \"seconds\": %.6f, \"processor_seconds\": %.6f, ", (unsigned long long)rows, seconds,
           processor() - used);
    print("transactions", &latencies);
    printf("}\n");
    return 0;
}

// An application that takes every refusal for an error, and tries again a moment later.
static int count_busy(char **words) {
    const char *pattern = words[1];
    double seconds = atof(words[2]);
    dice = strtoull(words[3], NULL, 10);
    sqlite3 *database = open_database(words[0], "NORMAL", 0);
    uint64_t next = (uint64_t)integer(database, "SELECT coalesce(max(number), 0) FROM rows") + 1;
    int reads_first = strcmp(pattern, "upgrade") == 0, has_pauses = strcmp(pattern, "bursts") == 0;
    int size = has_pauses || strcmp(pattern, "hundred") == 0 ? 100 : 1;
    sqlite3_stmt *begin = prepare(database, reads_first ? "BEGIN" : "BEGIN IMMEDIATE");
    sqlite3_stmt *commit = prepare(database, "COMMIT"), *rollback = prepare(database, "ROLLBACK");
    sqlite3_stmt *insert = prepare(database, INSERT), *look = prepare(database, "SELECT max(id) FROM rows");
    unsigned long transactions = 0, busy = 0, snapshot = 0, other = 0, rows = 0;
    Samples waits = {0};
    double end = now() + seconds, refused_since = 0;
    while (now() < end) {
        int result = run(begin);
        if (result == SQLITE_DONE && reads_first) {
            run(look);
            usleep((useconds_t)roll(300000));
        }
        for (int i = 0; i < size && result == SQLITE_DONE; i++) {
            bind_row(insert, next++);
            result = run(insert);
        }
        if (result == SQLITE_DONE) result = run(commit);
        if (result == SQLITE_DONE) {
            transactions++;
            rows += (unsigned long)size;
            if (refused_since > 0) add(&waits, now() - refused_since);
            refused_since = 0;
        } else {
            if (result == SQLITE_BUSY_SNAPSHOT) snapshot++;
            else if ((result & 0xFF) == SQLITE_BUSY) {
                // One refusal, however often it is tried until it passes.
                if (refused_since == 0) busy++;
            } else other++;
            if (refused_since == 0) refused_since = now();
            if (!sqlite3_get_autocommit(database)) run(rollback);
            usleep(100);
            continue;
        }
        if (has_pauses && transactions % 20 == 0) usleep((useconds_t)(50000 + roll(350000)));
        if (reads_first) usleep((useconds_t)roll(50000));
    }
    printf("{\"transactions\": %lu, \"rows\": %lu, \"busy\": %lu, \"busy_snapshot\": %lu, \"other\": %lu, ", transactions, rows,
           busy, snapshot, other);
    print("refused_for", &waits);
    printf("}\n");
    return other > 0;
}

// Looks at the lock without asking for it: byte 120 of the WAL's index is the write lock (https://sqlite.org/walformat.html).
static int watch_locks(char **words) {
    pid_t process = atoi(words[1]);
    double end = now() + atof(words[2]);
    int descriptor = open(words[0], O_RDWR | O_CLOEXEC);
    if (descriptor < 0) {
        perror(words[0]);
        return 1;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    Samples spans = {0};
    double since = 0, previous = now(), longest_gap = 0, edge = 0;
    unsigned long looks = 0, unclear = 0;
    while (previous < end) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 120, .l_len = 1};
        if (fcntl(descriptor, F_GETLK, &lock) != 0) return 1;
        double at = now();
        int held = lock.l_type != F_UNLCK && lock.l_pid == process;
        if (held && since == 0) {
            since = previous;
            edge = at - previous;
        }
        if (!held && since > 0) {
            // Where this process did not get its turn at either end, the span says nothing.
            if (edge + at - previous > 0.001) unclear++;
            else add(&spans, at - since);
            since = 0;
        }
        if (at - previous > longest_gap) longest_gap = at - previous;
        previous = at;
        looks++;
        usleep(10);
    }
    printf("{\"looks\": %lu, \"longest_gap_ms\": %.3f, \"unclear\": %lu, ", looks, longest_gap * 1e3, unclear);
    print("held", &spans);
    printf("}\n");
    return 0;
}

static int measure_latency(char **words) {
    uint64_t count = strtoull(words[2], NULL, 10);
    dice = strtoull(words[3], NULL, 10);
    sqlite3 *source = open_database(words[0], "NORMAL", 10000), *target = open_database(words[1], "NORMAL", 10000);
    uint64_t next = (uint64_t)integer(source, "SELECT coalesce(max(number), 0) FROM rows") + 1;
    sqlite3_stmt *insert = prepare(source, INSERT), *look = prepare(target, "SELECT 1 FROM rows WHERE id = ?1");
    prctl(PR_SET_TIMERSLACK, 1);
    Samples latencies = {0};
    for (uint64_t i = 0; i < count; i++) {
        usleep((useconds_t)(5000 + roll(40000)));
        bind_row(insert, next++);
        if (run(insert) != SQLITE_DONE) fail(source, "insert");
        double committed = now();
        sqlite3_bind_int64(look, 1, sqlite3_last_insert_rowid(source));
        while (run(look) != SQLITE_ROW) {
            if (now() - committed > 60) fail(target, "the row does not arrive");
            usleep(10);
        }
        add(&latencies, now() - committed);
    }
    printf("{");
    print("latency", &latencies);
    printf("}\n");
    return 0;
}

int main(int count, char **words) {
    if (count == 8 && strcmp(words[1], "write") == 0) return write_rows(words + 2);
    if (count == 6 && strcmp(words[1], "busy") == 0) return count_busy(words + 2);
    if (count == 5 && strcmp(words[1], "locks") == 0) return watch_locks(words + 2);
    if (count == 6 && strcmp(words[1], "latency") == 0) return measure_latency(words + 2);
    fprintf(stderr, "see the head of sqlite_load.c\n");
    return 64;
}
