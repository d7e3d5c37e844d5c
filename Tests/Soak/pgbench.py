#!/usr/bin/env python3
"""pgbench's TPC-B from one PostgreSQL server to another while bridge is killed again and again.

    pgbench.py --bridge PATH [--scale 10] [--seconds 60] [--kills 3]

bridge dies once in the copy and some times in the stream. In between `bridge status --json` is held against what the
source itself says. At the end the tables are compared by a query that is not bridge's.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

from databases import Server, position
from soak import Bridge

TABLES = {
    "pgbench_accounts": "aid", "pgbench_branches": "bid", "pgbench_tellers": "tid",
    "pgbench_history": "tid, bid, aid, delta, mtime",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--scale", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="pgbench-")
    os.chmod(folder, 0o755)
    source, target = Server(folder, "source"), Server(folder, "target")
    equal = False
    try:
        subprocess.run(["pgbench", "-i", "-q", "-s", str(options.scale), source.url], check=True, stderr=subprocess.DEVNULL)
        # The history has no key; its rows are only ever inserted.
        source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")
        bridge = Bridge(options.bridge, folder, source, target, TABLES)
        subprocess.run(bridge.command("schema", "apply"), check=True, stdout=bridge.log, stderr=bridge.log)
        load = subprocess.Popen(["pgbench", "-n", "-c", "4", "-j", "2", "-T", str(options.seconds), source.url],
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(1)
        began = time.monotonic()
        bridge.start()
        while not any(0 < t["rows_done"] for t in (bridge.status().get("copy") or {}).get("tables", [])):
            time.sleep(0.02)
        bridge.kill()
        print(f"killed in the copy after {time.monotonic() - began:.1f} s")
        kills, worst, moved = 0, 0, 0
        bridge.start()
        next_kill, last = time.monotonic() + 6, -1
        while load.poll() is None:
            time.sleep(0.5)
            bridge.memory()
            link = (bridge.status().get("links") or [{}])[0]
            now = position(source.psql("SELECT pg_current_wal_flush_lsn()"))
            confirmed, retained = source.psql(
                "SELECT confirmed_flush_lsn, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint "
                "FROM pg_replication_slots WHERE NOT temporary").split("|")
            journaled, applied = link.get("journaled_position"), link.get("applied_position")
            if applied and journaled:
                lag = now - position(applied)
                worst = max(worst, lag)
                moved += position(applied) > last
                last = position(applied)
                print(f"captured {link['captured_position']} journaled {journaled} applied {applied}  lag {link['lag_bytes']} bytes "
                      f"(server's view a moment later {lag}) {link['lag_seconds']} s  confirmed {confirmed}  retained "
                      f"{link['slot_retained_bytes']} (server {retained})")
                if position(confirmed) > position(journaled) and link["state"] != "stopped":
                    # What a run tells of itself is written twice a second.
                    time.sleep(0.7)
                    later = (bridge.status().get("links") or [{}])[0]
                    assert position(confirmed) <= position(later["journaled_position"]), "confirmed beyond the journal"
            if kills < options.kills and time.monotonic() > next_kill:
                bridge.kill()
                kills += 1
                next_kill = time.monotonic() + random.uniform(4, 8)
                bridge.start()
        print([line for line in load.stdout.read().splitlines() if "processed" in line or "tps" in line])
        bridge.memory()
        bridge.child.terminate()
        status = bridge.child.wait()
        began = time.monotonic()
        finish = subprocess.run(bridge.command("run", "--until-caught-up"), stdout=bridge.log, stderr=bridge.log)
        print(f"killed once in the copy and {kills} times in the stream; exit statuses {status} and {finish.returncode}, "
              f"caught up in {time.monotonic() - began:.1f} s; peak memory {bridge.peak // 1024} MB; applied position moved in "
              f"{moved} looks; largest lag {worst / 1e6:.1f} MB")
        equal = finish.returncode == 0
        for table, order in TABLES.items():
            a, b = source.digest(table, order), target.digest(table, order)
            equal = equal and a == b
            print(f"{table}: {a[0]} and {b[0]} rows, {'equal' if a == b else 'DIFFERENT'}")
        return 0 if equal else 1
    finally:
        source.cluster.stop()
        target.cluster.stop()
        if equal:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("kept for a look:", folder)


if __name__ == "__main__":
    sys.exit(main())
