#!/usr/bin/env python3
"""What a full check costs the source, and what memory it takes.

    check_load.py --bridge PATH [--rows 1000000] [--rounds 5] [--seconds 20] [--only throughput|memory]

throughput  pgbench writes to a PostgreSQL source that `bridge run` follows; in turns with full checks, one after the other,
            beside it and without. Prints the median throughput of both and their ratio: at least 0.9 is wanted.
memory      The greatest memory of the process of `bridge check --mode full --differences FILE` when every row differs, from
            PostgreSQL to PostgreSQL and from SQLite to SQLite, for a tenth of the rows and for all: it must not grow with them.

Servers and files are made in a temporary folder and removed at the end. Prints the same as JSON.
"""
import argparse
import json
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Tests", "Soak"))
from databases import Cluster, run  # noqa: E402

ROWS = "SELECT i, i % 5000, 'customer ' || i, substr('nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn', 1, i % 40)"


def psql(url, sql):
    return run(["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", url, "-c", sql], text=True).stdout.strip()


class Migration:
    """A link that `bridge run` keeps in sync until the block ends."""

    def __init__(self, bridge, folder, name, source, target):
        self.bridge = bridge
        self.place = os.path.join(folder, name)
        os.mkdir(self.place)
        with open(os.path.join(self.place, "bridge.yaml"), "w") as file:
            # Checks that a run makes by itself would be in both figures.
            file.write(f"migration: {name}\nsource: \"{source}\"\ntarget: \"{target}\"\n"
                       "services: { all: { tables: [rows] } }\ncheck: { max_age: 24h }\n")

    def call(self, *arguments, wanted=(0,)):
        process = subprocess.run([self.bridge, *arguments], cwd=self.place, capture_output=True)
        if process.returncode not in wanted:
            sys.exit(f"bridge {arguments}: {process.returncode}\n{process.stdout.decode()}\n{process.stderr.decode()}")
        return process.stdout

    def __enter__(self):
        self.call("schema", "apply")
        self.call("run", "--until-caught-up")
        self.log = open(os.path.join(self.place, "run.log"), "w")
        self.process = subprocess.Popen([self.bridge, "run"], cwd=self.place, stdout=self.log, stderr=self.log)
        while [link["state"] for link in json.loads(self.call("status", "--json"))["links"]] != ["running"]:
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def check(self, *arguments):
        """A full check: its exit status and the greatest memory that its process had, in bytes."""
        process = subprocess.Popen(
            [self.bridge, "check", "--mode", "full", *arguments], cwd=self.place, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss * 1024, errors.decode()


def make_postgres(cluster, name, rows):
    psql(cluster.url(), f"CREATE DATABASE {name}")
    url = cluster.url(name)
    psql(url, "CREATE TABLE rows (id bigint PRIMARY KEY, customer bigint NOT NULL, name text NOT NULL, note text)")
    if rows:
        psql(url, f"INSERT INTO rows {ROWS} FROM generate_series(1, {rows}) i; ANALYZE rows")
    return url


def throughput(options, folder, source, target):
    source_url = make_postgres(source, "load", options.rows)
    script = os.path.join(folder, "write.sql")
    with open(script, "w") as file:
        file.write(f"\\set id random(1, {options.rows})\n\\set n random(1, 1000000000)\n"
                   "UPDATE rows SET note = 'n' || :n, customer = :n WHERE id = :id;\n")
    psql(target.url(), "CREATE DATABASE load")

    def write():
        output = run([os.path.join(source.bin, "pgbench"), "-n", "-M", "prepared", "-c", str(options.clients), "-T",
                      str(options.seconds), "-f", script, source_url], text=True).stdout
        return float(re.search(r"tps = ([0-9.]+)", output).group(1))

    figures = {"alone": [], "with checks": []}
    checks = 0
    with Migration(options.bridge, folder, "load", source_url, target.url("load")) as link:
        write()
        for turn in range(options.rounds):
            # The order changes from turn to turn, so that what drifts falls on both.
            for kind in ("alone", "with checks") if turn % 2 == 0 else ("with checks", "alone"):
                is_over = threading.Event()
                done = []

                def loop():
                    while not is_over.is_set():
                        status, _, errors = link.check()
                        if status != 0:
                            print(f"a check ended with {status}: {errors}", file=sys.stderr)
                        done.append(status)

                thread = threading.Thread(target=loop)
                if kind == "with checks":
                    thread.start()
                    time.sleep(0.5)
                figures[kind].append(write())
                is_over.set()
                if kind == "with checks":
                    thread.join()
                    checks += len(done)
    return figures, checks


def memory(options, folder, source, target):
    figures = {}
    for rows in (options.rows // 10, options.rows):
        name = f"every{rows}"
        source_url = make_postgres(source, name, rows)
        psql(target.url(), f"CREATE DATABASE {name}")
        with Migration(options.bridge, folder, name, source_url, target.url(name)) as link:
            psql(target.url(name), "SET session_replication_role = replica; UPDATE rows SET note = note || 'x'")
            figures.setdefault("PostgreSQL", {})[rows] = measured(link, rows)
        old, new = (os.path.join(folder, f"{name}-{side}.db") for side in ("old", "new"))
        database = sqlite3.connect(old, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, name TEXT NOT NULL, note TEXT)")
        database.execute(f"INSERT INTO rows WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < {rows}) {ROWS} FROM g")
        database.close()
        with Migration(options.bridge, folder, name + "-sqlite", "sqlite:" + old, "sqlite:" + new) as link:
            database = sqlite3.connect(new, isolation_level=None, timeout=60)
            database.execute("UPDATE rows SET note = note || 'x'")
            database.close()
            figures.setdefault("SQLite", {})[rows] = measured(link, rows)
    return figures


def measured(link, rows):
    file = os.path.join(link.place, "differences.jsonl")
    began = time.monotonic()
    status, peak, errors = link.check("--differences", file)
    seconds = time.monotonic() - began
    if status != 1:
        sys.exit(f"the check ended with {status}: {errors}")
    with open(file, "rb") as lines:
        found = sum(1 for _ in lines)
    if found != rows:
        sys.exit(f"{found} differences instead of {rows}")
    os.unlink(file)
    return {"peak_bytes": peak, "seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--only", choices=["throughput", "memory"])
    options = parser.parse_args()
    options.bridge = os.path.abspath(options.bridge)
    folder = tempfile.mkdtemp(prefix="bench-check-load-")
    os.chmod(folder, 0o755)
    source, target = (Cluster(folder, name) for name in ("source", "target"))
    result = {}
    try:
        if options.only != "memory":
            figures, checks = throughput(options, folder, source, target)
            medians = {kind: statistics.median(values) for kind, values in figures.items()}
            ratio = medians["with checks"] / medians["alone"]
            print(f"{options.rows:,} rows, {options.rounds} rounds of {options.seconds} s, {checks} full checks")
            for kind, value in medians.items():
                print(f"  {kind:12} {value:9,.0f} transactions a second")
            print(f"  ratio        {ratio:9.3f}   (wanted: at least 0.9)")
            result["throughput"] = {"figures": figures, "ratio": ratio, "checks": checks}
        if options.only != "throughput":
            figures = memory(options, folder, source, target)
            print("the greatest memory of a full check with every row different")
            for engine, sizes in figures.items():
                for rows, figure in sizes.items():
                    print(f"  {engine:10} {rows:10,} rows  {figure['peak_bytes'] / 1e6:7.1f} MB  {figure['seconds']:6.1f} s")
            result["memory"] = figures
        print(json.dumps(result))
    finally:
        source.stop()
        target.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
