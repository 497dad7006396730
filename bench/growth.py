#!/usr/bin/env python3
"""Measures how the server's performance changes as the table grows, up to fifty million bets.

    bench/growth.py [--bets 50000000] [--binary target/release/sorteo] [--scratch FOLDER]

Fills one database in windows of a million bets over 16 connections, while a
reader continuously requests the status and the next row of an upload. At each
milestone (a fiftieth, a fifth and all of the bets) the server is stopped. On a
copy of the database the draw is carried out and an agency's winners are read;
then the server's start on the original is timed. Prints a Markdown table; if
gnuplot is installed, plots the rate of every window to docs/growth.svg.

Only compare results of the same run with each other.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

CONNECTIONS = 16
WINDOW_BETS = 1_000_000
AGENCIES = 5
WINNERS_ASKED = 1_000
HERE = pathlib.Path(__file__).parent


class Server:
    def __init__(self, binary, database, *options):
        self.ready = database.with_suffix(".ready")
        self.ready.unlink(missing_ok=True)
        began = time.monotonic()
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--database", database, "--ready-file", self.ready,
             "--agencies", str(AGENCIES), "--log-level", "warning", *options])
        while not self.ready.exists():
            if self.process.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.001)
        self.start_seconds = time.monotonic() - began
        host, port = self.ready.read_text(encoding="ascii").strip().rsplit(":", 1)
        self.address = (host, int(port))
        self.wal = pathlib.Path(f"{database}-wal")

    def rss_mib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise KeyError("VmRSS")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            sys.exit("the server did not exit with code 0")


class Peer:
    def __init__(self, server):
        self.socket = socket.create_connection(server.address, timeout=600)

    def ask(self, line):
        self.socket.sendall(len(line).to_bytes(4, "big") + line)
        length = int.from_bytes(self.socket.recv(4, socket.MSG_WAITALL), "big")
        return self.socket.recv(length, socket.MSG_WAITALL).decode()


class Reader(threading.Thread):
    """Reads continuously, and records the largest size of the WAL."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.peer, self.stop, self.wal_bytes = server, Peer(server), False, 0

    def run(self):
        while not self.stop:
            self.peer.ask(b"STATUS")
            self.peer.ask(b"RESUME|1|none")
            self.wal_bytes = max(self.wal_bytes, self.server.wal.stat().st_size)
            time.sleep(0.001)


def fill(binary, server, bets):
    """Stores one window of bets; returns the report of `sorteo bench`."""
    output = subprocess.run(
        [binary, "bench", "--server", "%s:%d" % server.address, "--connections", str(CONNECTIONS),
         "--agencies", str(AGENCIES), "--bets", str(bets), "--json"],
        capture_output=True, text=True, check=True).stdout
    return json.loads(output)


def draw(binary, database):
    """Carries out the draw on this database.

    Returns its duration in seconds, the number of winners on a page, and p99 of the
    time to request a page. The winning number is one that was bet on, so that there
    are pages of winners to read.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (number,) = connection.execute("SELECT number FROM bets WHERE agency = 1 LIMIT 1").fetchone()
    server = Server(binary, database, "--winning-number", str(number))
    peer = Peer(server)
    for agency in range(1, AGENCIES):
        assert peer.ask(b"DONE|%d" % agency) == "ACK_DONE|OK\n"
    began = time.monotonic()
    assert peer.ask(b"DONE|%d" % AGENCIES) == "ACK_DONE|OK\n"
    seconds = time.monotonic() - began
    asked = []
    for _ in range(WINNERS_ASKED):
        began = time.monotonic()
        answer = peer.ask(b"GET_WINNERS|1|0")
        asked.append(time.monotonic() - began)
    server.stop()
    documents = answer.split("|")[2]
    return seconds, documents.count(",") + 1 if documents else 0, statistics.quantiles(asked, n=100)[98]


def copy_of(database):
    """Copies the database; after the server stopped, it is a single complete file."""
    copy = database.with_name("copy.db")
    shutil.copyfile(database, copy)
    return copy


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=HERE.parent / "target/release/sorteo")
    options.add_argument("--bets", type=int, default=50_000_000)
    options.add_argument("--scratch", default=None)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sorteo-growth-", dir=options.scratch) as folder:
        run(options.binary, pathlib.Path(folder) / "sorteo.db", options.bets)


def run(binary, database, bets):
    milestones = sorted({max(WINDOW_BETS, bets // 50), max(WINDOW_BETS, bets // 5), bets})
    rates, rows, stored = [], [], 0
    server = Server(binary, database)
    first_rss = None
    for milestone in milestones:
        reader = Reader(server)
        reader.start()
        while stored < milestone:
            report = fill(binary, server, WINDOW_BETS)
            stored += report["bets"]
            rates.append((stored, report["bets_per_second"]))
            first_rss = first_rss or server.rss_mib()
            print(f"{stored:>11,} bets, {report['bets_per_second']:>9,.0f}/s, {server.rss_mib():.0f} MiB", flush=True)
        reader.stop = True
        reader.join()
        rss = server.rss_mib()
        server.stop()
        size = database.stat().st_size
        copy = copy_of(database)
        seconds, winners, p99 = draw(binary, copy)
        os.unlink(copy)
        server = Server(binary, database)
        last = [rate for _, rate in rates[-5:]]
        rows.append((stored, statistics.median(last), rss - first_rss, reader.wal_bytes / 2**20, size / stored,
                     seconds, seconds / stored * 1e9, winners, p99 * 1000, server.start_seconds))
    server.stop()
    print("\n| bets | bets/s, last windows | memory growth, MiB | largest WAL, MiB | bytes per bet | draw, s | ns per bet "
          "| winners per page | `GET_WINNERS` p99, ms | start, s |")
    print("|" + "---:|" * 10)
    for row in rows:
        print("| {:,} | {:,.0f} | {:.0f} | {:.0f} | {:.1f} | {:.2f} | {:.0f} | {} | {:.2f} | {:.2f} |".format(*row))
    first, last = (statistics.median(rate for _, rate in part) for part in (rates[:5], rates[-5:]))
    print(f"\nMedian of the first five windows {first:,.0f}/s, of the last five {last:,.0f}/s: {last / first:.2f}.")
    plot(rates)


def plot(rates):
    if shutil.which("gnuplot") is None:
        print("no plot: gnuplot is not installed")
        return
    points = "\n".join(f"{stored / 1e6} {rate / 1e3}" for stored, rate in rates)
    script = f"""
        set terminal svg size 760,360 font "sans-serif,13" background "white"
        set output "{HERE.parent / 'docs/growth.svg'}"
        set xlabel "bets stored, millions"
        set ylabel "thousand bets/s, one window"
        set yrange [0:*]
        set grid
        unset key
        $points << EOD
{points}
EOD
        plot $points with linespoints pt 7 ps 0.4 lc rgb "#1f5fa8"
    """
    subprocess.run(["gnuplot"], input=script.replace("        ", ""), text=True, check=True)


if __name__ == "__main__":
    main()
