#!/usr/bin/env python3
"""What bridge costs an application whose SQLite file it follows, and how soon the target has what was committed.

    sqlite_writers.py --bridge PATH [--rounds 3] [--rows 100000] [--seconds 30] [--only cost|locks|latency]
                      [--folder FOLDER] [--json FILE]

cost      Rates of inserts in one transaction, of 100-row transactions (inserts, and updates) and of single-row transactions: a
          bare file, one with capture installed and no bridge running, and one with `bridge run` beside it, in turns; for
          tables with no, one and three unique indexes beside the key and one with an expression index; WAL mode, synchronous
          NORMAL and FULL. Wanted beside a running bridge: at least 0.5 of the bare rate in one transaction, 0.85 in 100-row
          transactions. `processor` is the ratio of the least processor time that the application itself took, which a busy
          machine alters less.
locks     An application with a busy timeout of 0: how often it is refused the lock (SQLITE_BUSY), or a write after a read
          (SQLITE_BUSY_SNAPSHOT), beside a running bridge and without; none is wanted. Meanwhile the write lock is looked at
          from outside: how long bridge holds it. Wanted: a 99th percentile under 5 ms.
latency   From a commit on the source until the SQLite target shows the row, and the processor time of an idle `bridge run`.
          On the disk, and in memory where a sync costs nothing. Wanted in memory: a mean under 1 ms; idle: under 2 %.

The application is a C program (sqlite_load.c beside this file, compiled at the start): a slower one would hide what the
triggers cost. Files are made in a temporary folder and removed at the end. Exit status 0 only if everything is as wanted.
"""
import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

TABLE = ("CREATE TABLE rows(id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, number INTEGER NOT NULL, code INTEGER NOT NULL, "
         "name TEXT NOT NULL, note TEXT, amount REAL)")
UNIQUE = ["CREATE UNIQUE INDEX rows_name ON rows(name)", "CREATE UNIQUE INDEX rows_code ON rows(code)",
          "CREATE UNIQUE INDEX rows_number ON rows(customer, number)"]
SCHEMAS = {"no unique index": [], "one unique index": UNIQUE[:1], "three unique indexes": UNIQUE,
           "expression index": ["CREATE UNIQUE INDEX rows_lower ON rows(lower(name))"]}
# What is written: rows as a share of --rows, and rows a transaction.
WORK = {"one transaction": ("insert", 1, 10**9), "100-row inserts": ("insert", 1, 100), "100-row updates": ("update", 1, 100),
        "single-row inserts": ("insert", 0.05, 1)}
WANTED = {"one transaction": 0.5, "100-row inserts": 0.85, "100-row updates": 0.85}
KINDS = ["bare", "installed", "running"]
PATTERNS = {"single": "single rows without a pause", "hundred": "100-row transactions without a pause",
            "bursts": "bursts of 20 100-row transactions, pauses of 50 to 400 ms", "upgrade": "BEGIN, SELECT, up to 300 ms, INSERT, COMMIT"}


def compiled(folder):
    compiler = next((found for found in map(shutil.which, ("cc", "clang", "gcc")) if found), None)
    if compiler is None:
        sys.exit("this needs a C compiler")
    program = os.path.join(folder, "sqlite_load")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sqlite_load.c")
    subprocess.run([compiler, "-O2", "-o", program, source, "-lsqlite3"], check=True)
    return program


def file_system(folder):
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()


class Source:
    """A SQLite file with rows, and maybe a link from it to another file."""

    def __init__(self, bench, schema, kind, folder=None, rows=20_000):
        self.bench, self.kind = bench, kind
        self.folder = tempfile.mkdtemp(dir=folder or bench.folder)
        self.path, self.target = (os.path.join(self.folder, name) for name in ("source.db", "target.db"))
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        for statement in [TABLE, *SCHEMAS[schema]]:
            database.execute(statement)
        database.close()
        bench.load("write", self.path, "OFF", "insert", rows, 10**9, 1)
        self.process = None
        with open(os.path.join(self.folder, "bridge.yaml"), "w") as file:
            # Checks that a run makes by itself would be in the figures.
            file.write(f"migration: bench\nsource: 'sqlite:{self.path}'\ntarget: 'sqlite:{self.target}'\n"
                       "services: { all: { tables: [rows] } }\ncheck: { max_age: 24h }\n")

    def bridge(self, *arguments):
        done = subprocess.run([self.bench.options.bridge, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"bridge {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def __enter__(self):
        if self.kind != "bare":
            self.bridge("schema", "apply")
            self.bridge("run", "--until-caught-up")
        if self.kind == "running":
            self.log = open(os.path.join(self.folder, "run.log"), "w")
            self.process = subprocess.Popen([self.bench.options.bridge, "run"], cwd=self.folder, stdout=self.log, stderr=self.log)
            while [link["state"] for link in json.loads(self.bridge("status", "--json"))["links"]] != ["running"]:
                self.require_running()
                time.sleep(0.05)
        return self

    def require_running(self):
        if self.process.poll() is not None:
            with open(os.path.join(self.folder, "run.log")) as log:
                sys.exit(f"bridge ended by itself with {self.process.returncode}:\n{log.read()[-2000:]}")

    def count(self, path):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
        try:
            return database.execute("SELECT count(*), coalesce(sum(amount * 100), 0) FROM rows").fetchone()
        finally:
            database.close()

    def wait_until_equal(self):
        """A bridge that falls behind, or does nothing, would cost the application little."""
        began, wanted = time.monotonic(), self.count(self.path)
        while self.count(self.target) != wanted:
            self.require_running()
            if time.monotonic() - began > 300:
                sys.exit("the target does not become equal to the source")
            time.sleep(0.1)

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.program = compiled(folder)
        self.missed = []

    def start(self, *words):
        return subprocess.Popen([self.program, *map(str, words)], stdout=subprocess.PIPE, text=True)

    def load(self, *words):
        process = self.start(*words)
        output = process.communicate()[0]
        if process.returncode != 0:
            sys.exit(f"sqlite_load {words} ended with {process.returncode}")
        return json.loads(output)

    def judge(self, what, value, is_good):
        if not is_good:
            self.missed.append(f"{what}: {value}")
        return "" if is_good else "   <- not as wanted"

    # MARK: Cost

    def cost(self):
        result = {}
        for schema in self.options.schemas:
            for synchronous in ("NORMAL", "FULL"):
                figures = {work: {kind: [] for kind in KINDS} for work in WORK}
                for turn in range(self.options.rounds):
                    # The order changes from turn to turn, so that what drifts falls on all.
                    for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
                        with Source(self, schema, kind) as source:
                            for work, (change, share, size) in WORK.items():
                                rows = max(size if size < 10**9 else 1, int(self.options.rows * share))
                                figures[work][kind].append(self.load("write", source.path, synchronous, change, rows, size, turn))
                                if kind == "running":
                                    source.wait_until_equal()
                result[f"{schema}, {synchronous}"] = self.tell_cost(schema, synchronous, figures)
        return result

    def tell_cost(self, schema, synchronous, figures):
        print(f"{schema}, synchronous {synchronous}: rows a second, and ratios to the bare file (median, from least to most)")
        summary = {}
        for work, kinds in figures.items():
            entry = {"rows_per_second": {
                kind: statistics.median(each["rows"] / each["seconds"] for each in runs) for kind, runs in kinds.items()}}
            line = f"  {work:18} {entry['rows_per_second']['bare']:11,.0f}"
            for kind in KINDS[1:]:
                ratios = [bare["seconds"] / each["seconds"] for bare, each in zip(kinds["bare"], kinds[kind])]
                least = {name: min(each["processor_seconds"] for each in kinds[name]) for name in ("bare", kind)}
                entry[kind] = {"ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
                               "processor_ratio": least["bare"] / max(least[kind], 1e-9)}
                ratio = entry[kind]["ratio"]
                line += (f"   {kind} {ratio['median']:5.2f} ({ratio['least']:.2f} to {ratio['most']:.2f}, "
                         f"processor {entry[kind]['processor_ratio']:.2f})")
            for kind in KINDS:
                entry.setdefault("p99_ms", {})[kind] = statistics.median(each["transactions"]["p99_ms"] for each in kinds[kind])
            if work in WANTED:
                median = entry["running"]["ratio"]["median"]
                line += self.judge(f"{schema}, {synchronous}, {work}", f"{median:.2f}, wanted {WANTED[work]}", median >= WANTED[work])
            print(line, flush=True)
            summary[work] = entry
        return summary

    # MARK: Locks

    def locks(self):
        result = {}
        for pattern, words in PATTERNS.items():
            for kind in ("bare", "running"):
                with Source(self, "one unique index", kind) as source:
                    watch = None
                    if kind == "running":
                        watch = self.start("locks", source.path + "-shm", source.process.pid, self.options.seconds)
                    entry = self.load("busy", source.path, pattern, self.options.seconds, 1)
                    if watch:
                        entry["lock"] = json.loads(watch.communicate()[0])
                        source.wait_until_equal()
                result.setdefault(pattern, {})[kind] = entry
                line = (f"{words}, {'bridge beside it' if watch else 'alone'}: {entry['transactions']} transactions, "
                        f"{entry['busy']} refused with SQLITE_BUSY, {entry['busy_snapshot']} with SQLITE_BUSY_SNAPSHOT")
                if watch:
                    line += self.judge(f"{words}, refusals", entry["busy"] + entry["busy_snapshot"], entry["busy"] + entry["busy_snapshot"] == 0)
                    held = entry["lock"]["held"]
                    if entry["refused_for"]["count"]:
                        line += f"\n  refused for {entry['refused_for']['p50_ms']:.2f} ms (median), at most {entry['refused_for']['max_ms']:.2f} ms"
                    if held["count"]:
                        line += (f"\n  bridge held the write lock {held['count']} times: {held['p50_ms']:.2f} ms (median), 99th "
                                 f"percentile {held['p99_ms']:.2f} ms, at most {held['max_ms']:.2f} ms; {entry['lock']['unclear']} more "
                                 f"whose ends were not seen in time; looked at {entry['lock']['looks']} times")
                        line += self.judge(f"{words}, lock", f"{held['p99_ms']:.2f} ms", held["p99_ms"] < 5)
                print(line, flush=True)
        return result

    # MARK: Latency

    def latency(self):
        result = {}
        places = {self.folder: file_system(self.folder)}
        memory = None
        if os.path.isdir("/dev/shm") and places[self.folder] != "tmpfs":
            memory = tempfile.mkdtemp(prefix="bench-writers-", dir="/dev/shm")
            places[memory] = "tmpfs"
        try:
            for folder, name in places.items():
                with Source(self, "one unique index", "running", folder) as source:
                    figure = self.load("latency", source.path, source.target, self.options.commits, 1)["latency"]
                    line = (f"latency on {name}: {figure['count']} commits, mean {figure['mean_ms']:.2f} ms, median {figure['p50_ms']:.2f} ms, "
                            f"99th percentile {figure['p99_ms']:.2f} ms, at most {figure['max_ms']:.2f} ms")
                    if name == "tmpfs":
                        line += self.judge("mean latency", f"{figure['mean_ms']:.2f} ms", figure["mean_ms"] < 1)
                    print(line, flush=True)
                    time.sleep(2)
                    before, began = self.processor(source.process.pid), time.monotonic()
                    time.sleep(self.options.idle)
                    share = (self.processor(source.process.pid) - before) / (time.monotonic() - began)
                    line = f"idle bridge run on {name}: {share * 100:.2f} % of a processor over {self.options.idle} s"
                    print(line + self.judge("idle", f"{share * 100:.2f} %", share < 0.02), flush=True)
                    result[name] = {"latency": figure, "idle_share": share}
        finally:
            if memory:
                shutil.rmtree(memory, ignore_errors=True)
        return result

    @staticmethod
    def processor(process):
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=30, help="of each pattern of the locks")
    parser.add_argument("--commits", type=int, default=500, help="whose latency is measured")
    parser.add_argument("--idle", type=int, default=30, help="seconds over which the idle program is looked at")
    parser.add_argument("--only", choices=["cost", "locks", "latency"])
    parser.add_argument("--schemas", nargs="+", choices=SCHEMAS, default=list(SCHEMAS))
    parser.add_argument("--folder", help="where the files are made; should be on a disk")
    parser.add_argument("--json", help="a file for all figures")
    options = parser.parse_args()
    options.bridge = os.path.abspath(options.bridge)
    folder = tempfile.mkdtemp(prefix="bench-writers-", dir=options.folder)
    result = {"file_system": file_system(folder), "sqlite": sqlite3.sqlite_version, "load": os.getloadavg()}
    try:
        bench = Bench(options, folder)
        print(f"files on {result['file_system']}, SQLite {sqlite3.sqlite_version}, an application written in C, "
              f"{os.cpu_count()} processors, load {result['load'][0]:.1f}", flush=True)
        for part in ("cost", "locks", "latency"):
            if options.only in (None, part):
                result[part] = getattr(bench, part)()
        result["missed"] = bench.missed
        for each in bench.missed:
            print("not as wanted:", each)
        print(json.dumps(result))
        if options.json:
            with open(options.json, "w") as file:
                json.dump(result, file, indent=1)
        return 1 if bench.missed else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
