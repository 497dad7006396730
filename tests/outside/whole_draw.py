#!/usr/bin/env python3
"""Runs a whole draw with the real program, and checks it from outside.

Agencies 1 to 3 are `sorteo upload`; all others are raw sockets that speak the
counted dialect, written here without any of the program's code. All send at the
same time. Afterwards the database is read with the `sqlite3` command line and
compared with the agencies' files: every bet once, the right winners, one draw.
Then the server is stopped and started again, and must give the same answers.

With --kills N the server is killed by SIGKILL N times while bets arrive.

    tests/outside/whole_draw.py [--data FOLDER] [--kills N] [--binary target/release/sorteo]

FOLDER holds agency-1.csv, agency-2.csv, …; without it, bets are made up.
Needs python3 and sqlite3. Ends with a line `N passed, N failed`.
"""

import argparse
import collections
import csv
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from outside import BINARY, Checks

BATCH = 99
WINNING_NUMBER = "7574"
UPLOADERS = 3
DEADLINE_S = 120


class Server:
    """The server process; started again on the same port and database."""

    def __init__(self, binary, folder, agencies):
        self.binary, self.folder, self.agencies = binary, folder, agencies
        self.database = folder / "sorteo.db"
        self.log_path = folder / "server.log"
        self.address = ("127.0.0.1", 0)

    def start(self):
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--listen", "%s:%d" % self.address, "--database", self.database,
                 "--agencies", str(self.agencies), "--ready-file", ready], stderr=log)
        until(ready.exists, "the server listens", lambda: self.process.poll() is None)
        host, port = ready.read_text().strip().rsplit(":", 1)
        self.address = (host, int(port))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)

    def sql(self, query):
        """The rows that the `sqlite3` command line prints for a query."""
        output = subprocess.run(["sqlite3", "-readonly", self.database, query],
                                capture_output=True, text=True, check=True).stdout
        return output.splitlines()

    def log(self):
        return self.log_path.read_text(encoding="utf-8")

    def bets(self):
        """The number of bets stored, as `STATUS` reports it, asked with a raw frame."""
        with socket.create_connection(self.address, timeout=10) as peer:
            peer.sendall(b"\x00\x00\x00\x06STATUS")
            length = int.from_bytes(receive(peer, 4), "big")
            return int(receive(peer, length).decode().strip().split("|")[-1])


def until(condition, what, still_possible=lambda: True):
    """Waits for a condition. The deadline only ends a test that hangs; it measures nothing."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if not still_possible() or time.monotonic() > deadline:
            sys.exit(f"this did not happen: {what}")
        time.sleep(0.002)


def receive(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise ConnectionError("the server closed the connection")
        data += more
    return data


class CountedAgency(threading.Thread):
    """An agency that speaks the counted dialect on raw sockets."""

    def __init__(self, server, agency, rows):
        super().__init__(daemon=True)
        self.server, self.agency, self.rows = server, agency, rows
        self.winners = None
        self.lost_answers = 0

    def ask(self, payload):
        """Sends one message on a connection of its own, as the original client of this dialect does."""
        with socket.create_connection(self.server.address, timeout=30) as peer:
            payload = payload.encode()
            peer.sendall(b"%d\n" % len(payload) + payload)
            digits = b""
            while not digits.endswith(b"\n"):
                digits += receive(peer, 1)
            return receive(peer, int(digits)).decode()

    def stored(self):
        """How many bets of this agency are stored. After a lost answer only the database knows that."""
        return int(self.server.sql(
            f"SELECT coalesce(sum(bets), 0) FROM agencies WHERE agency = {self.agency}")[0])

    def run(self):
        sent = 0
        while sent < len(self.rows):
            batch = self.rows[sent:sent + BATCH]
            try:
                answer = self.ask("\n".join("|".join(row) + f"|{self.agency}" for row in batch))
                assert answer == "ACK", answer
                sent += len(batch)
            except OSError:
                self.lost_answers += 1
                until(self.reachable, "the server came back")
                sent = self.stored()
        while self.winners is None:
            try:
                answer = self.ask(f"GET_WINNERS|{self.agency}")
                if answer != "ERROR_LOTTERY_HASNT_ENDED":
                    self.winners = [line.split("|")[2] for line in answer.splitlines()]
            except OSError:
                until(self.reachable, "the server came back")
            time.sleep(0.05)

    def reachable(self):
        try:
            return self.server.bets() >= 0
        except OSError:
            return False


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=BINARY)
    options.add_argument("--data", type=pathlib.Path)
    options.add_argument("--kills", type=int, default=0)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sorteo-whole-draw-") as folder:
        checks = run(options, pathlib.Path(folder))
    sys.exit(checks.conclude() != 0)


def run(options, folder):
    data = options.data
    if data is None:
        data = folder / "data"
        subprocess.run([options.binary, "generate", "--dir", data], check=True)
    files = sorted(data.glob("agency-*.csv"), key=lambda path: int(path.stem.split("-")[1]))
    rows = {agency: list(csv.reader(open(path, encoding="utf-8"))) for agency, path in enumerate(files, 1)}
    all_bets = sum(map(len, rows.values()))
    expected = {agency: [row[2] for row in bets if row[4] == WINNING_NUMBER] for agency, bets in rows.items()}
    print(f"{len(files)} agencies, {all_bets} bets, winners {[len(w) for w in expected.values()]}", flush=True)

    checks = Checks()
    server = Server(options.binary, folder, len(files))
    server.start()
    uploads = {agency: subprocess.Popen(
        [options.binary, "upload", "--server", "%s:%d" % server.address, "--agency", str(agency),
         "--file", files[agency - 1], "--batch", str(BATCH), "--winners-out", folder / f"winners-{agency}"],
        stderr=open(folder / f"upload-{agency}.log", "w", encoding="utf-8"))
        for agency in rows if agency <= UPLOADERS}
    raw = {agency: CountedAgency(server, agency, rows[agency]) for agency in rows if agency > UPLOADERS}
    for agency in raw.values():
        agency.start()

    for kill in range(1, options.kills + 1):
        share = kill / (options.kills + 1)
        until(lambda share=share: server.bets() >= share * all_bets, f"{share:.0%} of the bets are stored")
        server.kill()
        stored = int(server.sql("SELECT count(*) FROM bets")[0])
        checks(f"kill {kill}: SIGKILL with {stored} of {all_bets} bets stored", 0 < stored < all_bets, stored)
        server.start()

    for agency, upload in uploads.items():
        checks(f"agency {agency}: upload exits with 0", upload.wait(timeout=DEADLINE_S) == 0,
               (folder / f"upload-{agency}.log").read_text()[-500:])
        documents = (folder / f"winners-{agency}").read_text().split()
        checks(f"agency {agency}: gets its winners {documents}", documents == expected[agency], expected[agency])
    for agency, thread in raw.items():
        thread.join(timeout=DEADLINE_S)
        checks(f"agency {agency}, counted dialect on raw sockets: gets its winners {thread.winners}",
               thread.winners == expected[agency], expected[agency])

    def look(when):
        stored = collections.Counter(server.sql(
            "SELECT agency || '|' || first_name || '|' || last_name || '|' || document"
            " || '|' || birthdate || '|' || number FROM bets"))
        sent = collections.Counter(f"{agency}|" + "|".join(row) for agency, bets in rows.items() for row in bets)
        checks(f"{when}: {all_bets} bets stored, each once", stored == sent, f"{stored.total()} stored")
        results = server.sql("SELECT agency, document FROM results")
        checks(f"{when}: sqlite3 prints the winners from results: {' '.join(results)}",
               results == [f"{agency}|{document}" for agency, won in expected.items() for document in won], results)
        draws = server.log().count("action: sorteo | result: success")
        checks(f"{when}: one sorteo line in all logs", draws == 1, draws)

    look("after the draw")
    checks("SIGTERM: exit 0", server.stop() == 0)
    checks("SIGTERM: the log ends with the shutdown's success",
           server.log().splitlines()[-1].endswith("action: shutdown | result: success"), server.log()[-300:])
    server.start()
    for agency in rows:
        answer = subprocess.run([options.binary, "winners", "--server", "%s:%d" % server.address, "--agency",
                                 str(agency)], capture_output=True, text=True, check=False)
        checks(f"agency {agency}: the same winners after a restart", answer.stdout.split() == expected[agency],
               answer.stdout + answer.stderr)
    look("after a restart")
    server.stop()
    check = subprocess.run([options.binary, "check", "--database", server.database],
                           capture_output=True, text=True, check=False)
    checks(f"sorteo check: {check.stdout.strip().rsplit('/', 1)[-1]}", check.returncode == 0, check.stdout + check.stderr)
    return checks


if __name__ == "__main__":
    main()
