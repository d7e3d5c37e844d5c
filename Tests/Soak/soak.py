#!/usr/bin/env python3
"""Runs bridge between two real databases under a random writer, kills it again and again, and compares the ends.

The databases are written and read with tools that share no code with bridge: psql, and Python's sqlite3 module.

    soak.py --bridge PATH --source postgresql|sqlite --target postgresql|sqlite [--changes N] [--kills N] [--seed N]

PostgreSQL clusters are made in a temporary folder and removed at the end. Exit status 0 only if all tables are equal.
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from databases import PostgreSQL, SQLite

TABLES = {
    "accounts": ["id", "email", "balance", "note"],
    "items": ["a", "b", "quantity", "data", "price"],
    "tags": ["name", "number", "code"],
}
SCHEMA = {
    "postgresql": """
        CREATE TABLE accounts(id bigint PRIMARY KEY, email text NOT NULL UNIQUE, balance bigint, note text);
        CREATE TABLE items(a bigint, b text, quantity bigint, data bytea, price double precision, PRIMARY KEY(a, b));
        CREATE TABLE tags(name text PRIMARY KEY, number bigint, code bigint UNIQUE);
        """,
    "sqlite": """
        CREATE TABLE accounts(id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, balance INTEGER, note TEXT);
        CREATE TABLE items(a INTEGER NOT NULL, b TEXT NOT NULL, quantity INTEGER, data BLOB, price REAL,
                           PRIMARY KEY(a, b));
        CREATE TABLE tags(name TEXT PRIMARY KEY NOT NULL, number INTEGER, code INTEGER UNIQUE);
        """,
}


class Writer:
    """Random changes of every kind, counted."""

    def __init__(self, database, seed):
        self.database = database
        self.random = random.Random(seed)
        self.changes = 0
        self.transactions = 0

    def text(self, limit=30):
        return "'" + "".join(self.random.choice("abcdefghij äöü€ \t\\") for _ in range(self.random.randrange(limit))) + "'"

    def statement(self):
        r, db = self.random, self.database
        key, other = r.randrange(3000), r.randrange(3000)
        choice = r.randrange(12)
        if choice <= 2:
            values = [str(key), f"'mail{other}'", str(r.randrange(-10**15, 10**15)), self.text()]
            return db.replace("accounts", TABLES["accounts"], values, [["id"], ["email"]])
        if choice == 3:
            return f"UPDATE accounts SET balance = balance + 1, note = {self.text(60)} WHERE id = {key};"
        if choice == 4:
            return f"DELETE FROM accounts WHERE id = {key};"
        if choice == 5:
            # A key change, to a number that is free for sure.
            return f"UPDATE accounts SET id = {10**9 + r.randrange(10**12)} WHERE id = {key};"
        if choice <= 7:
            price = r.choice([r.uniform(-1e9, 1e9), r.random() * 10 ** r.randrange(-300, 300), 0.1, 5e-324])
            values = [str(key % 500), f"'b{other % 50}'", str(r.randrange(100)), db.blob(r.randbytes(r.randrange(200))), repr(price)]
            return db.replace("items", TABLES["items"], values, [["a", "b"]])
        if choice == 8:
            return f"DELETE FROM items WHERE a = {key % 500};"
        if choice == 9:
            return f"UPDATE items SET quantity = quantity + 1 WHERE a = {key % 500};"
        values = [f"'tag{key % 800}'", str(r.randrange(10**6)), str(other % 800)]
        return db.replace("tags", TABLES["tags"], values, [["name"], ["code"]])

    def step(self):
        r = self.random
        size = 100 if r.random() < 0.05 else 1
        self.database.execute("BEGIN; " + " ".join(self.statement() for _ in range(size)) + " COMMIT;")
        self.changes += size
        self.transactions += 1

    def empty(self):
        table = self.random.choice(list(TABLES))
        self.database.execute(f"BEGIN; DELETE FROM {table}; COMMIT;")
        self.changes += 1

    def large(self, count):
        first = 2 * 10**12 + self.changes
        self.database.execute("BEGIN; " + self.database.many(first, count) + " COMMIT;")
        self.changes += count


class Bridge:
    """The program under test as a child process."""

    def __init__(self, program, folder, source, target, tables):
        self.program = program
        self.folder = folder
        self.config = os.path.join(folder, "bridge.yaml")
        self.log = open(os.path.join(folder, "bridge.log"), "ab")
        self.child = None
        self.peak = 0
        with open(self.config, "w") as file:
            file.write(f"migration: soak\nsource: {json.dumps(source.url)}\ntarget: {json.dumps(target.url)}\n"
                       f"data_dir: {json.dumps(os.path.join(folder, 'data'))}\nservices:\n  all:\n    tables:\n")
            for table in tables:
                file.write(f"      - {table}\n")

    def command(self, *arguments):
        return [self.program, *arguments, "--config", self.config]

    def start(self, *arguments):
        self.child = subprocess.Popen(self.command("run", *arguments), stdout=self.log, stderr=self.log)

    def memory(self):
        try:
            with open(f"/proc/{self.child.pid}/status") as file:
                for line in file:
                    if line.startswith("VmHWM"):
                        self.peak = max(self.peak, int(line.split()[1]))
        except (OSError, AttributeError):
            pass

    def kill(self):
        self.memory()
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def status(self):
        result = subprocess.run(self.command("status", "--json"), stdout=subprocess.PIPE, stderr=self.log)
        return json.loads(result.stdout) if result.stdout else {}


def compare(source, target, tables):
    equal = True
    for table, columns in tables.items():
        a, b = source.rows(table, columns), target.rows(table, columns)
        same = a == b
        equal = equal and same
        print(f"{table}: {len(a)} rows on the source, {len(b)} on the target, {'equal' if same else 'DIFFERENT'}")
        if not same:
            print("  only on the source:", sorted(set(a) - set(b))[:3])
            print("  only on the target:", sorted(set(b) - set(a))[:3])
    return equal


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--source", choices=SCHEMA, required=True)
    parser.add_argument("--target", choices=SCHEMA, required=True)
    parser.add_argument("--changes", type=int, default=300_000)
    parser.add_argument("--large", type=int, default=200_000, help="rows of the one large transaction")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="soak-")
    os.chmod(folder, 0o755)
    print(f"seed {options.seed}, {options.source} to {options.target}")
    kinds = {"postgresql": PostgreSQL, "sqlite": SQLite}
    source = kinds[options.source](folder, "source")
    target = kinds[options.target](folder, "target")
    stopping, abandoned = threading.Event(), threading.Event()
    thread = None
    equal_folder = None
    try:
        source.execute(SCHEMA[options.source])
        target.execute(SCHEMA[options.target])
        writer = Writer(source, options.seed)
        for _ in range(2000):
            writer.step()
        bridge = Bridge(options.bridge, folder, source, target, TABLES)
        dice = random.Random(options.seed + 1)

        def write():
            large_at, empty_at = options.changes // 4, options.changes // 3
            while not abandoned.is_set() and (writer.changes < options.changes or not stopping.is_set()):
                if writer.changes >= large_at:
                    large_at = float("inf")
                    writer.large(options.large)
                elif writer.changes >= empty_at:
                    empty_at += options.changes // 3
                    writer.empty()
                writer.step()

        thread = threading.Thread(target=write)
        thread.start()
        began = time.monotonic()
        for number in range(options.kills):
            bridge.start()
            # The first dies in the copy, as good as at once; the others in the stream.
            time.sleep(dice.uniform(0.05, 0.4) if number == 0 else dice.uniform(1, 5))
            if bridge.child.poll() is not None:
                raise SystemExit(f"bridge ended by itself with {bridge.child.returncode}; see {folder}/bridge.log")
            bridge.kill()
        bridge.start()
        while writer.changes < options.changes and thread.is_alive():
            time.sleep(1)
            bridge.memory()
            if bridge.child.poll() is not None:
                raise SystemExit(f"bridge ended by itself with {bridge.child.returncode}; see {folder}/bridge.log")
        link = (bridge.status().get("links") or [{}])[0]
        print("while writing:", {k: link.get(k) for k in ("state", "applied_position", "lag_bytes", "lag_seconds")})
        stopping.set()
        thread.join()
        bridge.child.send_signal(signal.SIGTERM)
        stopped = bridge.child.wait()
        finish = subprocess.run(bridge.command("run", "--until-caught-up"), stdout=bridge.log, stderr=bridge.log)
        print(f"{writer.changes} changes in {writer.transactions} transactions, {options.kills} kills, "
              f"{time.monotonic() - began:.0f} s, peak memory {bridge.peak // 1024} MB, exit statuses {stopped} and {finish.returncode}")
        equal = compare(source, target, TABLES)
        if not equal or finish.returncode or stopped:
            print("kept for a look:", folder)
            return 1
        equal_folder = folder
        return 0
    finally:
        abandoned.set()
        if thread:
            thread.join()
        for database in (source, target):
            database.stop()
        if equal_folder:
            shutil.rmtree(equal_folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
