#!/usr/bin/env python3
"""Thousands of idle connections cost the server no thread and delay nobody.

    tests/idle_connections.py [--connections 5000] [--binary target/release/sorteo]

Opens that many connections that say nothing, then sends a batch on one more and
reads its answer; looks at the server's threads and memory; then sends a request
on every idle connection, and each is answered. Ends with a line
`N passed, N failed`.
"""

import argparse
import pathlib
import resource
import signal
import sys
import tempfile
import time

from outside import DEADLINE_S, Checks, ask, connect, start_server

WORKERS = 64
THREADS_BESIDE_WORKERS = 6


def status_of(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=pathlib.Path(__file__).parent.parent / "target/release/sorteo")
    options.add_argument("--connections", type=int, default=5000)
    options = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(options.connections, hard - 100)
    if count < options.connections:
        print(f"only {count} connections: the system allows {hard} open files")
    with tempfile.TemporaryDirectory(prefix="sorteo-idle-") as folder:
        failed = run(options.binary, pathlib.Path(folder), count)
    sys.exit(failed != 0)


def run(binary, folder, count):
    check = Checks()
    server, address = start_server(binary, folder / "sorteo.db", folder, "--workers", str(WORKERS))
    with connect(address) as peer:
        ask(peer, b"STATUS")
    memory = status_of(server.pid, "VmRSS")
    idle = [connect(address) for _ in range(count)]
    with connect(address) as peer:
        # Once the server answers a later connection, it has accepted the earlier ones.
        began = time.monotonic()
        answer = ask(peer, b"BATCH|1|2", b"Ana|Lorca|1|2000-01-01|7574", b"Ana|Lorca|2|2000-01-01|1")
        took = time.monotonic() - began
    grown = status_of(server.pid, "VmRSS") - memory
    threads = status_of(server.pid, "Threads")
    check(f"{count} idle connections, then a batch: {answer!r} ({took * 1000:.1f} ms)", answer == b"ACK_BATCH|OK|2\n")
    check(f"threads of the process: {threads}, at most {WORKERS + THREADS_BESIDE_WORKERS}",
          threads <= WORKERS + THREADS_BESIDE_WORKERS)
    print(f"        memory: {grown} KiB more than with none")
    answers = {ask(peer, b"STATUS") for peer in idle}
    check(f"each idle connection is still served: {answers}", answers == {b"STATUS|OK|1|open|0|1|2\n"})
    server.send_signal(signal.SIGTERM)
    check("SIGTERM with all of them open: exit 0", server.wait(timeout=DEADLINE_S) == 0)
    return check.conclude()


if __name__ == "__main__":
    main()
