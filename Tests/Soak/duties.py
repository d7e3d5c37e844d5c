#!/usr/bin/env python3
"""What bridge owes the source: an idle one keeps little of its log for it, and a stalled target keeps it waiting for nothing.

    duties.py --bridge PATH [--megabytes 1024] [--timeout 3]

1. A migration whose tables nobody writes to, beside a table of another application that writes --megabytes of log: what the
   slot retains is sampled all along, and must stay under 64 MB.
2. A target whose table is locked for ten times wal_sender_timeout, with writers going: the walsender stays the same process,
   the journal grows, and once the lock is gone the target catches up.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

from databases import Server
from soak import Bridge


def retained(source):
    return int(source.psql("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots WHERE NOT temporary"))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def idle(source, megabytes):
    began, start, worst, samples = time.monotonic(), source.psql("SELECT pg_current_wal_lsn()"), 0, []
    written = 0
    while written < megabytes << 20:
        source.psql("INSERT INTO foreign_rows SELECT repeat(md5(g::text), 32) FROM generate_series(1, 4000) g; TRUNCATE foreign_rows")
        now = retained(source)
        worst = max(worst, now)
        written = int(source.psql(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint"))
        samples.append((time.monotonic() - began, written, now))
    for when, wrote, kept in samples[::max(1, len(samples) // 12)] + samples[-1:]:
        print(f"  {when:6.1f} s: {wrote / 1e6:7.0f} MB written by others, {kept / 1e6:6.1f} MB retained by the slot")
    settled = wait_for(lambda: retained(source) < 17 << 20, 60)
    print(f"idle source: {written / 1e6:.0f} MB of foreign log in {samples[-1][0]:.0f} s, {len(samples)} samples, at most "
          f"{worst / 1e6:.1f} MB retained; afterwards {retained(source) / 1e6:.1f} MB", flush=True)
    return worst < 64 << 20 and settled


def stalled(source, target, folder, timeout):
    process = "SELECT active_pid FROM pg_replication_slots WHERE NOT temporary"
    journal = os.path.join(folder, "data", "forward", "journal")

    def size():
        return sum(entry.stat().st_size for entry in os.scandir(journal))

    before, begun = source.psql(process), size()
    lock = subprocess.Popen(["psql", "-qXAt", target.url], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lock.stdin.write("BEGIN; LOCK TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history;\n")
    lock.stdin.flush()
    load = subprocess.Popen(["pgbench", "-n", "-c", "2", "-R", "1000", "-T", str(10 * timeout), source.url],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began, processes, applied = time.monotonic(), set(), set()
    while load.poll() is None:
        processes.add(source.psql(process))
        applied.add(target.psql("SELECT pg_stat_get_live_tuples('pgbench_history'::regclass)"))
        if int(time.monotonic() - began) % 5 == 0:
            print(f"  {time.monotonic() - began:6.1f} s: walsender {source.psql(process)}, journal {size() / 1e6:.1f} MB, slot retains "
                  f"{retained(source) / 1e6:.1f} MB", flush=True)
        time.sleep(1)
    grown, held = size() - begun, time.monotonic() - began
    lock.stdin.write("ROLLBACK;\n\\q\n")
    lock.stdin.close()
    lock.wait()
    count = source.psql("SELECT count(*) FROM pgbench_history")
    released = time.monotonic()
    caught_up = wait_for(lambda: target.psql("SELECT count(*) FROM pgbench_history") == count)
    print(f"stalled target: locked for {held:.0f} s with wal_sender_timeout {timeout} s; walsenders seen {sorted(processes)} (before "
          f"{before}); journal grew by {grown / 1e6:.1f} MB; {count} transactions, caught up {time.monotonic() - released:.1f} s after the lock")
    return processes == {before} and grown > 0 and caught_up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--timeout", type=int, default=3, help="wal_sender_timeout in seconds")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="duties-")
    os.chmod(folder, 0o755)
    source = Server(folder, "source", f"wal_sender_timeout = {options.timeout}s\n")
    target = Server(folder, "target")
    good = False
    try:
        subprocess.run(["pgbench", "-i", "-q", "-s", "1", source.url], check=True, stderr=subprocess.DEVNULL)
        source.psql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL; CREATE TABLE foreign_rows(a text)")
        tables = ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"]
        bridge = Bridge(options.bridge, folder, source, target, tables)
        subprocess.run(bridge.command("schema", "apply"), check=True, stdout=bridge.log, stderr=bridge.log)
        subprocess.run(bridge.command("run", "--until-caught-up"), check=True, stdout=bridge.log, stderr=bridge.log)
        bridge.start()
        good = wait_for(lambda: source.psql("SELECT active FROM pg_replication_slots WHERE NOT temporary") == "t")
        good = idle(source, options.megabytes) and good
        good = stalled(source, target, folder, options.timeout) and good
        columns = "tid, bid, aid, delta, mtime"
        a, b = source.digest("pgbench_history", columns), target.digest("pgbench_history", columns)
        print(f"pgbench_history: {a[0]} and {b[0]} rows, {'equal' if a == b else 'DIFFERENT'}")
        bridge.child.terminate()
        good = bridge.child.wait() == 0 and a == b and good
        return 0 if good else 1
    finally:
        source.cluster.stop()
        target.cluster.stop()
        if good:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print("kept for a look:", folder)


if __name__ == "__main__":
    sys.exit(main())
