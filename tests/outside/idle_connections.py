#!/usr/bin/env python3
"""Ten thousand idle connections cost the server no thread, little memory and no
processor time.

    tests/outside/idle_connections.py [--tls] [--connections 9900] [--rounds 3] [--binary target/release/sorteo]

Opens that many connections and sends nothing on them, or as many as the limit of
open files allows. Checks the server's threads, memory and processor time; then
sends a request on every idle connection, and each must be answered. How much the
idle connections slow the active ones down is printed, and fails no check: `sorteo
bench` runs with them and without them, in turns. With --tls, all of them speak TLS
and have proved by a token who they are, which needs `openssl`. Ends with a line `N
passed, N failed`.
"""

import argparse
import json
import pathlib
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile

from outside import (BINARY, DEADLINE_S, Checks, allow_connections, command, connect, frame, processor_share, start_server)
from tls import Authority

WORKERS = 64
THREADS_BESIDE_WORKERS = 7
MEMORY_MAX_KIB = 20 << 10
TLS_MEMORY_MAX_KIB = 120 << 10
# Handshakes that one address may begin at once are fewer than a thousand.
CONNECTIONS_OF_ADDRESS = 900
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


class Plain:
    """Connections as they are."""

    serve_flags = bench_flags = ()
    memory_max_kib = MEMORY_MAX_KIB

    def prepare(self, database):
        """Nothing has to be known of an agency."""

    def connect(self, address, _number=0):
        return connect(address)


class Secured:
    """Connections over TLS of an agency that sends its token."""

    memory_max_kib = TLS_MEMORY_MAX_KIB

    def __init__(self, binary, folder):
        site = Authority(folder, "site")
        cert, key = site.issue("server", "DNS:localhost,IP:127.0.0.1")
        self.binary, self.authority = binary, site.folder / "ca.pem"
        self.context = ssl.create_default_context(cafile=self.authority)
        self.serve_flags = ["--auth", "required", "--tls", "required", "--tls-cert", cert, "--tls-key", key]
        self.bench_flags, self.auth = [], b""

    def prepare(self, database):
        """Adds the agency's token to the database of a running server."""
        token = command(self.binary, "token", "add", 1, "--database", database)
        path = database.with_name("agency-1.token")
        path.touch(mode=0o600)
        path.write_text(token, encoding="ascii")
        self.bench_flags = ["--agency", "1", "--token-file", path, "--tls", "--tls-ca", self.authority]
        self.auth = frame(b"AUTH|1|" + token.strip().encode())

    def connect(self, address, number=0):
        """Connects from another address after some hundred connections: each may begin only so many handshakes."""
        source = (f"127.0.0.{2 + number // CONNECTIONS_OF_ADDRESS}", 0)
        peer = socket.create_connection(address, DEADLINE_S, source)
        # Without it, the token would wait for the acknowledgement of the handshake's end: 40 ms.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = self.context.wrap_socket(peer, server_hostname="localhost")
        peer.sendall(self.auth)
        if read(peer) != b"ACK|OK\n":
            sys.exit("the token was refused")
        return peer


def read(peer):
    """Returns the next framed answer, also within TLS, where a read returns less than it may."""
    got = b""
    while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4], "big"):
        more = peer.recv(4096)
        if not more:
            sys.exit("the server closed a connection")
        got += more
    return got[4:]


def ask(peer, *lines):
    peer.sendall(b"".join(map(frame, lines)))
    return read(peer)


def p99_ms(binary, address, flags):
    """The 99th percentile of the active agencies' latencies."""
    bench = subprocess.run([binary, "bench", "--server", "%s:%d" % address, "--connections", str(ACTIVE),
                            "--duration", "3", "--json", *flags], capture_output=True, text=True, check=True)
    return json.loads(bench.stdout)["latency_us"]["p99"] / 1000


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=BINARY)
    options.add_argument("--tls", action="store_true")
    options.add_argument("--connections", type=int, default=9900)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    count = allow_connections(options.connections)
    with tempfile.TemporaryDirectory(prefix="sorteo-idle-") as folder:
        failed = run(options, pathlib.Path(folder), count)
    sys.exit(failed != 0)


def run(options, folder, count):
    check = Checks()
    peers = Secured(options.binary, folder) if options.tls else Plain()
    server, address = start_server(options.binary, folder / "sorteo.db", folder, "--workers", str(WORKERS),
                                   *peers.serve_flags)
    peers.prepare(folder / "sorteo.db")

    def connect_all():
        return [peers.connect(address, number) for number in range(count)]

    with peers.connect(address) as peer:
        ask(peer, b"STATUS")
    memory = status_of(server.pid, "VmRSS")
    idle = connect_all()
    with peers.connect(address) as peer:
        # Once the server answers a later connection, it has accepted the earlier ones.
        answer = ask(peer, b"BATCH|1|2", b"Ana|Lorca|1|2000-01-01|7574", b"Ana|Lorca|2|2000-01-01|1")
    check(f"{count} idle connections, then a batch: {answer!r}", answer == b"ACK_BATCH|OK|2\n")
    grown = status_of(server.pid, "VmRSS") - memory
    check(f"memory: {grown} KiB more than with none ({1024 * grown / count:,.0f} bytes each), at most "
          f"{peers.memory_max_kib}", grown <= peers.memory_max_kib)
    threads = status_of(server.pid, "Threads")
    check(f"threads of the process: {threads}, at most {WORKERS + THREADS_BESIDE_WORKERS}",
          threads <= WORKERS + THREADS_BESIDE_WORKERS)
    share = processor_share(server.pid, WATCHED_S)
    check(f"without a request it uses {share:.1%} of a core, less than {IDLE_SHARE_MAX:.0%}", share < IDLE_SHARE_MAX)
    answers = {ask(peer, b"STATUS") for peer in idle}
    check(f"each idle connection is still served: {answers}", answers == {b"STATUS|OK|1|open|0|1|2\n"})

    with_idle, without = [], []
    for _ in range(options.rounds):
        with_idle.append(p99_ms(options.binary, address, peers.bench_flags))
        for peer in idle:
            peer.close()
        without.append(p99_ms(options.binary, address, peers.bench_flags))
        idle = connect_all()
    if options.rounds > 0:
        ratios = statistics.median(with_idle) / statistics.median(without)
        print(f"        p99 of {ACTIVE} active connections, medians of {options.rounds} rounds: with the idle ones"
              f" {statistics.median(with_idle):.2f} ms, without {statistics.median(without):.2f} ms, ratio {ratios:.2f}")
    server.send_signal(signal.SIGTERM)
    check("SIGTERM while all of them are open: exit 0", server.wait(timeout=DEADLINE_S) == 0)
    return check.conclude()


if __name__ == "__main__":
    main()
