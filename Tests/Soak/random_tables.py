"""Random transactions on tables that make life hard: several unique constraints, deferred ones, swaps, chains, cycles."""
import random
import subprocess
import threading

TABLES = {
    "members": "id, email, rank, team, slot, extract(epoch FROM seen), md5(note), length(note)",
    "pairs": "a, b, v, w",
    "whole": "a, b, c::text, d::text",
    "log": "id, what",
}
SCHEMA = """
    CREATE TABLE members(id bigint PRIMARY KEY, email text NOT NULL UNIQUE, rank int, team int, slot int, seen timestamptz,
        note text, UNIQUE (rank) DEFERRABLE INITIALLY DEFERRED, UNIQUE (team, slot));
    CREATE UNIQUE INDEX members_lower ON members (lower(email), team);
    ALTER TABLE members ALTER note SET STORAGE EXTERNAL;
    CREATE TABLE pairs(a int, b text, v numeric, w int, PRIMARY KEY (a, b), UNIQUE (v) DEFERRABLE);
    CREATE UNIQUE INDEX pairs_w ON pairs (w) WHERE w > 50;
    CREATE TABLE whole(a int, b text, c json, d point);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE log(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
"""


class RandomWriter(threading.Thread):
    """One session that writes until told to stop. What the server refuses is rolled back, and counts as nothing."""

    def __init__(self, url, seed, pause=0.0):
        super().__init__()
        self.url = url
        self.random = random.Random(seed)
        self.pause = pause
        self.transactions = 0
        self.stopping = threading.Event()

    def text(self, most=12):
        return "'" + "".join(self.random.choice("abcXYZ ,\"\\äß€\t") for _ in range(self.random.randrange(most))).replace("'", "") + "'"

    def member(self):
        r = self.random
        key, x, y = r.randrange(400), r.randrange(600), r.randrange(600)
        seconds = r.randrange(-10**9, 10**10)
        return r.choice([
            lambda: f"INSERT INTO members VALUES ({key}, 'm{x}', {y}, {x % 7}, {y}, to_timestamp({seconds}), "
                    f"{self.note()}) ON CONFLICT DO NOTHING",
            lambda: f"INSERT INTO members VALUES ({key}, 'm{x}', {y}, {x % 7}, {y}, now(), {self.note()})",
            lambda: f"UPDATE members SET seen = now(), slot = {x} WHERE id = {key}",
            lambda: f"UPDATE members SET note = {self.note()} WHERE id BETWEEN {key} AND {key + 5}",
            # A swap and chains of deferred unique values.
            lambda: f"UPDATE members SET rank = CASE rank WHEN {x} THEN {y} ELSE {x} END WHERE rank IN ({x}, {y})",
            lambda: f"UPDATE members SET rank = rank + 1 WHERE rank BETWEEN {x} AND {x + 20}",
            # A cycle of keys, by way of one that is free.
            lambda: f"UPDATE members SET id = -{key} - 1 WHERE id = {key}; UPDATE members SET id = {key} WHERE id = {key + 1}; "
                    f"UPDATE members SET id = {key + 1} WHERE id = -{key} - 1",
            lambda: f"UPDATE members SET id = id + 100000 WHERE id = {key}",
            lambda: f"UPDATE members SET email = email || 'x', team = team + 1 WHERE team = {x % 7} AND id < {key}",
            lambda: f"DELETE FROM members WHERE id > {10**5 - 1} OR id = {key}",
            # One value leaves a row and is taken by another, both immediate.
            lambda: f"DELETE FROM members WHERE email = 'm{x}'; "
                    f"INSERT INTO members VALUES ({key + 400}, 'm{x}', NULL, {x % 7}, {y}, now(), {self.note()})",
        ])()

    def note(self):
        size = self.random.choice([0, 1, 40, 100, 3000])
        return f"repeat(md5('{self.random.random()}'), {size})" if size else "NULL"

    def other(self):
        r = self.random
        a, v = r.randrange(60), r.randrange(100)
        return r.choice([
            lambda: f"INSERT INTO pairs VALUES ({a}, {self.text(3)}, {v}.{r.randrange(100)}, {v}) ON CONFLICT (a, b) DO UPDATE SET w = {v}",
            lambda: f"UPDATE pairs SET v = -v WHERE a = {a}",
            lambda: f"UPDATE pairs SET a = a + 1 WHERE a > {a}",
            lambda: f"DELETE FROM pairs WHERE a = {a}",
            lambda: f"INSERT INTO whole SELECT {a}, NULL, '{{\"k\":  {v}}}', point({v}, 0.1) FROM generate_series(1, {1 + v % 3})",
            lambda: f"UPDATE whole SET b = {self.text()} WHERE ctid IN (SELECT ctid FROM whole WHERE a = {a} LIMIT 1)",
            lambda: f"DELETE FROM whole WHERE ctid IN (SELECT ctid FROM whole WHERE a = {a} LIMIT 2)",
            lambda: f"INSERT INTO log(what) SELECT {self.text()} FROM generate_series(1, {r.randrange(4)})",
            lambda: f"UPDATE log SET what = {self.text()} WHERE id % 97 = {v}",
        ])()

    def transaction(self):
        r = self.random
        if r.random() < 0.003:
            return "TRUNCATE " + r.choice(["pairs", "whole", "pairs, whole", "log RESTART IDENTITY"])
        if r.random() < 0.01:
            # Large enough to be streamed where the server is set so, with parts that are rolled back.
            first = r.randrange(10**9)
            return (f"INSERT INTO log(what) SELECT repeat('y', 100) || g FROM generate_series({first}, {first + 3000}) g; SAVEPOINT s; "
                    f"UPDATE log SET what = 'gone' WHERE id % 3 = 0; ROLLBACK TO s; SAVEPOINT t; DELETE FROM log WHERE id % 5 < 4; "
                    + ("ROLLBACK TO t; DELETE FROM log WHERE length(what) > 100" if r.random() < 0.7 else "RELEASE t"))
        parts = []
        for number in range(r.choice([1, 1, 2, 3, 6])):
            statement = self.member() if r.random() < 0.6 else self.other()
            if r.random() < 0.15:
                statement = f"SAVEPOINT s{number}; {statement}; ROLLBACK TO SAVEPOINT s{number}"
            parts.append(statement)
        return "; ".join(parts)

    def run(self):
        psql = subprocess.Popen(["psql", "-qXAt", self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
        while not self.stopping.wait(self.pause):
            end = "ROLLBACK" if self.random.random() < 0.05 else "COMMIT"
            psql.stdin.write(f"BEGIN; {self.transaction()}; {end};\n\\echo done\n")
            psql.stdin.flush()
            while (line := psql.stdout.readline()) not in ("done\n", ""):
                pass
            if not line:
                return
            self.transactions += 1
        psql.stdin.close()
        psql.wait()
