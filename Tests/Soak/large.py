#!/usr/bin/env python3
"""One huge transaction through every pair of engines, with bridge's memory measured.

    large.py --bridge PATH [--megabytes 1024] [--bound 150] [--source KIND] [--target KIND]

Exit status 0 only if every pair ends equal and bridge stayed under the bound, in MB of resident memory.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

from databases import PostgreSQL, SQLite
from soak import Bridge

TABLE = "CREATE TABLE big(id bigint PRIMARY KEY, payload text);"
ROW_BYTES = 1024


def insert(kind, rows):
    if kind == "postgresql":
        return (f"BEGIN; INSERT INTO big SELECT g, repeat(md5(g::text), {ROW_BYTES // 32}) FROM generate_series(1, {rows}) g; COMMIT;")
    return (f"BEGIN; INSERT INTO big WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {rows}) "
            f"SELECT n, replace(hex(zeroblob({ROW_BYTES // 32})), '00', printf('%032d', n)) FROM g; COMMIT;")


def digest(database):
    """How many rows, and a hash over all of them in key order, read row by row."""
    count, total = 0, hashlib.sha256()
    if database.kind == "postgresql":
        child = subprocess.Popen(["psql", "-qXAt", database.url, "-c", "COPY (SELECT id, payload FROM big ORDER BY id) TO STDOUT"],
                                 stdout=subprocess.PIPE)
        for line in child.stdout:
            count += 1
            total.update(line.rstrip(b"\n"))
        child.wait()
    else:
        for row in database.connection.execute("SELECT id || char(9) || payload FROM big ORDER BY id"):
            count += 1
            total.update(row[0].encode())
    return count, total.hexdigest()


def one_pair(options, source_kind, target_kind):
    kinds = {"postgresql": PostgreSQL, "sqlite": SQLite}
    folder = tempfile.mkdtemp(prefix="large-")
    os.chmod(folder, 0o755)
    source, target = kinds[source_kind](folder, "source"), kinds[target_kind](folder, "target")
    try:
        for database in (source, target):
            database.execute(TABLE.replace("bigint PRIMARY", "INTEGER PRIMARY") if database.kind == "sqlite" else TABLE)
        bridge = Bridge(options.bridge, folder, source, target, ["big"])
        subprocess.run(bridge.command("run", "--until-caught-up"), check=True, stdout=bridge.log, stderr=bridge.log)
        bridge.start()
        rows = options.megabytes * (1 << 20) // ROW_BYTES
        began = time.monotonic()
        source.execute(insert(source_kind, rows))
        written = time.monotonic() - began
        wanted = "SELECT count(*) FROM big"
        while True:
            bridge.memory()
            if bridge.child.poll() is not None:
                print(f"bridge ended by itself with {bridge.child.returncode}; see {folder}/bridge.log")
                return False
            count = target.query(wanted) if target_kind == "postgresql" else str(target.connection.execute(wanted).fetchone()[0])
            if count == str(rows):
                break
            time.sleep(0.2)
        elapsed = time.monotonic() - began
        bridge.memory()
        bridge.child.terminate()
        bridge.child.wait()
        equal = digest(source) == digest(target)
        peak = bridge.peak // 1024
        print(f"{source_kind} to {target_kind}: {rows} rows in one transaction, written in {written:.1f} s, on the target after "
              f"{elapsed:.1f} s, peak memory {peak} MB, {'equal' if equal else 'DIFFERENT'}", flush=True)
        return equal and peak <= options.bound
    finally:
        source.stop()
        target.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--bound", type=int, default=150)
    parser.add_argument("--source", choices=["postgresql", "sqlite"], help="this engine only")
    parser.add_argument("--target", choices=["postgresql", "sqlite"], help="this engine only")
    options = parser.parse_args()
    kinds = ["postgresql", "sqlite"]
    results = [one_pair(options, source, target) for source in kinds for target in kinds
               if options.source in (None, source) and options.target in (None, target)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
