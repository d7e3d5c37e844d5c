"""An application that writes all along while bridge switches it over, and the account of every write."""
import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

from databases import PostgreSQL, SQLite
from waiting import Pace, reached, wait_for

SCHEMA = """
    CREATE TABLE entries({key} PRIMARY KEY, writer {number} NOT NULL, note text);
    CREATE TABLE counters({key} PRIMARY KEY, n {number} NOT NULL);
    CREATE TABLE probes({key} PRIMARY KEY, n {number});
    """


class PostgresClient:
    """A connection that says of each statement how it ended: None, or why not."""

    def __init__(self, database):
        self.database = database
        self.process = None

    def connect(self):
        self.process = subprocess.Popen(
            ["psql", "-qXAt", self.database.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, bufsize=1)

    def run(self, sql):
        if self.process is None or self.process.poll() is not None:
            self.connect()
        try:
            self.process.stdin.write(sql + ";\n\\echo :SQLSTATE\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        if answer == "00000":
            return None
        if not answer:
            self.process = None
            return "gone"
        return answer

    def probe(self):
        answer = self.run("BEGIN; INSERT INTO probes VALUES (1, 1)")
        self.run("ROLLBACK")
        return answer

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


class SQLiteClient:
    def __init__(self, database):
        self.path = database.url.removeprefix("sqlite:")
        self.connection = None

    def execute(self, sql):
        if self.connection is None:
            self.connection = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        for statement in sql.split("; "):
            self.connection.execute(statement)

    def run(self, sql):
        try:
            self.execute(sql)
            return None
        except sqlite3.Error as error:
            return str(error) or "error"

    def probe(self):
        answer = self.run("BEGIN IMMEDIATE; INSERT INTO probes VALUES (1, 1)")
        self.run("ROLLBACK")
        return answer

    def close(self):
        if self.connection:
            self.connection.close()


def client(database):
    return PostgresClient(database) if database.kind == "postgresql" else SQLiteClient(database)


class Writer(threading.Thread):
    """An application with one connection to either side, which writes wherever it may."""

    def __init__(self, number, sides, rate, seed):
        super().__init__(daemon=True)
        self.number, self.sides, self.rate = number, sides, rate
        self.random = random.Random(seed)
        self.rows, self.increments, self.refused = [], 0, 0
        self.unsure = []
        self.moments = []
        self.over = threading.Event()

    def run(self):
        clients = [client(side) for side in self.sides]
        side, key = 0, self.number
        pace = Pace(1 / self.rate if self.rate else 0)
        while not self.over.is_set():
            is_row = self.random.random() < 0.7
            if is_row:
                key += 100
                sql = f"INSERT INTO entries VALUES ({key}, {self.number}, 'n{key}')"
            else:
                sql = f"UPDATE counters SET n = n + 1 WHERE id = {self.number}"
            # As an application does, it leaves a moment between two tries of a write that is refused.
            tries = Pace(0.001, most_behind=0)
            while not self.over.is_set():
                answer = clients[side].run(sql)
                if answer is None:
                    self.moments.append(time.monotonic())
                    if is_row:
                        self.rows.append(key)
                    else:
                        self.increments += 1
                    break
                self.refused += 1
                if answer == "gone":
                    # Whether it was committed is not known.
                    self.unsure.append(key if is_row else None)
                    break
                side = 1 - side
                tries.wait(self.over)
            pace.wait(self.over)
        for each in clients:
            each.close()


class Prober(threading.Thread):
    """Tries to write to both sides in turn, to each every ten milliseconds."""

    def __init__(self, sides):
        super().__init__(daemon=True)
        self.sides = sides
        self.looks, self.violations, self.over = 0, [], threading.Event()

    def run(self):
        clients = [client(side) for side in self.sides]
        last = []
        turn = 0
        pace = Pace(0.005, most_behind=0)
        while not self.over.is_set():
            answer = clients[turn].probe()
            self.looks += 1
            last = (last + [(turn, answer is None, time.monotonic())])[-3:]
            if len(last) == 3 and all(ok for _, ok, _ in last):
                self.violations.append(last)
            turn = 1 - turn
            pace.wait(self.over)
        for each in clients:
            each.close()


class Place:
    def __init__(self, options, folder):
        self.bridge = options.bridge
        self.folder = folder
        self.source = self.make(options.source, "source")
        self.target = self.make(options.target, "target")
        for database in (self.source, self.target):
            words = {"key": "id bigint", "number": "bigint"} if database.kind == "postgresql" else {
                "key": "id INTEGER", "number": "INTEGER"}
            database.execute(SCHEMA.format(**words))
        for number in range(options.writers):
            self.source.execute(f"INSERT INTO counters VALUES ({number + 1}, 0);")
        with open(os.path.join(folder, "bridge.yaml"), "w") as file:
            file.write(f"migration: shop\nsource: \"{self.source.url}\"\ntarget: \"{self.target.url}\"\n"
                       "services: { shop: { tables: [entries, counters, probes] } }\n"
                       f"check: {{ max_age: 24h }}\ncutover: {{ max_pause: {options.max_pause}, timeout: 30s }}\n")
        self.log = open(os.path.join(folder, "run.log"), "ab")
        self.runner = None

    def make(self, kind, side):
        return (PostgreSQL if kind == "postgresql" else SQLite)(self.folder, side)

    def start_run(self):
        if self.runner is None or self.runner.poll() is not None:
            self.runner = subprocess.Popen([self.bridge, "run"], cwd=self.folder, stdout=self.log, stderr=self.log)

    def start(self, *arguments):
        return subprocess.Popen(
            [self.bridge, *arguments], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, *arguments, wanted=(0,)):
        process = self.start(*arguments)
        out, err = process.communicate()
        if process.returncode not in wanted:
            reason = json.loads(out).get('reason') if out.startswith('{') else out
            raise SystemExit(f"bridge {' '.join(arguments)}: {process.returncode}: {reason}\n{err}")
        return process.returncode, out

    def verb(self, *arguments, wanted=(0,)):
        status, out = self.call("cutover", *arguments, "--json", wanted=wanted)
        return json.loads(out) if out else {}

    def begin(self):
        self.call("run", "--until-caught-up")
        self.start_run()
        self.wait_until_running()
        self.call("check")

    def wait_until_running(self):
        links = []

        def are_running():
            # A verb that keeps the links at work meanwhile keeps a run out.
            self.start_run()
            links[:] = json.loads(self.call("status", "--json")[1])["links"]
            return links and all(link["state"] == "running" for link in links)

        wait_for(are_running, lambda: f"the links do not run: {links}")

    def stop(self):
        if self.runner and self.runner.poll() is None:
            self.runner.terminate()
            self.runner.wait()
        for database in (self.source, self.target):
            database.stop()


def verbs_of(phase, chance):
    return {"syncing": ["switch-reads"], "reads_switched": ["switch-writes"] * 4 + ["rehearse", "rollback"],
            "writes_switched": ["rollback"]}[phase]


def account(place, writers):
    """Compares what was acknowledged with what is there; a list of what is wrong."""
    wrong = []
    report = place.verb("status")
    serving = place.target if report["phase"] == "writes_switched" else place.source
    other = place.source if serving is place.target else place.target
    if report["drift"] or report["unfinished_attempt"]:
        wrong.append(f"status: {report['drift']} {report['unfinished_attempt']}")
    # What was written last arrives on the other side.
    columns = {"entries": ["id", "writer", "note"], "counters": ["id", "n"], "probes": ["id", "n"]}
    if not reached(lambda: all(serving.rows(t, c) == other.rows(t, c) for t, c in columns.items()), limit=60):
        wrong.append("the two sides differ")
    present = {int(key) for key, in serving.rows("entries", ["id"])}
    counters = {int(key): int(n) for key, n in serving.rows("counters", ["id", "n"])}
    for writer in writers:
        lost = [key for key in writer.rows if key not in present]
        if lost:
            wrong.append(f"writer {writer.number}: {len(lost)} acknowledged rows are missing, {lost[:5]}")
        unsure = sum(1 for key in writer.unsure if key is None)
        if not writer.increments <= counters[writer.number] <= writer.increments + unsure:
            wrong.append(f"writer {writer.number}: {writer.increments} increments, {counters[writer.number]} found")
        present -= set(writer.rows) | {key for key in writer.unsure if key}
    if present:
        wrong.append(f"{len(present)} rows nobody heard of")
    return wrong


def longest_gap(writers):
    moments = sorted(moment for writer in writers for moment in writer.moments)
    return max((b - a for a, b in zip(moments, moments[1:])), default=0)


def arguments(description, rate):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    for side in ("--source", "--target"):
        parser.add_argument(side, choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=rate, help="commits a second of all writers together")
    parser.add_argument("--max-pause", default="5s")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--keep", action="store_true")
    return parser


def drive(place, options, work):
    """Has `work`, which gets the writers, done under the application; whether all is accounted for in the end."""
    place.begin()
    writers = [Writer(n + 1, [place.source, place.target], options.rate / options.writers, options.seed + n)
               for n in range(options.writers)]
    # Before reads are switched nobody keeps an application from writing to the target.
    place.verb("switch-reads")
    for writer in writers:
        writer.start()
    prober = Prober([place.source, place.target])
    prober.start()
    began = time.monotonic()
    work(writers)
    seconds = time.monotonic() - began
    for each in writers + [prober]:
        each.over.set()
    for each in writers + [prober]:
        each.join()
    wrong = account(place, writers)
    if prober.violations:
        wrong.append(f"both sides were writable {len(prober.violations)} times: {prober.violations[:3]}")
    rows, increments = sum(len(w.rows) for w in writers), sum(w.increments for w in writers)
    print(f"{rows + increments} writes acknowledged ({(rows + increments) / seconds:.0f} a second), "
          f"{sum(w.refused for w in writers)} refused, {sum(len(w.unsure) for w in writers)} unsure; "
          f"{prober.looks} looks at both sides; the longest time without a write {longest_gap(writers):.2f} s")
    print("\n".join(["WRONG"] + wrong) if wrong else "every acknowledged write is there once, and both sides are equal")
    return not wrong


def run_in_folder(options, make, work):
    """Makes a place, and has `work` done there; ends the script with 0 only if all is accounted for."""
    options.bridge = os.path.abspath(options.bridge)
    print(f"seed {options.seed}, {options.source} to {options.target}", flush=True)
    folder = tempfile.mkdtemp(prefix="cutover-")
    os.chmod(folder, 0o755)
    place = make(options, folder)
    is_clean = False
    try:
        is_clean = drive(place, options, lambda writers: work(place, writers))
    finally:
        place.stop()
        if options.keep or not is_clean:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if is_clean else 1)
