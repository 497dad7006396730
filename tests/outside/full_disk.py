#!/usr/bin/env python3
"""A full disk: batches are refused with a code, reads go on, and writes do once there is room again.

    tests/outside/full_disk.py [--binary target/release/sorteo]

Runs the server on a small file system in memory, sends batches so large that the
disk fills up in the middle of a statement, and then frees some of it. Mounting
needs root; without it, the test prints `skipped` with the reason. Otherwise it
ends with a line `N passed, N failed`.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import tempfile

from outside import BINARY, DEADLINE_S, Checks, ask, connect, start_server

DISK_MIB = 16
FILLER_MIB = 10
LARGE_BATCH = 10_000
RETRIES = 100


def batch(count, agency=1):
    rows = [b"%s|%s|%d|1999-03-17|7574" % (b"x" * 110, b"y" * 110, row) for row in range(count)]
    return [b"BATCH|%d|%d" % (agency, count), *rows]


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=BINARY)
    binary = options.parse_args().binary
    with tempfile.TemporaryDirectory(prefix="sorteo-full-disk-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder],
                                 capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            print(f"skipped: no file system can be mounted here: {mounted.stderr.strip()}")
            return
        try:
            failed = run(binary, pathlib.Path(folder))
        finally:
            subprocess.run(["umount", folder], check=True)
    sys.exit(failed != 0)


def run(binary, disk):
    check = Checks()
    database = disk / "sorteo.db"
    filler = disk / "filler"
    filler.write_bytes(b"x" * (FILLER_MIB << 20))
    with tempfile.TemporaryDirectory(prefix="sorteo-full-disk-log-") as folder:
        folder = pathlib.Path(folder)
        log = folder / "log"
        server, address = start_server(binary, database, folder, "--agencies", "1")
        peer = connect(address)

        def asked(*lines):
            return ask(peer, *lines).decode().strip()

        stored = 0
        answer = ""
        for _ in range(RETRIES):
            answer = asked(*batch(LARGE_BATCH))
            if answer != f"ACK_BATCH|OK|{LARGE_BATCH}":
                break
            stored += LARGE_BATCH
        check(f"the disk is full: {answer}", answer == f"ACK_BATCH|ERR|{LARGE_BATCH}|storage_full", answer)
        answers = {asked(*batch(LARGE_BATCH)) for _ in range(3)}
        check("batches are refused as long as it is full", answers == {f"ACK_BATCH|ERR|{LARGE_BATCH}|storage_full"}, answers)
        check("the server still runs", server.poll() is None, log.read_text(encoding="utf-8")[-500:])
        status = asked(b"STATUS")
        check(f"reads go on, and nothing of a refused batch is stored: {status}",
              status == f"STATUS|OK|1|open|0|1|{stored}", status)
        filler.unlink()
        for _ in range(RETRIES):
            answer = asked(*batch(99))
            if answer == "ACK_BATCH|OK|99":
                break
        check("with room again it stores batches, without a restart", answer == "ACK_BATCH|OK|99", answer)
        check("the agency closes with the right count", asked(b"DONE|1|%d" % (stored + 99)) == "ACK_DONE|OK")
        page = asked(b"GET_WINNERS|1|0")
        check("the draw happens, and its winners are read", page.startswith("WINNERS|OK|0,1,2,3,"), page[:60])
        server.send_signal(signal.SIGTERM)
        check("SIGTERM: exit 0", server.wait(timeout=DEADLINE_S) == 0, log.read_text(encoding="utf-8")[-500:])
        verified = subprocess.run([binary, "check", "--database", database], capture_output=True, text=True, check=False)
        check("sorteo check finds nothing wrong", verified.returncode == 0, verified.stdout + verified.stderr)
    return check.conclude()


if __name__ == "__main__":
    main()
