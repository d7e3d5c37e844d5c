#!/usr/bin/env python3
"""Checking that two PostgreSQL tables are the same, side by side in one run: bridge and its peers.

    check.py --bridge PATH [--rows 2000000] [--rounds 3] [--reladiff PATH] [--data-diff PATH]

Two clusters are made in a temporary folder and removed at the end. Prints medians and ratios, and the same as JSON.

  bridge       `bridge check --mode full`; nobody writes, so nothing is throttled
  copy         both tables read as binary COPY, side by side, into nothing
  hash         one hash scan on both servers, side by side: count(*), sum(hash_record_extended(t, 0))
  reladiff, data-diff   those programs, if they are named
  incremental  `bridge check --mode incremental` after 1,000 rows were updated, on tables of 100,000 and 1,000,000 rows
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Tests", "Soak"))
from databases import Cluster, run  # noqa: E402

TABLE = """CREATE TABLE rows (id bigint PRIMARY KEY, customer bigint NOT NULL, name text NOT NULL, note text,
  amount numeric(12,2) NOT NULL, rate double precision, at timestamptz NOT NULL, active boolean NOT NULL)"""
COLUMNS = ["customer", "name", "note", "amount", "rate", "at", "active"]


def psql(url, sql):
    return run(["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", url, "-c", sql], text=True).stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def timed(commands):
    """Seconds that commands take side by side, and their exit statuses."""
    began = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    errors = [process.communicate()[1] for process in running]
    seconds = time.monotonic() - began
    for process, error, command in zip(running, errors, commands):
        if process.returncode != 0:
            sys.exit(f"{command}: {process.returncode}\n{error.decode()}")
    return seconds


class Bench:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        # The peers' drivers know no Unix sockets.
        self.ports = [free_port(), free_port()]
        self.source, self.target = (
            Cluster(folder, name, f"listen_addresses = '127.0.0.1'\nport = {port}\n")
            for name, port in zip(("source", "target"), self.ports))

    def peer_url(self, port, name):
        return f"postgresql://postgres@127.0.0.1:{port}/{name}"

    def migration(self, name, rows):
        """A source table of so many rows, copied to the target; gives the folder of its configuration and both URLs."""
        for port in self.ports:
            psql(self.peer_url(port, "postgres"), f"CREATE DATABASE {name}")
        source, target = (self.peer_url(port, name) for port in self.ports)
        psql(source, TABLE)
        psql(source, f"""INSERT INTO rows SELECT i, i % 5000, 'customer ' || i, repeat('n', (i % 40)::int), i / 7.0, i / 3.0,
            '2024-01-01'::timestamptz + i * interval '1 second', i % 3 = 0 FROM generate_series(1, {rows}) i""")
        place = os.path.join(self.folder, name)
        os.mkdir(place)
        with open(os.path.join(place, "bridge.yaml"), "w") as file:
            file.write(f"migration: {name}\nsource: \"{source}\"\ntarget: \"{target}\"\n"
                       "services: { all: { tables: [rows] } }\n")
        self.bridge(place, "schema", "apply")
        self.bridge(place, "run", "--until-caught-up")
        for cluster in (source, target):
            psql(cluster, "VACUUM (ANALYZE, FREEZE) rows")
        return place, source, target

    def bridge(self, place, *arguments):
        process = subprocess.run([self.options.bridge, *arguments], cwd=place, capture_output=True)
        if process.returncode != 0:
            sys.exit(f"bridge {arguments}: {process.returncode}\n{process.stdout.decode()}\n{process.stderr.decode()}")
        return process.stdout

    def full(self):
        place, source, target = self.migration("whole", self.options.rows)
        times = {}
        for _ in range(self.options.rounds):
            copy = [["psql", "-qX", url, "-c", r"\copy rows TO '/dev/null' (FORMAT binary)"] for url in (source, target)]
            times.setdefault("copy", []).append(timed(copy))
            scan = [["psql", "-qX", url, "-c", "SELECT count(*), sum(hash_record_extended(rows, 0)) FROM rows"]
                    for url in (source, target)]
            times.setdefault("hash", []).append(timed(scan))
            began = time.monotonic()
            self.bridge(place, "check", "--mode", "full")
            times.setdefault("bridge", []).append(time.monotonic() - began)
        for name, program in (("reladiff", self.options.reladiff), ("data-diff", self.options.data_diff)):
            if not program:
                continue
            command = [program, self.peer_url(self.ports[0], "whole"), "rows", self.peer_url(self.ports[1], "whole"), "rows",
                       "-k", "id", "-j", "2"]
            for column in COLUMNS:
                command += ["-c", column]
            times[name] = [timed([command])]
        return times

    def incremental(self):
        times = {}
        for rows in (100_000, 1_000_000):
            place, source, _ = self.migration(f"rows{rows}", rows)
            self.bridge(place, "check", "--mode", "full")
            for _ in range(self.options.rounds):
                psql(source, f"UPDATE rows SET note = md5(random()::text) WHERE id IN "
                             f"(SELECT (random() * {rows - 1})::bigint + 1 FROM generate_series(1, 1000))")
                self.bridge(place, "run", "--until-caught-up")
                began = time.monotonic()
                report = json.loads(self.bridge(place, "check", "--mode", "incremental", "--json"))
                times.setdefault(rows, []).append(time.monotonic() - began)
                assert report["verdict"] == "consistent", report
        return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reladiff")
    parser.add_argument("--data-diff")
    options = parser.parse_args()
    options.bridge = os.path.abspath(options.bridge)
    folder = tempfile.mkdtemp(prefix="bench-check-")
    os.chmod(folder, 0o755)
    bench = Bench(options, folder)
    try:
        full = bench.full()
        print(f"{options.rows:,} rows on either side, medians of {options.rounds}")
        # Round by round: what drifts during the run falls on all three of a round.
        floors = [min(pair) for pair in zip(full["copy"], full["hash"])]
        for name, seconds in full.items():
            ratios = [taken / floor for taken, floor in zip(seconds, floors)]
            print(f"  {name:10} {statistics.median(seconds):7.2f} s   {statistics.median(ratios):5.2f} x the faster of copy "
                  f"and hash ({min(ratios):.2f} to {max(ratios):.2f})")
        changed = bench.incremental()
        print("an incremental check of 1,000 rows updated, of a table of")
        for rows, seconds in changed.items():
            print(f"  {rows:9,} rows  {statistics.median(seconds):6.2f} s")
        print(json.dumps({"full": full, "incremental": changed}))
    finally:
        bench.source.stop()
        bench.target.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
