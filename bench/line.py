#!/usr/bin/env python3
"""Measures how long one `sorteo upload` takes, by batch size, window and round trip.

    bench/line.py [--binary target/release/sorteo] [--bets 30000] [--rounds 3] [--scratch FOLDER]
                  [--old BINARY [--loopback-bets 1000000]]

Between the client and a new server for each run stands a TCP proxy, which delays
every piece by half the round trip in each direction and does not limit the rate;
for a round trip of 0 there is none. What is measured is the whole command, from
the check of the file to the reply to DONE. Prints Markdown tables with the
median of the rounds. With --old, a large file is also uploaded directly with the
older client and server and with this one, in turns, with each client's peak
memory.

Only compare results of the same run with each other.
"""

import argparse
import collections
import contextlib
import pathlib
import queue
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROUND_TRIPS_S = [0, 0.040, 0.200]
BATCHES = [99, 250, 500, 1_000, 2_000, 5_000]
WINDOWS = [1, 4, 16, 64]
# So many bytes are in flight at most while batches and windows are compared.
WINDOW_BYTES = 64 << 20
PIECE_BYTES = 64 << 10
# Pieces that the proxy holds of a direction: more than any window.
PIECES_MAX = 100_000
# Between two looks at the client.
POLL_S = 0.002
HERE = pathlib.Path(__file__).parent

Measured = collections.namedtuple("Measured", "seconds rss_mib")


class Proxy:
    """Passes on every connection to the server, each piece later by half the round trip."""

    def __init__(self, server, round_trip):
        self.server, self.delay = server, round_trip / 2
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        # Closing the listener ends it.
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                # To connect takes a round trip too, but the client's connection stands already.
                accepted = time.monotonic()
                server = socket.create_connection(self.server)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.carry(client, server, accepted + 2 * self.delay)
                self.carry(server, client, 0)

    def carry(self, source, target, opens):
        pieces = queue.Queue(PIECES_MAX)
        threading.Thread(target=self.receive, args=(source, pieces, opens), daemon=True).start()
        threading.Thread(target=send, args=(target, pieces), daemon=True).start()

    def receive(self, source, pieces, opens):
        while True:
            try:
                piece = source.recv(PIECE_BYTES)
            except OSError:
                piece = b""
            pieces.put((max(time.monotonic(), opens) + self.delay, piece))
            if not piece:
                return

    def close(self):
        # Wakes the thread that accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def send(target, pieces):
    """Sends each piece when it is due, until an empty one or the peer has gone."""
    with contextlib.suppress(OSError):
        while True:
            due, piece = pieces.get()
            time.sleep(max(0, due - time.monotonic()))
            if not piece:
                target.shutdown(socket.SHUT_WR)
                return
            target.sendall(piece)


@contextlib.contextmanager
def server(binary, folder):
    """Runs a server with an empty database, and yields its address."""
    ready = folder / "ready"
    with subprocess.Popen([binary, "serve", "--listen", "127.0.0.1:0", "--database", folder / "sorteo.db",
                           "--ready-file", ready, "--agencies", "2", "--log-level", "warning"]) as process:
        while not ready.exists():
            if process.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.001)
        host, port = ready.read_text(encoding="ascii").strip().rsplit(":", 1)
        yield host, int(port)
        process.send_signal(signal.SIGTERM)


def peak_rss_mib(pid):
    """The most memory that the process has had so far; 0 if it has ended.

    The rusage of a child would count what Python itself had before it became the program.
    """
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0


def upload(binary, scratch, file, round_trip, *options):
    """Uploads the file to a new server of the same version; returns what that took."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder, server(binary, pathlib.Path(folder)) as address:
        proxy = Proxy(address, round_trip) if round_trip else None
        began = time.monotonic()
        # pylint: disable=consider-using-with
        client = subprocess.Popen(
            [binary, "upload", "--server", "%s:%d" % (proxy.address if proxy else address), "--agency", "1",
             "--file", file, "--no-wait", "--log-level", "warning", *map(str, options)])
        rss_mib = 0
        while client.poll() is None:
            rss_mib = max(rss_mib, peak_rss_mib(client.pid))
            time.sleep(POLL_S)
        seconds = time.monotonic() - began
        if client.returncode != 0:
            sys.exit(f"the upload ended with exit code {client.returncode}")
        if proxy:
            proxy.close()
        return Measured(seconds, rss_mib)


def generate(binary, folder, bets):
    subprocess.run([binary, "generate", "--dir", folder, "--agencies", "1", "--bets", str(bets)],
                   check=True, stdout=subprocess.DEVNULL)
    return folder / "agency-1.csv"


def median_seconds(rounds):
    return statistics.median(one.seconds for one in rounds)


def compare_windows(options, scratch, file):
    """Prints a table for each round trip, and a last column with the defaults."""
    samples = collections.defaultdict(list)
    for _ in range(options.rounds):
        for round_trip in ROUND_TRIPS_S:
            samples[round_trip, "default"].append(upload(options.binary, scratch, file, round_trip))
            for batch in BATCHES:
                for window in WINDOWS:
                    sent = ["--batch", batch, "--window-batches", window, "--window-bytes", WINDOW_BYTES]
                    samples[round_trip, batch, window].append(
                        upload(options.binary, scratch, file, round_trip, *sent))
    for round_trip in ROUND_TRIPS_S:
        default = median_seconds(samples[round_trip, "default"])
        print(f"\nSeconds for {options.bets:,} bets over {round_trip * 1000:.0f} ms; with the defaults {default:.2f}:\n")
        print("| bets per batch | " + " | ".join(f"window {window}" for window in WINDOWS) + " |")
        print("|" + "---:|" * (len(WINDOWS) + 1))
        for batch in BATCHES:
            row = [f"{median_seconds(samples[round_trip, batch, window]):.2f}" for window in WINDOWS]
            print(f"| {batch:,} | " + " | ".join(row) + " |", flush=True)


def compare_programs(options, scratch, file):
    """Prints what each program takes for a large file without a proxy, in turns."""
    rounds = []
    for _ in range(options.rounds):
        rounds.append([upload(binary, scratch, file, 0) for binary in (options.old, options.binary)])
    print(f"\n{options.loopback_bets:,} bets on loopback, in turns:\n")
    print("| program | seconds | bets/s | peak memory of the client, MiB |\n|---|---:|---:|---:|")
    for name, runs in zip(["old", "new"], zip(*rounds, strict=True), strict=True):
        seconds, rss = median_seconds(runs), max(one.rss_mib for one in runs)
        print(f"| {name} | {seconds:.2f} | {options.loopback_bets / seconds:,.0f} | {rss:.1f} |")
    ratio = statistics.median(old.seconds / new.seconds for old, new in rounds)
    print(f"\nThe new one is {ratio:.2f} times as fast (median of the rounds).", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=HERE.parent / "target/release/sorteo")
    options.add_argument("--old", default=None)
    options.add_argument("--bets", type=int, default=30_000)
    options.add_argument("--loopback-bets", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scratch", default=None)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sorteo-line-", dir=options.scratch) as folder:
        scratch = pathlib.Path(folder)
        if options.old:
            compare_programs(options, scratch, generate(options.binary, scratch / "large", options.loopback_bets))
        compare_windows(options, scratch, generate(options.binary, scratch / "small", options.bets))


if __name__ == "__main__":
    main()
