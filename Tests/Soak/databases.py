"""Real databases for the soak and the benchmarks, spoken to with tools that share no code with bridge."""
import hashlib
import json
import os
import shutil
import sqlite3
import struct
import subprocess


def run(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


class Cluster:
    """A PostgreSQL server of its own, on a Unix socket in a temporary folder."""

    def __init__(self, folder, name, settings=""):
        self.data = os.path.join(folder, name)
        self.socket = os.path.join(folder, name + "-s")
        os.mkdir(self.socket)
        folders = sorted(os.listdir("/usr/lib/postgresql"), key=int)
        self.bin = os.path.join("/usr/lib/postgresql", folders[-1], "bin")
        self.prefix = []
        if os.geteuid() == 0:
            self.prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
            for path in (folder, self.socket):
                shutil.chown(path, "postgres")
        self.tool("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\nwal_level = logical\n"
                "max_wal_senders = 20\nmax_replication_slots = 20\nmax_wal_size = 4GB\nshared_buffers = 256MB\n"
                + settings
            )
        self.tool("pg_ctl", "-D", self.data, "-l", os.path.join(self.data, "log"), "-w", "start")

    def tool(self, name, *arguments):
        run(self.prefix + [os.path.join(self.bin, name), *arguments], stdin=subprocess.DEVNULL, cwd="/")

    def url(self, database="postgres"):
        return f"postgresql://postgres@/{database}?host={self.socket}"

    def stop(self):
        self.tool("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


class PostgreSQL:
    """A database spoken to through psql."""

    kind = "postgresql"

    def __init__(self, folder, name):
        self.cluster = Cluster(folder, name)
        self.url = self.cluster.url()
        self.pipe = None

    def execute(self, sql):
        """Runs statements on one session, waiting for each piece to end."""
        if self.pipe is None:
            self.pipe = subprocess.Popen(
                ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pipe.stdin.write(sql + "\n\\echo done\n")
        self.pipe.stdin.flush()
        line = self.pipe.stdout.readline()
        while line and line != "done\n":
            line = self.pipe.stdout.readline()
        if not line:
            raise SystemExit("psql ended: " + sql[:200])

    def query(self, sql):
        return run(["psql", "-qXAt", self.url, "-c", sql], text=True).stdout.strip()

    def rows(self, table, columns):
        parts = []
        for column in columns:
            if column == "data":
                parts.append("encode(data, 'hex')")
            elif column == "price":
                parts.append("encode(float8send(price), 'hex')")
            else:
                parts.append(f"{column}::text")
        sql = f"SELECT json_build_array({', '.join(parts)}) FROM {table}"
        output = run(["psql", "-qXAt", self.url, "-c", sql], text=True).stdout
        return sorted(tuple(json.loads(line)) for line in output.splitlines())

    def blob(self, data):
        return f"'\\x{data.hex()}'"

    def replace(self, table, columns, values, keys):
        where = " OR ".join("(" + " AND ".join(f"{c} = {values[columns.index(c)]}" for c in key) + ")" for key in keys)
        return (f"DELETE FROM {table} WHERE {where}; "
                f"INSERT INTO {table}({', '.join(columns)}) VALUES ({', '.join(values)});")

    def many(self, first, count):
        return (f"INSERT INTO accounts SELECT g, 'bulk' || g, g % 1000, repeat('x', (g % 40)::int) "
                f"FROM generate_series({first}, {first + count - 1}) g;")

    def stop(self):
        if self.pipe:
            self.pipe.stdin.close()
            self.pipe.wait()
        self.cluster.stop()


class SQLite:
    """A database file spoken to through Python's sqlite3 module."""

    kind = "sqlite"

    def __init__(self, folder, name):
        self.path = os.path.join(folder, name + ".db")
        self.url = "sqlite:" + self.path
        self.connection = sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")

    def execute(self, sql):
        for statement in sql.split(";"):
            if statement.strip():
                self.connection.execute(statement)

    def rows(self, table, columns):
        def canonical(column, value):
            if value is None:
                return None
            if column == "data":
                return bytes(value).hex()
            if column == "price":
                return struct.pack(">d", value).hex()
            return str(value)

        reader = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        cursor = reader.execute(f"SELECT {', '.join(columns)} FROM {table}")
        return sorted(tuple(canonical(c, v) for c, v in zip(columns, row)) for row in cursor)

    def blob(self, data):
        return f"X'{data.hex()}'"

    def replace(self, table, columns, values, keys):
        return f"REPLACE INTO {table}({', '.join(columns)}) VALUES ({', '.join(values)});"

    def many(self, first, count):
        return (f"INSERT INTO accounts WITH RECURSIVE g(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM g "
                f"WHERE n < {first + count - 1}) SELECT n, 'bulk' || n, n % 1000, substr('{'x' * 40}', 1, n % 40) FROM g;")

    def stop(self):
        self.connection.close()


class Server:
    """A PostgreSQL server for tables that are compared whole, without loading them."""

    def __init__(self, folder, name, settings=""):
        self.cluster = Cluster(folder, name, settings)
        self.url = self.cluster.url()

    def psql(self, sql):
        return run(["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url, "-c", sql], text=True).stdout.strip()

    def digest(self, table, order, columns="*"):
        """How many rows, and a hash over all of them in order."""
        child = subprocess.Popen(
            ["psql", "-qXAt", self.url, "-c", f"COPY (SELECT {columns} FROM {table} ORDER BY {order}) TO STDOUT"],
            stdout=subprocess.PIPE, env=dict(os.environ, PGOPTIONS="-c extra_float_digits=3 -c timezone=UTC"))
        rows, digest = 0, hashlib.sha256()
        for line in child.stdout:
            rows += 1
            digest.update(line)
        child.wait()
        return rows, digest.hexdigest()


def position(text):
    """An LSN as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
