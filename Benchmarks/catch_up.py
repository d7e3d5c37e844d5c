#!/usr/bin/env python3
"""Catching up on a backlog, side by side in one run: bridge and PostgreSQL's own tools.

    catch_up.py --bridge PATH [--transactions 60000] [--scale 10] [--rounds 3]

Two clusters are made in a temporary folder and removed at the end. Prints medians and ratios, and the same as JSON.

  decode     pg_recvlogical with pgoutput into nothing: what the source's decoding costs, the floor for all others
  native     a subscription, from the slot
  bridge     `bridge run`, from the slot, through the journal into the target
  capture    `bridge run` while the target is locked: from the slot into the synced journal
  journal    the same journal applied when the lock is gone: the target was away and comes back
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Tests", "Soak"))
from databases import Cluster, run  # noqa: E402

TABLES = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]


def psql(url, sql):
    return run(["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", url, "-c", sql], text=True).stdout.strip()


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.source = Cluster(folder, "source", "synchronous_commit = off\n")
        self.target = Cluster(folder, "target")
        self.database = 0

    def workload(self, url):
        clients = 4
        subprocess.run(["pgbench", "-n", "-c", str(clients), "-j", "2", "-t", str(self.options.transactions // clients), url],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fresh(self):
        """A new pair of databases with pgbench's tables, a key on the history."""
        self.database += 1
        name = f"bench{self.database}"
        for cluster in (self.source, self.target):
            psql(cluster.url(), f"CREATE DATABASE {name}")
            subprocess.run(["pgbench", "-i", "-q", "-I", "dtp", "-s", str(self.options.scale), cluster.url(name)],
                           check=True, stderr=subprocess.DEVNULL)
            psql(cluster.url(name), "ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY")
        subprocess.run(["pgbench", "-i", "-q", "-I", "g", "-s", str(self.options.scale), self.source.url(name)],
                       check=True, stderr=subprocess.DEVNULL)
        return self.source.url(name), self.target.url(name)

    def copied(self):
        source, target = self.fresh()
        dump = subprocess.Popen(["pg_dump", "-a", source], stdout=subprocess.PIPE)
        subprocess.run(["psql", "-qX", target], stdin=dump.stdout, check=True, stdout=subprocess.DEVNULL)
        return source, target

    def wait_for_history(self, target):
        wanted = str(self.options.transactions)
        while psql(target, "SELECT count(*) FROM pgbench_history") != wanted:
            time.sleep(0.02)

    def decode(self):
        source, _ = self.fresh()
        psql(source, "CREATE PUBLICATION bench FOR ALL TABLES")
        psql(source, "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
        self.workload(source)
        end = psql(source, "SELECT pg_current_wal_insert_lsn()")
        began = time.monotonic()
        subprocess.run([os.path.join(self.source.bin, "pg_recvlogical"), "-d", source, "-S", "bench", "--start", "-f",
                        "/dev/null", "-E", end, "-o", "proto_version=1", "-o", "publication_names=bench"], check=True)
        elapsed = time.monotonic() - began
        psql(source, "SELECT pg_drop_replication_slot('bench')")
        return elapsed

    def native(self):
        source, target = self.copied()
        psql(source, "CREATE PUBLICATION bench FOR ALL TABLES")
        psql(source, "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
        psql(target, f"CREATE SUBSCRIPTION bench CONNECTION '{source}' PUBLICATION bench "
                     "WITH (create_slot = false, slot_name = 'bench', copy_data = false, enabled = false)")
        self.workload(source)
        began = time.monotonic()
        psql(target, "ALTER SUBSCRIPTION bench ENABLE")
        self.wait_for_history(target)
        elapsed = time.monotonic() - began
        psql(target, "DROP SUBSCRIPTION bench")
        return elapsed

    def configured(self):
        source, target = self.fresh()
        folder = os.path.join(self.folder, f"bridge{self.database}")
        os.mkdir(folder)
        config = os.path.join(folder, "bridge.yaml")
        with open(config, "w") as file:
            file.write(f"migration: bench{self.database}\nsource: '{source}'\ntarget: '{target}'\ndata_dir: {folder}/data\n"
                       "services:\n  all:\n    tables: [" + ", ".join(TABLES) + "]\n")
        log = open(os.path.join(folder, "log"), "wb")
        command = [self.options.bridge, "run", "--config", config]
        subprocess.run(command + ["--until-caught-up"], check=True, stdout=log, stderr=log)
        self.workload(source)
        return source, target, command, log, config

    def bridge(self):
        _, target, command, log, _ = self.configured()
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_for_history(target)
        elapsed = time.monotonic() - began
        child.terminate()
        child.wait()
        return elapsed

    def capture_and_journal(self):
        source, target, command, log, config = self.configured()
        end = psql(source, "SELECT pg_current_wal_insert_lsn()")
        lock = subprocess.Popen(["psql", "-qXAt", target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        lock.stdin.write("BEGIN; LOCK TABLE pgbench_branches, pgbench_accounts, pgbench_tellers, pgbench_history IN EXCLUSIVE MODE; SELECT 1;\n")
        lock.stdin.flush()
        lock.stdout.readline()
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log)
        slot = "SELECT confirmed_flush_lsn >= '%s' FROM pg_replication_slots WHERE database = current_database()" % end
        while psql(source, slot) != "t":
            time.sleep(0.02)
        capture = time.monotonic() - began
        began = time.monotonic()
        lock.stdin.close()
        lock.wait()
        self.wait_for_history(target)
        journal = time.monotonic() - began
        child.terminate()
        child.wait()
        return capture, journal


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--transactions", type=int, default=60_000)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-")
    os.chmod(folder, 0o755)
    bench = Bench(options, folder)
    times = {"decode": [], "native": [], "bridge": [], "capture": [], "journal": []}
    try:
        for _ in range(options.rounds):
            times["decode"].append(bench.decode())
            times["native"].append(bench.native())
            times["bridge"].append(bench.bridge())
            capture, journal = bench.capture_and_journal()
            times["capture"].append(capture)
            times["journal"].append(journal)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            rate = options.transactions / medians[name]
            print(f"{name:8} {medians[name]:7.2f} s  {rate:9,.0f} transactions/s  "
                  f"{medians[name] / medians['decode']:5.2f} x decode  {medians['native'] / medians[name]:5.2f} x native's rate  "
                  f"(from {min(values):.2f} to {max(values):.2f})")
        print(json.dumps({"transactions": options.transactions, "seconds": times}))
    finally:
        bench.source.stop()
        bench.target.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
