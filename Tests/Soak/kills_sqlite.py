#!/usr/bin/env python3
"""SQLite to SQLite, or to PostgreSQL, under processes that write at random, with bridge killed at random moments, many times.

    kills_sqlite.py --bridge PATH [--target sqlite|postgresql] [--kills 200] [--seed N]

The application is three processes, one of which has the file attached to another; random_sqlite.py tells what they write.
Every kill is followed by a start that must go on by itself: a number that is written to the source has to come to the target
before every tenth kill. At the end all tables are compared by Python's sqlite3 module and psql. Exit status 0 only if they
are equal.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from databases import PostgreSQL, SQLite
from random_sqlite import GENERATED, SCHEMA, TABLES, WriterProcess
from soak import Bridge, compare
from waiting import reached


def pulse(target):
    """The number that has come to the target; 0 before the table is copied."""
    sql = "SELECT coalesce(max(n), 0) FROM pulse"
    return int(target.query(sql)) if target.kind == "postgresql" else target.connection.execute(sql).fetchone()[0]


def check_file(database):
    """What SQLite itself says against a file, in words."""
    answer = [row[0] for row in database.connection.execute("PRAGMA integrity_check")]
    return "" if answer == ["ok"] else f"{database.path}: {answer[:3]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--target", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two transactions of a process")
    parser.add_argument("--rows", type=int, default=100_000, help="that are there before the copy")
    options = parser.parse_args()
    options.bridge = os.path.abspath(options.bridge)
    folder = tempfile.mkdtemp(prefix="kills-sqlite-")
    os.chmod(folder, 0o755)
    dice = random.Random(options.seed)
    print(f"seed {options.seed}, SQLite to {options.target}", flush=True)
    source = SQLite(folder, "source")
    target = None
    writers, good = [], False
    bridge = None
    try:
        target = (PostgreSQL if options.target == "postgresql" else SQLite)(folder, "target")
        source.connection.executescript(SCHEMA)
        source.connection.execute(f"INSERT INTO ledger(what) WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < "
                                  f"{options.rows}) SELECT 'old ' || n FROM g")
        bridge = Bridge(options.bridge, folder, source, target, TABLES)
        subprocess.run(bridge.command("schema", "apply"), check=True, stdout=bridge.log, stderr=bridge.log)
        other = os.path.join(folder, "other.db")
        writers = [WriterProcess(source.path, options.seed + number, options.pause, other if number == 2 else None) for number in range(3)]
        for writer in writers:
            writer.start()
        began, beats, slowest = time.monotonic(), 0, 0.0
        for number in range(options.kills):
            bridge.start()
            if number % 10 == 9:
                beats += 1
                source.connection.execute("UPDATE pulse SET n = ?", (beats,))
                since = time.monotonic()
                if not reached(lambda: bridge.child.poll() is not None or pulse(target) == beats, 120) or bridge.child.poll() is not None:
                    print(f"bridge did not go on by itself after {number} kills; see {folder}/bridge.log")
                    return 1
                slowest = max(slowest, time.monotonic() - since)
                print(f"{number} kills, {time.monotonic() - began:.0f} s, {sum(w.transactions for w in writers)} transactions", flush=True)
            # The first few die in the copy; some very soon after a start.
            time.sleep(dice.uniform(0.02, 0.4) if number < 10 or dice.random() < 0.3 else dice.uniform(0.3, 2))
            if bridge.child.poll() is not None:
                print(f"bridge ended by itself with {bridge.child.returncode}; see {folder}/bridge.log")
                return 1
            if not all(writer.process.is_alive() for writer in writers):
                print("a process of the application ended by itself")
                return 1
            bridge.kill()
        bridge.start()
        time.sleep(3)
        written = all([writer.stop() for writer in writers])
        bridge.memory()
        bridge.child.terminate()
        status = bridge.child.wait()
        finish = subprocess.run(bridge.command("run", "--until-caught-up"), stdout=bridge.log, stderr=bridge.log)
        print(f"{options.kills} kills in {time.monotonic() - began:.0f} s; {sum(w.transactions for w in writers)} transactions with "
              f"{sum(w.changes for w in writers)} statements, {sum(w.refused for w in writers)} refused by constraints, "
              f"{sum(w.locked for w in writers)} by locks, {sum(w.vacuums for w in writers)} vacuums; went on within {slowest:.1f} s; "
              f"exit statuses {status} and {finish.returncode}; peak memory {bridge.peak // 1024} MB")
        tables = {name: columns + (GENERATED.get(name, []) if options.target == "sqlite" else []) for name, columns in TABLES.items()}
        broken = [words for words in (check_file(each) for each in (source, target) if each.kind == "sqlite") if words]
        for words in broken:
            print(words)
        good = compare(source, target, tables) and not broken and written and finish.returncode == 0 and status == 0
        return 0 if good else 1
    finally:
        if bridge and bridge.child and bridge.child.poll() is None:
            bridge.child.kill()
            bridge.child.wait()
        for writer in writers:
            if writer.process.is_alive():
                writer.stop()
        source.stop()
        if target:
            target.stop()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("kept for a look:", folder)


if __name__ == "__main__":
    sys.exit(main())
