#!/usr/bin/env python3
"""Switches an application over and back, again and again, under writers that follow it, and accounts for every write.

    cutover.py --bridge PATH --source postgresql|sqlite --target postgresql|sqlite
               [--kills N] [--switches N] [--rate N] [--seed N]

--kills     bridge is killed (SIGKILL) that often at random moments of its verbs, or the `bridge run` beside it is, or both;
            what is left is taken up with `bridge cutover resume`.
--switches  that many switches of writes, each with its rollback, without kills; prints the pauses.

The writers know nothing of bridge but that a refused write is tried on the other side. Each remembers what was acknowledged:
rows that it inserted, and increments of a counter. At the end every acknowledged row is there once, every counter has the
number of acknowledged increments, and both sides hold the same. A prober tries both sides in turn all along: two successes
on one side around one on the other mean that both could be written. The databases are written and read with psql and
Python's sqlite3 module. Exit status 0 only if all of this holds.
"""
import json
import random
import signal
import statistics
import subprocess
import time

from application import Place, arguments, run_in_folder, verbs_of
from waiting import sleep_until, wait_for


def kills(place, options, chance):
    """Kills bridge again and again; returns what was killed where."""
    done = {}
    lengths = {}
    count = 0
    while count < options.kills:
        phase = place.verb("status")["phase"]
        verb = chance.choice(verbs_of(phase, chance))
        length = lengths.get(verb, 1.5)
        process = place.start("cutover", verb)
        began = time.monotonic()
        try:
            # Killed at any moment of the verb alike, wherever that is.
            out, err = process.communicate(timeout=chance.uniform(0, length * 1.1))
            # It was done before its moment came.
            lengths[verb] = max(0.1, 0.7 * length + 0.3 * (time.monotonic() - began))
            if process.returncode not in (0, 1, 75):
                raise SystemExit(f"{verb}: {process.returncode}\n{out}\n{err}")
            if process.returncode != 0:
                print(f"  {verb}: {process.returncode}: {(out + err).strip().splitlines()[-8:]}", flush=True)
                place.start_run()
                place.wait_until_running()
            if process.returncode == 1:
                # What was checked before writers moved opens no gate.
                place.call("check")
            continue
        except subprocess.TimeoutExpired:
            pass
        lengths[verb] = length * 1.05
        what = chance.choice(["verb", "verb", "verb", "both", "run"])
        if what != "run":
            process.send_signal(signal.SIGKILL)
        if what != "verb":
            place.runner.send_signal(signal.SIGKILL)
            place.runner.wait()
        killed = time.monotonic()
        process.communicate() if what != "run" else None
        count += 1
        done[f"{verb}, {what}"] = done.get(f"{verb}, {what}", 0) + 1
        if chance.random() < 0.5:
            # What is left is left alone: for some time in which a fence holds, or for so long that it ends by itself.
            sleep_until(killed + chance.uniform(0, 5))
        if what == "both" and chance.random() < 0.5:
            # Nobody keeps the links at work but the verb that takes it up.
            place.verb("resume", wanted=(0, 75))
        place.start_run()
        if what == "run":
            process.communicate()
        place.verb("resume")
        place.wait_until_running()
        if count % 20 == 0:
            print(f"  {count} kills", flush=True)
    return done


def wait_for_writes(writers, more):
    """Until each writer has had that many more writes acknowledged: the application has arrived, and is at work."""
    wanted = [len(writer.moments) + more for writer in writers]
    wait_for(lambda: all(len(writer.moments) >= count for writer, count in zip(writers, wanted)),
             lambda: f"the writers do not write: {[len(writer.moments) for writer in writers]}, wanted {wanted}")


def switches(place, options, writers):
    pauses = {"switch-writes": [], "rollback": []}
    for _ in range(options.switches):
        for verb in ("switch-writes", "rollback"):
            report = place.verb(verb)
            pauses[verb].append(report["pause_ms"])
            # What a second brings.
            wait_for_writes(writers, max(1, int(options.rate / options.writers)))
    return pauses


def main():
    parser = arguments(__doc__, rate=400)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--switches", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)

    def work(place, writers):
        if options.kills:
            print(json.dumps(kills(place, options, chance), indent=1))
        if options.switches:
            for verb, pauses in switches(place, options, writers).items():
                print(f"{verb}: {len(pauses)} pauses, median {statistics.median(pauses):.0f} ms, worst {max(pauses):.0f} ms")

    run_in_folder(options, Place, work)


if __name__ == "__main__":
    main()
