#!/usr/bin/env python3
"""Switches an application over and back while the world around bridge breaks, and accounts for every write.

    outages.py --bridge PATH --source postgresql|sqlite --target postgresql|sqlite [--outages N] [--seed N]

At a random moment of a verb one of these happens, for a random while:

restart     the source's or the target's server is stopped as in a crash and started again (PostgreSQL)
cut         bridge's connections to one side are reset, and none is accepted (PostgreSQL)
silence     nothing passes on bridge's connections to one side, which stay open (PostgreSQL)
full        bridge's disk is full
full-side   the disk of the source or the target is full (SQLite)

and sometimes bridge is killed in the middle of it. Afterwards `bridge cutover resume` must take up what is left. The
application keeps its own connections: only a restarted server, or the full disk of a side, is felt by it. What is accounted
for is what cutover.py accounts for. Disks are small tmpfs, which only root may mount. Exit status 0 only if all holds.
"""
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time

import application
from application import arguments, run_in_folder, verbs_of
from databases import SQLite, run
from waiting import sleep_until


class Proxy:
    """Stands between bridge and a server's Unix socket."""

    def __init__(self, folder, name, server):
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        self.server = os.path.join(server, ".s.PGSQL.5432")
        self.path = os.path.join(self.folder, ".s.PGSQL.5432")
        self.passes = threading.Event()
        self.passes.set()
        self.pairs = set()
        self.lock = threading.Lock()
        self.listener = None
        self.open()

    def open(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o777)
        self.listener.listen(64)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
            except OSError:
                return
            try:
                far.connect(self.server)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.add((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.forward, args=(one, other, (near, far)), daemon=True).start()

    def forward(self, one, other, pair):
        try:
            while data := one.recv(1 << 16):
                self.passes.wait()
                other.sendall(data)
        except OSError:
            pass
        with self.lock:
            self.pairs.discard(pair)
        for each in pair:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            for each in pair:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class SmallDisk:
    """A file system of its own, which can be filled and emptied."""

    def __init__(self, folder, size):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", folder])
        self.ballast = os.path.join(folder, "ballast")

    def fill(self):
        with open(self.ballast, "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass

    def empty(self):
        os.unlink(self.ballast)

    def remove(self):
        subprocess.run(["umount", "-l", self.folder], check=False)


class Place(application.Place):
    """With a proxy in front of each server, and a small disk for each file and for bridge's own."""

    def __init__(self, options, folder):
        self.disks = {"bridge": SmallDisk(os.path.join(folder, "bridge-data"), "256m")}
        self.proxies = {}
        super().__init__(options, folder)
        path = os.path.join(folder, "bridge.yaml")
        with open(path) as file:
            text = file.read()
        for side, database in (("source", self.source), ("target", self.target)):
            if database.kind == "postgresql":
                self.proxies[side] = Proxy(folder, side + "-p", database.cluster.socket)
                text = text.replace(database.url, database.url.replace(database.cluster.socket, self.proxies[side].folder))
        with open(path, "w") as file:
            file.write(text + "data_dir: ./bridge-data\n")

    def make(self, kind, side):
        if kind == "postgresql":
            return super().make(kind, side)
        self.disks[side] = SmallDisk(os.path.join(self.folder, side + "-disk"), "256m")
        return SQLite(self.disks[side].folder, side)

    def stop(self):
        super().stop()
        for disk in self.disks.values():
            disk.remove()


class Outage:
    """Something that breaks, and is mended again."""

    def __init__(self, place, chance):
        kinds = ["full"]
        for side in ("source", "target"):
            database = getattr(place, side)
            kinds += [f"{kind} {side}" for kind in (("restart", "cut", "silence") if database.kind == "postgresql" else ("full-side",))]
        self.name = chance.choice(kinds)
        self.kind, _, self.side = self.name.partition(" ")
        self.place = place

    def begin(self):
        proxy, database = self.place.proxies.get(self.side), getattr(self.place, self.side or "source")
        if self.kind == "restart":
            database.cluster.stop()
        elif self.kind == "cut":
            proxy.cut()
        elif self.kind == "silence":
            proxy.passes.clear()
        else:
            self.place.disks[self.side or "bridge"].fill()

    def end(self):
        proxy, database = self.place.proxies.get(self.side), getattr(self.place, self.side or "source")
        if self.kind == "restart":
            cluster = database.cluster
            cluster.tool("pg_ctl", "-D", cluster.data, "-l", os.path.join(cluster.data, "log"), "-w", "start")
        elif self.kind == "cut":
            proxy.open()
        elif self.kind == "silence":
            proxy.passes.set()
        else:
            self.place.disks[self.side or "bridge"].empty()


def mend(place):
    """Takes up what is left until nothing is: a verb may be told to come back later, as may its operator."""
    last = None
    for _ in range(20):
        place.start_run()
        process = place.start("cutover", "resume", "--json")
        out, err = process.communicate()
        if process.returncode == 0:
            place.wait_until_running()
            return
        last = (process.returncode, out, err)
        if process.returncode not in (69, 74, 75):
            break
    raise SystemExit(f"resume: {last[0]}\n{last[1]}\n{last[2]}")


def outages(place, options, chance):
    done = {}
    lengths = {}
    for count in range(options.outages):
        phase = place.verb("status")["phase"]
        verb = chance.choice(verbs_of(phase, chance))
        length = lengths.get(verb, 1.5)
        outage = Outage(place, chance)
        began = time.monotonic()
        process = place.start("cutover", verb, "--json")
        # What is random here: when it breaks, for how long, and whether bridge is killed meanwhile.
        breaks = began + chance.uniform(0, length)
        sleep_until(breaks)
        in_time = process.poll() is None
        outage.begin()
        sleep_until(breaks + chance.uniform(0.2, 6))
        killed = chance.random() < 0.3
        if killed and process.poll() is None:
            process.send_signal(signal.SIGKILL)
        outage.end()
        out, err = process.communicate()
        if process.returncode == 0:
            lengths[verb] = max(0.2, 0.7 * length + 0.3 * min(length * 2, time.monotonic() - began))
        if process.returncode not in (0, 1, 69, 74, 75, -9):
            raise SystemExit(f"{verb} in {outage.name}: {process.returncode}\n{out}\n{err}")
        name = f"{outage.name}, {verb}" + ("" if in_time else " (it had ended)")
        result = {0: "done", -9: "killed"}.get(process.returncode, "went back or told to come again")
        done.setdefault(name, {}).setdefault(result, 0)
        done[name][result] += 1
        mend(place)
        if process.returncode == 1:
            # What was checked before writers moved opens no gate.
            place.call("check")
        if (count + 1) % 10 == 0:
            print(f"  {count + 1} outages", flush=True)
    return done


def main():
    parser = arguments(__doc__, rate=200)
    parser.add_argument("--outages", type=int, default=20)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    run_in_folder(options, Place, lambda place, writers: print(json.dumps(outages(place, options, chance), indent=1)))


if __name__ == "__main__":
    main()
