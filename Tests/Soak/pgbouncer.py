#!/usr/bin/env python3
"""Switches writes over and back under clients that know only a PgBouncer, with the hooks of the repository.

    pgbouncer.py --bridge PATH [--switches N] [--clients N] [--rate N]

Two PostgreSQL clusters and a PgBouncer (the program must be installed) are made in a temporary folder. Each client runs
transactions one after the other, at most --rate a second; not one may fail, and each that was acknowledged is there once at the end. Prints the
pauses and the longest transaction. Exit status 0 only if all of this holds.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from application import Place
from waiting import Pace, wait_for

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "connectors", "postgresql", "hooks", "pgbouncer.sh")


class Bouncer:
    """A PgBouncer in front of the application's database, on a socket of its own."""

    def __init__(self, folder, source, target):
        self.folder = os.path.join(folder, "bouncer")
        os.mkdir(self.folder)
        self.places = {"PGBOUNCER_SOURCE": source, "PGBOUNCER_TARGET": target}
        self.write("databases.ini", f"[databases]\nshop = {source}\n")
        self.write("users.txt", '"postgres" ""\n')
        self.write("pgbouncer.ini", f"""%include {self.folder}/databases.ini
[pgbouncer]
listen_addr =
unix_socket_dir = {self.folder}
listen_port = 6432
auth_type = trust
auth_file = {self.folder}/users.txt
admin_users = postgres
pool_mode = transaction
default_pool_size = 20
logfile = {self.folder}/log
pidfile = {self.folder}/pid
""")
        account = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            for name in os.listdir(self.folder):
                shutil.chown(os.path.join(self.folder, name), "postgres")
            account = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        self.process = subprocess.Popen(
            [*account, "pgbouncer", os.path.join(self.folder, "pgbouncer.ini")], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: self.answers("SELECT 1"), self.why, limit=20)
        except SystemExit:
            self.stop()
            raise

    def why(self):
        try:
            with open(os.path.join(self.folder, "log")) as file:
                return "PgBouncer does not answer: " + "".join(file.readlines()[-5:])
        except OSError as error:
            return f"PgBouncer does not answer, and wrote no log: {error}"

    def answers(self, sql):
        return subprocess.run(["psql", "-qXAt", self.url("shop"), "-c", sql], capture_output=True).returncode == 0

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def url(self, database):
        return f"host={self.folder} port=6432 user=postgres dbname={database}"

    def hooks(self, folder):
        """The script with its settings beside it, as an operator would put them."""
        place = os.path.join(folder, "hooks")
        os.mkdir(place)
        shutil.copy(HOOK, os.path.join(place, "pgbouncer.sh"))
        settings = {"PGBOUNCER_ADMIN": self.url("pgbouncer"), "PGBOUNCER_FILE": os.path.join(self.folder, "databases.ini"),
                    "PGBOUNCER_DATABASE": "shop", **self.places}
        with open(os.path.join(place, "pgbouncer.env"), "w") as file:
            for name, value in settings.items():
                file.write(f"{name}='{value}'\n")
        return os.path.join(place, "pgbouncer.sh")

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Client(threading.Thread):
    """Runs transactions one after the other, at most `rate` a second, until it is over or one fails."""

    def __init__(self, number, url, rate):
        super().__init__(daemon=True)
        self.number, self.url = number, url
        self.rate = rate
        self.done, self.worst, self.error, self.over = 0, 0.0, None, threading.Event()

    def run(self):
        psql = subprocess.Popen(
            ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1)
        key = self.number
        pace = Pace(1 / self.rate if self.rate else 0)
        while not self.over.is_set():
            pace.wait(self.over)
            key += 100
            began = time.monotonic()
            psql.stdin.write(f"BEGIN; INSERT INTO entries VALUES ({key}, {self.number}, 'x');"
                             f" UPDATE counters SET n = n + 1 WHERE id = {self.number}; COMMIT;\n\\echo ok\n")
            psql.stdin.flush()
            if psql.stdout.readline().strip() != "ok":
                self.error = psql.stderr.read().strip()
                return
            self.worst = max(self.worst, time.monotonic() - began)
            self.done += 1
        psql.stdin.close()
        psql.wait()


def wait_for_transactions(clients, more):
    """Until each client has done that many more, where the application is now; or one has failed."""
    wanted = [client.done + more for client in clients]
    wait_for(lambda: any(client.error for client in clients)
             or all(client.done >= count for client, count in zip(clients, wanted)),
             lambda: f"the clients are held up: {[client.done for client in clients]}, wanted {wanted}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--switches", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0, help="of each client; 0 is as fast as it can")
    options = parser.parse_args()
    options.bridge = os.path.abspath(options.bridge)
    options.source = options.target = "postgresql"
    options.writers, options.max_pause = options.clients, "5s"
    folder = tempfile.mkdtemp(prefix="cutover-pgbouncer-")
    os.chmod(folder, 0o755)
    place = Place(options, folder)
    bouncer = None
    try:
        addresses = [f"host={side.cluster.socket} dbname=postgres user=postgres" for side in (place.source, place.target)]
        bouncer = Bouncer(folder, *addresses)
        script = bouncer.hooks(folder)
        path = os.path.join(folder, "bridge.yaml")
        with open(path) as file:
            text = file.read()
        hooks = ", ".join(f'{moment}_clients: "{script} {moment}"' for moment in ("pause", "resume", "restore"))
        with open(path, "w") as file:
            file.write(text.replace("timeout: 30s }", f"timeout: 30s, hooks: {{ {hooks} }} }}"))
        place.begin()
        place.verb("switch-reads")
        clients = [Client(n + 1, bouncer.url("shop"), options.rate) for n in range(options.clients)]
        for client in clients:
            client.start()
        pauses = {"switch-writes": [], "rehearse": [], "rollback": []}
        for _ in range(options.switches):
            for verb in ("rehearse", "switch-writes", "rollback"):
                pauses[verb].append(place.verb(verb)["pause_ms"])
                wait_for_transactions(clients, 100)
        for client in clients:
            client.over.set()
        for client in clients:
            client.join()
        for verb, values in pauses.items():
            print(f"{verb}: {len(values)} pauses, median {statistics.median(values):.0f} ms, worst {max(values):.0f} ms")
        errors = [client.error for client in clients if client.error]
        done = sum(client.done for client in clients)
        counters = {int(key): int(n) for key, n in place.source.rows("counters", ["id", "n"])}
        rows = len(place.source.rows("entries", ["id"]))
        print(f"{done} transactions through PgBouncer, {len(errors)} errors, the longest took "
              f"{max(client.worst for client in clients) * 1000:.0f} ms; {rows} rows, {sum(counters.values())} increments found")
        for error in errors:
            print(error)
        is_right = not errors and rows == done and all(counters[c.number] == c.done for c in clients)
        print("every acknowledged transaction is there once" if is_right else "WRONG")
        sys.exit(0 if is_right else 1)
    finally:
        if bouncer:
            bouncer.stop()
        place.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
