#!/usr/bin/env python3
"""Ten thousand idle connections cost the server no thread, little memory and no
processor time.

    tests/outside/idle_connections.py [--connections 9900] [--rounds 3] [--binary target/release/sorteo]

Opens that many connections and sends nothing on them, or as many as the limit of
open files allows. Checks the server's threads, memory and processor time; then
sends a request on every idle connection, and each must be answered. How much the
idle connections slow the active ones down is printed, and fails no check: `sorteo
bench` runs with them and without them, in turns. Ends with a line `N passed, N
failed`.
"""

import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile

from outside import BINARY, DEADLINE_S, Checks, allow_connections, ask, connect, processor_share, start_server

WORKERS = 64
THREADS_BESIDE_WORKERS = 6
MEMORY_MAX_KIB = 20 << 10
# How long the server is watched without a request, and which share of a core it may use meanwhile.
WATCHED_S = 5
IDLE_SHARE_MAX = 0.01
# How many connections `sorteo bench` opens.
ACTIVE = 16


def status_of(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def p99_ms(binary, address):
    """The 99th percentile of the active agencies' latencies."""
    bench = subprocess.run([binary, "bench", "--server", "%s:%d" % address, "--connections", str(ACTIVE),
                            "--duration", "3", "--json"], capture_output=True, text=True, check=True)
    return json.loads(bench.stdout)["latency_us"]["p99"] / 1000


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=BINARY)
    options.add_argument("--connections", type=int, default=9900)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    count = allow_connections(options.connections)
    with tempfile.TemporaryDirectory(prefix="sorteo-idle-") as folder:
        failed = run(options, pathlib.Path(folder), count)
    sys.exit(failed != 0)


def run(options, folder, count):
    check = Checks()
    server, address = start_server(options.binary, folder / "sorteo.db", folder, "--workers", str(WORKERS))
    with connect(address) as peer:
        ask(peer, b"STATUS")
    memory = status_of(server.pid, "VmRSS")
    idle = [connect(address) for _ in range(count)]
    with connect(address) as peer:
        # Once the server answers a later connection, it has accepted the earlier ones.
        answer = ask(peer, b"BATCH|1|2", b"Ana|Lorca|1|2000-01-01|7574", b"Ana|Lorca|2|2000-01-01|1")
    check(f"{count} idle connections, then a batch: {answer!r}", answer == b"ACK_BATCH|OK|2\n")
    grown = status_of(server.pid, "VmRSS") - memory
    check(f"memory: {grown} KiB more than with none, at most {MEMORY_MAX_KIB}", grown <= MEMORY_MAX_KIB)
    threads = status_of(server.pid, "Threads")
    check(f"threads of the process: {threads}, at most {WORKERS + THREADS_BESIDE_WORKERS}",
          threads <= WORKERS + THREADS_BESIDE_WORKERS)
    share = processor_share(server.pid, WATCHED_S)
    check(f"without a request it uses {share:.1%} of a core, less than {IDLE_SHARE_MAX:.0%}", share < IDLE_SHARE_MAX)
    answers = {ask(peer, b"STATUS") for peer in idle}
    check(f"each idle connection is still served: {answers}", answers == {b"STATUS|OK|1|open|0|1|2\n"})

    with_idle, without = [], []
    for _ in range(options.rounds):
        with_idle.append(p99_ms(options.binary, address))
        for peer in idle:
            peer.close()
        without.append(p99_ms(options.binary, address))
        idle = [connect(address) for _ in range(count)]
    if options.rounds > 0:
        ratios = statistics.median(with_idle) / statistics.median(without)
        print(f"        p99 of {ACTIVE} active connections, medians of {options.rounds} rounds: with the idle ones"
              f" {statistics.median(with_idle):.2f} ms, without {statistics.median(without):.2f} ms, ratio {ratios:.2f}")
    server.send_signal(signal.SIGTERM)
    check("SIGTERM while all of them are open: exit 0", server.wait(timeout=DEADLINE_S) == 0)
    return check.conclude()


if __name__ == "__main__":
    main()
