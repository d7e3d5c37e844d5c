#!/usr/bin/env python3
"""A public SQLite database as it is, to PostgreSQL and back into a fresh SQLite file, compared cell by cell.

    public_database.py --bridge PATH DATABASE [--keep] [--schema own|apply]

DATABASE is copied first and never written to. The tables are made in PostgreSQL by `bridge schema apply`, filled by
`bridge run --until-caught-up`, and checked in full by `bridge check`. A second migration then takes them from PostgreSQL
into a new file, whose tables are the application's own (`--schema own`, the default: the words of sqlite_master, which is
what an application would find after a way back), or those that `bridge schema apply` plans (`--schema apply`: types as
PostgreSQL has them, so only values are the same, not always classes). Then a full check again.

Rows must be consistent in both checks. A CHECK of the application that PostgreSQL could not be given fails the second one's
`constraints`, which is told and let pass.

First and last file are read by Python's sqlite3 alone: typeof and quote of every cell of every table, by key, and, with
the application's own schema, the `.dump` of the sqlite3 program where there is one. Exit status 0 only if nothing differs
and both checks found all rows consistent.

Databases that are made for this kind of use, none of which is kept here:
  Chinook    https://github.com/lerocha/chinook-database, ChinookDatabase/DataSources/Chinook_Sqlite.sqlite
  Northwind  https://github.com/jpwhite3/northwind-SQLite3, dist/northwind.db, or src/create.sql into the sqlite3 program
"""
import argparse
import difflib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

from databases import Server

TABLES = ("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
          "AND name NOT LIKE '\\_bridge%' ESCAPE '\\' ORDER BY rowid")


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def opened(path):
    connection = sqlite3.connect(path)
    # Text is compared by its bytes, valid or not.
    connection.text_factory = bytes
    return connection


def tables(connection):
    return [(name.decode(), sql.decode()) for name, sql in connection.execute(TABLES)]


def columns(connection, table):
    """Those of the first file, by name: the last may have them in another order."""
    return [(row[1].decode(), row[5]) for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]


def cells(connection, table, names, key):
    parts = ", ".join(f"typeof({quoted(name)}), quote({quoted(name)})" for name in names)
    order = ", ".join(quoted(name) for name in key)
    return connection.execute(f"SELECT {parts} FROM {quoted(table)} ORDER BY {order}")


def compare(first, last):
    """How many rows and cells there are, and how many differ."""
    rows = count = different = 0
    for table, _ in tables(first):
        found = columns(first, table)
        names = [name for name, _ in found]
        key = [name for name, place in sorted(found, key=lambda column: column[1]) if place]
        one, other = cells(first, table, names, key), cells(last, table, names, key)
        own = differs = 0
        while True:
            a, b = one.fetchone(), other.fetchone()
            if a is None and b is None:
                break
            own += 1
            count += len(names)
            if a == b:
                continue
            if a is None or b is None:
                differs += 1
                print(f"  {table}: a row is only in the {'last' if a is None else 'first'} file")
                continue
            for place, name in enumerate(names):
                if a[2 * place:2 * place + 2] != b[2 * place:2 * place + 2]:
                    differs += 1
                    if differs <= 5:
                        print(f"  {table}.{name}: {a[2 * place]!r} {a[2 * place + 1][:60]!r} became "
                              f"{b[2 * place]!r} {b[2 * place + 1][:60]!r}")
        print(f"{table}: {own} rows, {differs} cells differ")
        rows, different = rows + own, different + differs
    return rows, count, different


def dump(path):
    """The sqlite3 program's dump without what bridge made beside the application's tables; None without the program."""
    if shutil.which("sqlite3") is None:
        return None
    connection = opened(path)
    names = [quoted(name) for name, _ in tables(connection)]
    connection.close()
    lines = subprocess.run(["sqlite3", "-readonly", path] + [f".dump {name}" for name in names], check=True, stdout=subprocess.PIPE).stdout
    # Rows come in the order of rowids where a table has them beside its key.
    return sorted(lines.split(b"\n"))


class Migration:
    def __init__(self, options, folder, name, source, target, names):
        self.options = options
        self.config = os.path.join(folder, name + ".yaml")
        with open(self.config, "w") as file:
            file.write(f"migration: {name}\nsource: {json.dumps(source)}\ntarget: {json.dumps(target)}\n"
                       f"data_dir: {json.dumps(os.path.join(folder, name))}\nservices:\n  all:\n    tables:\n")
            for one in names:
                file.write(f"      - {json.dumps(one)}\n")

    def bridge(self, *arguments, accepted=(0,)):
        began = time.monotonic()
        done = subprocess.run([self.options.bridge, *arguments, "--config", self.config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(f"bridge {' '.join(arguments)}: exit status {done.returncode}, {time.monotonic() - began:.1f} s", flush=True)
        if done.returncode not in accepted:
            print(done.stdout, done.stderr)
            raise SystemExit(1)
        return done.stdout

    def preflight(self):
        for finding in self.bridge("preflight").splitlines():
            if "way back" in finding:
                print(" ", finding.strip())

    def carry(self):
        """Rows must be the same; what the two engines cannot say alike of the tables themselves is told."""
        self.bridge("run", "--until-caught-up")
        report = json.loads(self.bridge("check", "--json", accepted=(0, 1)))
        for one in report["validations"]:
            if one["status"] != "passed":
                print(f"  {one['name']}: {one['status']}: {'; '.join(one['findings'][:3])}{' …' if len(one['findings']) > 3 else ''}")
        bad = [one["name"] if "name" in one else str(one) for one in report["tables"] if one["status"] != "consistent"]
        print(f"  check: {report['verdict']}, {len(report['tables']) - len(bad)} of {len(report['tables'])} tables consistent {bad or ''}")
        failed = [one["name"] for one in report["validations"] if one["status"] != "passed" and one["name"] != "constraints"]
        if bad or failed:
            raise SystemExit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--schema", choices=["own", "apply"], default="own")
    parser.add_argument("--keep", action="store_true", help="leave the folder with files, journals and the server's data")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="public-")
    os.chmod(folder, 0o755)
    first, last = os.path.join(folder, "first.db"), os.path.join(folder, "last.db")
    shutil.copyfile(options.database, first)
    server = Server(folder, "server")
    try:
        source = opened(first)
        source.execute("PRAGMA journal_mode = WAL")
        made = tables(source)
        names = [name for name, _ in made]
        keys = sum(len(source.execute(f"PRAGMA foreign_key_list({quoted(name)})").fetchall()) for name in names)
        print(f"{os.path.basename(options.database)}: {len(names)} tables, {keys} columns in foreign keys")

        there = Migration(options, folder, "there", "sqlite:" + first, server.url, names)
        there.bridge("schema", "apply")
        there.preflight()
        there.carry()

        target = opened(last)
        target.execute("PRAGMA journal_mode = WAL")
        home = Migration(options, folder, "home", server.url, "sqlite:" + last, ["public." + name for name in names])
        if options.schema == "own":
            for _, sql in made:
                target.execute(sql)
            for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND name NOT LIKE '\\_bridge%' ESCAPE '\\'"):
                target.execute(sql.decode())
            target.commit()
        else:
            home.bridge("schema", "apply")
        home.carry()

        rows, count, different = compare(source, target)
        print(f"{len(names)} tables, {rows} rows, {count} cells: {different} differ")
        if options.schema == "own":
            one, other = dump(first), dump(last)
            if one is None:
                print("no sqlite3 program, so no dump was compared")
            else:
                changed = [line for line in difflib.unified_diff(one, other, lineterm=b"", n=0) if line[:2] not in (b"--", b"++", b"@@")] if one != other else []
                for line in changed[:10]:
                    print(" ", line[:160])
                print(f"dump: {len(one)} lines, {len(changed)} differ")
                different += len(changed)
        return 0 if different == 0 else 1
    finally:
        server.cluster.stop()
        if options.keep:
            print(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
