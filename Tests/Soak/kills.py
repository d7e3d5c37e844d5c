#!/usr/bin/env python3
"""PostgreSQL to PostgreSQL under pgbench and random transactions, with bridge killed at random moments, many times.

    kills.py --bridge PATH [--kills 200] [--seed N]

All along the slot's confirmed position is held against what the journal's own files say is synced, read without bridge;
the slot is read first, so that nothing may excuse a position beyond. At the end whole tables are compared by psql.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from databases import Server, position
from journal_state import JournalState
from random_tables import SCHEMA, TABLES, RandomWriter
from soak import Bridge

BENCH = {
    "pgbench_accounts": "aid, bid, abalance, filler", "pgbench_branches": "bid, bbalance", "pgbench_tellers": "tid, bid, tbalance",
    "pgbench_history": "tid, bid, aid, delta, mtime",
}


class Watch(threading.Thread):
    """Samples the slot and the journal."""

    def __init__(self, source, journal):
        super().__init__()
        self.source, self.journal = source, JournalState(journal)
        self.samples, self.moved, self.level, self.beyond = 0, 0, 0, []
        self.stopping = threading.Event()

    def run(self):
        psql = subprocess.Popen(["psql", "-qXAt", self.source.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        last = 0
        while not self.stopping.wait(0.01):
            psql.stdin.write("SELECT coalesce((SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE NOT temporary)::text, '');\n")
            psql.stdin.flush()
            line = psql.stdout.readline().strip()
            if not line:
                continue
            confirmed = position(line)
            try:
                synced = self.journal.durable_frontier()
            except FileNotFoundError:
                continue
            if synced is None:
                continue
            self.samples += 1
            self.moved += confirmed > last
            last = max(last, confirmed)
            self.level += confirmed == synced
            if confirmed > synced:
                self.beyond.append((line, hex(synced)))
        psql.stdin.close()
        psql.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--scale", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--pause", type=float, default=0.002, help="seconds between two transactions of a random writer")
    parser.add_argument("--rate", type=int, default=300, help="pgbench's transactions a second")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="kills-")
    os.chmod(folder, 0o755)
    dice = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    # A small decoding memory has the large transactions streamed while they run.
    source = Server(folder, "source", "logical_decoding_work_mem = 64kB\n")
    target = Server(folder, "target")
    threads, load, good = [], None, False
    try:
        subprocess.run(["pgbench", "-i", "-q", "-s", str(options.scale), source.url], check=True, stderr=subprocess.DEVNULL)
        source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
        source.psql(SCHEMA)
        bridge = Bridge(options.bridge, folder, source, target, list(BENCH) + list(TABLES))
        subprocess.run(bridge.command("schema", "apply"), check=True, stdout=bridge.log, stderr=bridge.log)
        load = subprocess.Popen(["pgbench", "-n", "-c", "2", "-R", str(options.rate), "-T", "100000", source.url],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        writers = [RandomWriter(source.url, options.seed + number, options.pause) for number in range(3)]
        journal = os.path.join(folder, "data", "forward", "journal")
        watch = Watch(source, journal)
        threads = writers + [watch]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for number in range(options.kills):
            bridge.start()
            # The first few die in the copy; some very soon after a start.
            time.sleep(dice.uniform(0.02, 0.6) if number < 10 or dice.random() < 0.2 else dice.uniform(0.3, 2.2))
            if bridge.child.poll() is not None:
                print(f"bridge ended by itself with {bridge.child.returncode}; see {folder}/bridge.log")
                return 1
            bridge.kill()
            if number % 20 == 19:
                print(f"{number + 1} kills, {time.monotonic() - began:.0f} s, {watch.samples} samples, "
                      f"{sum(w.transactions for w in writers)} random transactions", flush=True)
        bridge.start()
        time.sleep(3)
        for writer in writers:
            writer.stopping.set()
        load.terminate()
        load.wait()
        bridge.memory()
        bridge.child.terminate()
        status = bridge.child.wait()
        finish = subprocess.run(bridge.command("run", "--until-caught-up"), stdout=bridge.log, stderr=bridge.log)
        watch.stopping.set()
        for thread in threads:
            thread.join()
        transactions = source.psql("SELECT count(*) FROM pgbench_history")
        print(f"{options.kills} kills in {time.monotonic() - began:.0f} s; {transactions} of pgbench's and "
              f"{sum(w.transactions for w in writers)} random transactions; exit statuses {status} and {finish.returncode}; "
              f"peak memory {bridge.peak // 1024} MB")
        print(f"confirmed position: {watch.samples} samples, seen to move {watch.moved} times, level with the synced journal {watch.level} times, "
              f"beyond it {len(watch.beyond)} times {watch.beyond[:3]}")
        good = finish.returncode == 0 and status == 0 and not watch.beyond
        for table, columns in {**BENCH, **TABLES}.items():
            a, b = source.digest(table, columns, columns), target.digest(table, columns, columns)
            good = good and a == b
            print(f"{table}: {a[0]} and {b[0]} rows, {'equal' if a == b else 'DIFFERENT'}")
        return 0 if good else 1
    finally:
        for thread in threads:
            thread.stopping.set()
        if load and load.poll() is None:
            load.kill()
        for thread in threads:
            thread.join()
        source.cluster.stop()
        target.cluster.stop()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("kept for a look:", folder)


if __name__ == "__main__":
    sys.exit(main())
