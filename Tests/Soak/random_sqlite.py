"""Processes that write to a SQLite file whatever makes capture hard: every conflict clause, cascades, triggers, odd keys."""
import multiprocessing
import random
import signal
import sqlite3
import time

# Generated columns last: a target of another engine has none.
TABLES = {
    "teams": ["id", "name", "lead"],
    "members": ["id", "email", "team", "mentor", "fallback", "rank", "note"],
    "words": ["word", "n", "code"],
    "slots": ["a", "b", "v", "data"],
    "parts": ["code", "price", "quantity", "label"],
    "audit": ["id", "what"],
    "ledger": ["id", "what"],
    "pulse": ["id", "n"],
}
GENERATED = {"parts": ["worth", "shout"]}
SCHEMA = """
    CREATE TABLE teams(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        lead INTEGER REFERENCES members(id) ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE members(id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE,
        team INTEGER REFERENCES teams(id) ON DELETE CASCADE ON UPDATE CASCADE,
        mentor INTEGER REFERENCES members(id) ON DELETE SET NULL ON UPDATE SET NULL,
        fallback INTEGER NOT NULL DEFAULT 0 REFERENCES teams(id) ON DELETE SET DEFAULT ON UPDATE SET DEFAULT,
        rank INTEGER, note TEXT);
    CREATE UNIQUE INDEX members_rank ON members(rank) WHERE rank > 100;
    CREATE UNIQUE INDEX members_lower ON members(lower(email), team);
    CREATE TABLE words(word TEXT PRIMARY KEY COLLATE NOCASE NOT NULL, n INTEGER, code INTEGER UNIQUE);
    CREATE TABLE slots(a INTEGER NOT NULL, b TEXT NOT NULL, v INTEGER NOT NULL DEFAULT 17 UNIQUE, data BLOB,
        PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE parts(code TEXT PRIMARY KEY NOT NULL, price REAL, quantity INTEGER NOT NULL DEFAULT 7, label TEXT,
        worth INTEGER AS (quantity * 10) STORED, shout TEXT AS (upper(label)) VIRTUAL);
    CREATE UNIQUE INDEX parts_shout ON parts(shout, quantity) WHERE quantity > 40;
    CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL);
    CREATE TABLE ledger(id INTEGER PRIMARY KEY, what TEXT NOT NULL);
    CREATE TABLE pulse(id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TRIGGER members_noted AFTER INSERT ON members BEGIN INSERT INTO audit(what) VALUES('member ' || NEW.id); END;
    CREATE TRIGGER members_lead AFTER UPDATE OF rank ON members WHEN NEW.rank % 5 = 0
        BEGIN UPDATE teams SET lead = NEW.id WHERE id = NEW.team; END;
    CREATE TRIGGER words_kept BEFORE DELETE ON words WHEN OLD.n % 11 = 0 BEGIN SELECT RAISE(IGNORE); END;
    CREATE TRIGGER words_gone AFTER DELETE ON words BEGIN INSERT INTO audit(what) VALUES('gone ' || OLD.word); END;
    CREATE TRIGGER slots_refused BEFORE INSERT ON slots WHEN NEW.v % 13 = 0 BEGIN SELECT RAISE(FAIL, 'thirteen'); END;
    CREATE TRIGGER slots_parts AFTER UPDATE ON slots
        BEGIN UPDATE OR IGNORE parts SET quantity = quantity + 1, price = NEW.v / 3.0 WHERE code = 'p' || (NEW.v % 90); END;
    CREATE TRIGGER parts_undone AFTER INSERT ON parts WHEN NEW.quantity = 3 BEGIN SELECT RAISE(ROLLBACK, 'three'); END;
    INSERT INTO teams(id, name) VALUES(0, 'nobody');
    INSERT INTO pulse VALUES(1, 0);
"""
CLAUSES = ["", "", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT", " OR ROLLBACK"]


class Statements:
    """Random statements over the tables."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self, most=12):
        return "'" + "".join(self.random.choice("abcXYZ ,\"\\äß€\t") for _ in range(self.random.randrange(most))) + "'"

    def clause(self):
        return self.random.choice(CLAUSES)

    def next(self):
        r = self.random
        if r.random() < 0.002:
            return f"DELETE FROM {r.choice(['members', 'words', 'slots', 'parts', 'audit'])}"
        return r.choice([self.team, self.member, self.member, self.member, self.word, self.word, self.slot, self.slot, self.part,
                         self.part, self.log])()

    def team(self):
        r = self.random
        a, b = r.randrange(1, 40), r.randrange(60)
        return r.choice([
            lambda: f"INSERT{self.clause()} INTO teams(id, name) VALUES({a}, 't{b}'), ({a + 1}, 't{b + 1}')",
            lambda: f"REPLACE INTO teams(id, name, lead) VALUES({a}, 't{b}', (SELECT max(id) FROM members WHERE id < {b * 5}))",
            lambda: f"UPDATE{self.clause()} teams SET id = id + {r.choice([1, 7, 40])} WHERE id = {a}",
            lambda: f"DELETE FROM teams WHERE id = {a}",
            lambda: f"INSERT INTO teams(name) VALUES('t{b}') ON CONFLICT(name) DO UPDATE SET lead = NULL",
        ])()

    def member(self):
        r = self.random
        key, x, y = r.randrange(300), r.randrange(400), r.randrange(300)
        team = r.choice(["NULL", "0", str(r.randrange(1, 41)), f"(SELECT id FROM teams ORDER BY abs(id - {x % 40}) LIMIT 1)"])
        mentor = r.choice(["NULL", "(SELECT max(id) FROM members)", str(y)])
        row = lambda id, n: f"({id}, 'M{n}', {team}, {mentor}, {r.choice(['0', '0', team])}, {y}, {self.text(40)})"
        columns = "members(id, email, team, mentor, fallback, rank, note)"
        return r.choice([
            lambda: f"INSERT{self.clause()} INTO {columns} VALUES {row(key, x)}",
            lambda: f"INSERT{self.clause()} INTO {columns} VALUES {row(key, x)}, {row('NULL', y)}, {row(key + 1, x)}",
            lambda: f"INSERT{self.clause()} INTO members(email, rank) VALUES('m{x}', {y}) RETURNING id",
            lambda: f"INSERT INTO {columns} VALUES {row(key, x)} ON CONFLICT(email) DO UPDATE SET rank = excluded.rank, id = excluded.id",
            lambda: f"INSERT INTO {columns} VALUES {row(key, x)} ON CONFLICT(id) DO UPDATE SET email = excluded.email "
                    "WHERE excluded.rank > rank ON CONFLICT DO NOTHING",
            lambda: f"UPDATE{self.clause()} members SET id = {y} WHERE id = {key}",
            lambda: f"UPDATE{self.clause()} members SET email = 'm{x}', rank = {y} WHERE id IN ({key}, {y})",
            lambda: f"UPDATE{self.clause()} members SET rank = rank + 1 WHERE rank BETWEEN {y} AND {y + 30}",
            lambda: f"UPDATE{self.clause()} members SET email = upper(email), fallback = NULL WHERE id BETWEEN {key} AND {key + 4}",
            # Two rows change places, by way of a key that is free.
            lambda: f"UPDATE members SET id = CASE id WHEN {key} THEN -1 - {key} ELSE {key} END WHERE id IN ({key}, {y})",
            lambda: f"UPDATE members SET note = words.word FROM words WHERE words.n = members.rank AND members.id > {key}",
            lambda: f"DELETE FROM members WHERE id = {key} OR rank = {y}",
            lambda: f"DELETE FROM members WHERE id > 300 OR id < 0",
            lambda: f"INSERT{self.clause()} INTO members(id, email, team) SELECT id + 1, email || 'x', team FROM members "
                    f"WHERE id BETWEEN {key} AND {key + 3}",
        ])()

    def word(self):
        r = self.random
        word = r.choice(["w", "W"]) + str(r.randrange(150)) + r.choice(["a", "A", "b"])
        n, code = r.randrange(300), r.choice(["NULL", str(r.randrange(200))])
        return r.choice([
            lambda: f"INSERT{self.clause()} INTO words VALUES('{word}', {n}, {code})",
            lambda: f"INSERT{self.clause()} INTO words(rowid, word, n, code) VALUES({n}, '{word}', {n}, {code})",
            lambda: f"INSERT INTO words VALUES('{word}', {n}, {code}) ON CONFLICT(word) DO UPDATE SET n = n + 1, word = excluded.word "
                    "ON CONFLICT(code) DO UPDATE SET word = excluded.word",
            lambda: f"UPDATE{self.clause()} words SET rowid = {n} WHERE word = '{word}'",
            lambda: f"UPDATE{self.clause()} words SET word = upper(word) WHERE n BETWEEN {n} AND {n + 20}",
            lambda: f"UPDATE{self.clause()} words SET code = {code}, word = '{word}' WHERE n = {n}",
            lambda: f"DELETE FROM words WHERE word < '{word}' AND n % 7 = {n % 7}",
        ])()

    def slot(self):
        r = self.random
        a, b, v = r.randrange(30), r.choice("xyzXYZ"), r.randrange(250)
        data = r.choice(["NULL", f"X'{r.randbytes(r.randrange(60)).hex()}'"])
        return r.choice([
            lambda: f"INSERT{self.clause()} INTO slots VALUES({a}, '{b}', {v}, {data}), ({a + 1}, '{b}', {v + 1}, NULL)",
            lambda: f"INSERT OR REPLACE INTO slots VALUES({a}, '{b}', NULL, {data})",
            lambda: f"INSERT INTO slots VALUES({a}, '{b}', {v}, {data}) ON CONFLICT(a, b) DO UPDATE SET v = excluded.v, b = lower(b)",
            lambda: f"UPDATE{self.clause()} slots SET v = v + 1, data = {data} WHERE v BETWEEN {v} AND {v + 5}",
            lambda: f"UPDATE{self.clause()} slots SET a = a + 1 WHERE a = {a}",
            lambda: f"UPDATE{self.clause()} slots SET v = NULL WHERE a = {a}",
            lambda: f"DELETE FROM slots WHERE a = {a} AND b >= '{b}'",
        ])()

    def part(self):
        r = self.random
        code, quantity, label = f"'p{r.randrange(120)}'", r.randrange(60), r.randrange(40)
        price = repr(r.choice([r.uniform(-1e9, 1e9), r.random() * 10 ** r.randrange(-300, 300), 0.1, 5e-324, 3.0]))
        return r.choice([
            lambda: f"INSERT{self.clause()} INTO parts(code, price, quantity, label) VALUES({code}, {price}, {quantity}, 'L{label}')",
            lambda: f"INSERT{self.clause()} INTO parts(code, price, label) VALUES({code}, {price}, 'l{label}') RETURNING worth",
            lambda: f"UPDATE{self.clause()} parts SET quantity = quantity + 1, label = 'l{label}' WHERE quantity > {quantity}",
            lambda: f"UPDATE{self.clause()} parts SET rowid = rowid + 1 WHERE code < {code}",
            lambda: f"UPDATE{self.clause()} parts SET code = {code} WHERE shout = 'L{label}'",
            lambda: f"DELETE FROM parts WHERE code = {code} OR quantity = {quantity}",
        ])()

    def log(self):
        r = self.random
        return r.choice([
            lambda: f"INSERT INTO audit(what) VALUES({self.text()}), ({self.text()})",
            lambda: f"INSERT INTO audit(what) SELECT what || '+' FROM audit ORDER BY id DESC LIMIT {r.randrange(40)}",
            lambda: f"UPDATE ledger SET what = {self.text()} WHERE id % 9973 = {r.randrange(9973)}",
            lambda: f"INSERT{self.clause()} INTO ledger(id, what) VALUES({r.randrange(10**6)}, {self.text()}), (NULL, 'next')",
            lambda: f"DELETE FROM ledger WHERE id = (SELECT id FROM ledger WHERE id > {r.randrange(10**5)} ORDER BY id LIMIT 1)",
            lambda: f"DELETE FROM audit WHERE id % 3 = {r.randrange(3)} AND id < (SELECT max(id) - 2000 FROM audit)",
        ])()


class Session:
    """One connection of the application."""

    def __init__(self, path, seed, other=None):
        self.statements = Statements(seed)
        self.random = self.statements.random
        self.connection = sqlite3.connect(other or path, isolation_level=None, timeout=60)
        self.has_other = other is not None
        if other:
            self.connection.execute("CREATE TABLE IF NOT EXISTS seen(n INTEGER)")
            self.connection.execute(f"ATTACH '{path}' AS shop")
        self.changes = self.refused = self.locked = self.vacuums = 0

    def settings(self):
        r = self.random
        self.connection.execute(f"PRAGMA foreign_keys = {r.choice(['ON', 'ON', 'OFF'])}")
        self.connection.execute(f"PRAGMA recursive_triggers = {r.choice(['ON', 'OFF'])}")
        self.connection.execute(f"PRAGMA synchronous = {r.choice(['NORMAL', 'FULL'])}")

    def run(self, sql):
        """Whether the statement was carried out."""
        try:
            self.connection.execute(sql).fetchall()
            self.changes += 1
            return True
        except sqlite3.IntegrityError:
            self.refused += 1
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                self.locked += 1
            else:
                raise
        return False

    def schema_change(self):
        """What an application does to its own schema without touching a captured column."""
        if self.random.random() < 0.3:
            self.vacuums += self.run("VACUUM shop" if self.has_other else "VACUUM")
            return
        place = "shop." if self.has_other else ""
        self.run(f"DROP TRIGGER IF EXISTS {place}parts_newer")
        self.run(f"CREATE TRIGGER IF NOT EXISTS {place}parts_newer AFTER UPDATE ON parts WHEN NEW.quantity % 2 = 0 "
                 "BEGIN INSERT INTO audit(what) VALUES('even ' || NEW.code); END")

    def transaction(self):
        r = self.random
        if r.random() < 0.02:
            self.settings()
        if r.random() < 0.002:
            return self.schema_change()
        if r.random() < 0.2:
            self.run(self.statements.next())
            return
        if not self.run(r.choice(["BEGIN", "BEGIN IMMEDIATE", "BEGIN IMMEDIATE"])):
            return
        for number in range(100 if r.random() < 0.02 else r.choice([1, 2, 4, 8])):
            if not self.connection.in_transaction:
                return
            undone = r.random() < 0.15
            if undone:
                self.run(f"SAVEPOINT s{number}")
            self.run(self.statements.next())
            if undone and self.connection.in_transaction:
                self.run(f"ROLLBACK TO s{number}")
                if r.random() < 0.5:
                    self.run(self.statements.next())
                if self.connection.in_transaction:
                    self.run(f"RELEASE s{number}")
        if self.has_other and self.connection.in_transaction:
            self.run(f"INSERT INTO main.seen VALUES({r.randrange(1000)})")
        # A deferred foreign key may refuse the commit.
        if self.connection.in_transaction and (r.random() < 0.05 or not self.run("COMMIT")):
            self.run("ROLLBACK")


def work(path, seed, pause, other, stopping, counts):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session = Session(path, seed, other)
    session.settings()
    while not stopping.is_set():
        session.transaction()
        with counts.get_lock():
            counts[0] += 1
            counts[1], counts[2], counts[3], counts[4] = session.changes, session.refused, session.locked, session.vacuums
        time.sleep(pause)
    session.connection.close()


class WriterProcess:
    """One process of the application, which writes until it is told to stop."""

    def __init__(self, path, seed, pause, other=None):
        context = multiprocessing.get_context("fork")
        self.stopping = context.Event()
        self.counts = context.Array("q", 5)
        self.process = context.Process(target=work, args=(path, seed, pause, other, self.stopping, self.counts), daemon=True)

    def start(self):
        self.process.start()

    def stop(self):
        self.stopping.set()
        self.process.join()
        return self.process.exitcode == 0

    transactions = property(lambda self: self.counts[0])
    changes = property(lambda self: self.counts[1])
    refused = property(lambda self: self.counts[2])
    locked = property(lambda self: self.counts[3])
    vacuums = property(lambda self: self.counts[4])
