#!/usr/bin/env python3
"""How long good agencies wait while strangers attack a server with tokens and TLS.

    bench/attack.py [--binary target/release/sorteo] [--kinds tokens,hellos,…] [--rounds 6] [--seconds 3]
                    [--scratch FOLDER]

    tokens          1,000 wrong tokens a second, each in a connection of its own that stays open
    tokens_many     the same from 250 addresses
    hellos          ClientHellos, as many as one process can send, from one address
    hellos_many     the same from 250 addresses
    handshakes      whole TLS handshakes, as many as one process can make, from 250 addresses
    half_open       ClientHello, then silence: 3,000 connections at a time, from 250 addresses
    garbage         records of a handshake (0x16) that hold none, as many as one process can send
    strangers       5,000 connections that say nothing, opened again when they are closed
    strangers_full  the same with 7,000, more than the server takes

Two good agencies with a connection each, one plain and one over TLS, send a bet every
5 ms. A third connects anew every 50 ms, by turns plain and over TLS, and measures how long
it takes until its token is accepted. The server has `--auth required --tls optional
--max-connections 6000`. Within each round, in turns and each with a new server:

    quiet   nobody attacks
    attack  the attack
    decoy   the same attack, on another server of the same program: what is lost here is
            lost to the processors that all share, and not within the server
    spin    a process that computes as long as the attacker did, and sends nothing

Attackers and the spinning process run with `nice 19`, since on a machine of their own they
would take no processor from the server. Prints medians of the rounds, and of their ratios.
Needs Linux, python3 and openssl. Only compare results of the same run with each other.
"""

import argparse
import collections
import itertools
import multiprocessing
import os
import pathlib
import resource
import select
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

from secure import HERE, add_token, make_certificates, processor_seconds, serve_secured, server

PAUSE_S = 0.005
NEWCOMER_PAUSE_S = 0.05
WARM_UP_S = 0.7
TOKENS_PER_SECOND = 1_000
SOURCES = 250
HALF_OPEN = 3_000
STRANGERS, STRANGERS_FULL, CONNECTIONS_MAX = 5_000, 7_000, 6_000
FROM_MANY = ["tokens_many", "hellos_many", "handshakes", "half_open"]
IP_BIND_ADDRESS_NO_PORT = 24
PHASES = ["quiet", "attack", "decoy", "spin"]
WRONG_TOKEN = f"sorteo_{'0' * 16}_{'f' * 64}"
PLAIN, SECURED, NEWCOMER = 1, 2, 3


def frame(text):
    body = text.encode()
    return len(body).to_bytes(4, "big") + body


def read_frame(peer):
    got = b""
    while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4], "big"):
        more = peer.recv(1 << 14)
        if not more:
            raise ConnectionError(f"the server closed a good connection after {got!r}")
        got += more
    return got[4:]


class Target:
    """What an agency needs to know of a server."""

    def __init__(self, address, ca, tokens):
        self.address, self.ca, self.tokens = address, ca, tokens

    def connect(self, agency, tls):
        """Returns a connection whose token is accepted."""
        peer = socket.create_connection(self.address)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            peer = ssl.create_default_context(cafile=self.ca).wrap_socket(peer, server_hostname="localhost")
        peer.sendall(frame(f"AUTH|{agency}|{self.tokens[agency]}"))
        got = read_frame(peer)
        if got.strip() != b"ACK|OK":
            raise ConnectionError(f"a good agency was refused: {got!r}")
        return peer


def send_bets(target, agency, seconds, results):
    """Sends a bet from time to time; each must be accepted."""
    waits = []
    with target.connect(agency, agency == SECURED) as peer:
        end = time.monotonic() + seconds
        for number in itertools.count():
            began = time.monotonic()
            if began >= end:
                break
            peer.sendall(frame(f"BET|{agency}|Ana|Paz|{number}|1999-03-17|1"))
            got = read_frame(peer)
            waits.append(time.monotonic() - began)
            if b"OK" not in got:
                raise ConnectionError(f"a bet was refused: {got!r}")
            time.sleep(PAUSE_S)
    results.put((agency, waits))


def come_anew(target, seconds, results):
    waits, end = [], time.monotonic() + seconds
    for number in itertools.count():
        began = time.monotonic()
        if began >= end:
            break
        target.connect(NEWCOMER, number % 2 == 1).close()
        waits.append(time.monotonic() - began)
        time.sleep(NEWCOMER_PAUSE_S)
    results.put((NEWCOMER, waits))


class Attacker:
    """One process's attack. Everything it opens ends with it."""

    def __init__(self, kind, address, hello, count):
        self.kind, self.address, self.hello, self.count = kind, address, hello, count
        self.open, self.poll = {}, select.epoll()
        self.source = 0

    def start(self, first_bytes):
        """Opens a connection from one of the addresses, and sends these bytes on it."""
        peer = socket.socket()
        # Never the good agencies' own address.
        self.source = (self.source + 1) % (SOURCES if self.kind in FROM_MANY else 1)
        peer.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        peer.bind((f"127.0.1.{1 + self.source}", 0))
        try:
            peer.connect(self.address)
            peer.setblocking(False)
            if first_bytes:
                peer.send(first_bytes)
        except OSError:
            peer.close()
            return None
        self.open[peer.fileno()] = peer
        self.poll.register(peer.fileno(), select.EPOLLIN)
        self.count.value += 1
        return peer

    def close(self, descriptor):
        self.open.pop(descriptor).close()

    def reap(self, timeout, at_first_byte):
        """Closes what the server has closed or, if so, replied to."""
        for descriptor, _ in self.poll.poll(timeout):
            try:
                got = self.open[descriptor].recv(1 << 14)
            except BlockingIOError:
                continue
            except OSError:
                got = b""
            if at_first_byte or not got:
                self.close(descriptor)

    def run(self):
        kind = self.kind.removesuffix("_many")
        getattr(self, kind)()

    def tokens(self):
        wrong, began = frame(f"AUTH|1|{WRONG_TOKEN}"), time.monotonic()
        for number in itertools.count():
            self.start(wrong)
            while time.monotonic() < began + number / TOKENS_PER_SECOND:
                self.reap(0.002, at_first_byte=False)

    def flood(self, first_bytes, at_once):
        while True:
            for _ in range(16):
                if len(self.open) < at_once:
                    self.start(first_bytes)
            self.reap(0 if len(self.open) < at_once else 0.01, at_first_byte=True)

    def hellos(self):
        self.flood(self.hello, 256)

    def garbage(self):
        self.flood(b"\x16\x03\x01\x02\x00" + os.urandom(512), 256)

    def handshakes(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while True:
            peer = self.start(b"")
            if peer:
                descriptor = peer.fileno()
                peer.setblocking(True)
                try:
                    context.wrap_socket(peer, do_handshake_on_connect=True).close()
                except OSError:
                    pass
                self.open.pop(descriptor, None)

    def stay(self, first_bytes, at_once):
        while True:
            for _ in range(16):
                if len(self.open) < at_once:
                    self.start(first_bytes)
            self.reap(0 if len(self.open) < at_once else 0.01, at_first_byte=False)

    def half_open(self):
        self.stay(self.hello, HALF_OPEN)

    def strangers(self):
        self.stay(b"", STRANGERS)

    def strangers_full(self):
        self.stay(b"", STRANGERS_FULL)


def attack(kind, address, hello, count):
    os.nice(19)
    Attacker(kind, address, hello, count).run()


def spin(share):
    os.nice(19)
    while True:
        began = time.monotonic()
        while time.monotonic() < began + share * 0.01:
            pass
        time.sleep((1 - share) * 0.01)


def hello_of(binary, ca):
    """The ClientHello that `sorteo` sends: the key exchange that costs the server most."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = subprocess.Popen([binary, "status", "--server", "127.0.0.1:%d" % listener.getsockname()[1], "--tls",
                                   "--tls-ca", ca], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peer, _ = listener.accept()
        with peer:
            hello = peer.recv(1 << 14)
            while len(hello) < 5 + int.from_bytes(hello[3:5], "big"):
                hello += peer.recv(1 << 14)
        client.wait()
        return hello


Phase = collections.namedtuple("Phase", "waits attacker_share server_share attacks_per_second")


def run_phase(options, kind, phase, files, hello, share):
    """Runs the good agencies beside one thing, and returns what they waited and who used a processor."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder, \
            tempfile.TemporaryDirectory(dir=options.scratch) as other:
        flags = ["--agencies", "2", "--max-connections", str(CONNECTIONS_MAX), *serve_secured("optional", files)]
        with server(options.binary, pathlib.Path(folder), *flags) as (process, address), \
                server(options.binary, pathlib.Path(other), *flags) as (_, decoy):
            database = pathlib.Path(folder) / "sorteo.db"
            tokens = {agency: add_token(options.binary, database, agency).read_text().strip()
                      for agency in (PLAIN, SECURED, NEWCOMER)}
            target = Target(address, files.ca, tokens)
            count = multiprocessing.Value("Q", 0, lock=False)
            hostile = {"quiet": None,
                       "attack": lambda: attack(kind, address, hello, count),
                       "decoy": lambda: attack(kind, decoy, hello, count),
                       "spin": lambda: spin(share)}[phase]
            child = multiprocessing.Process(target=hostile, daemon=True) if hostile else None
            if child:
                child.start()
            # Whoever opens thousands of connections gets the time for it.
            time.sleep(WARM_UP_S if not kind.startswith(("strangers", "half")) else 3 * WARM_UP_S)
            results = multiprocessing.Queue()
            good = [multiprocessing.Process(target=send_bets, args=(target, agency, options.seconds, results))
                    for agency in (PLAIN, SECURED)]
            good.append(multiprocessing.Process(target=come_anew, args=(target, options.seconds, results)))
            pids = [process.pid, *([child.pid] if child else [])]
            used, began, done = [processor_seconds(pid) for pid in pids], time.monotonic(), count.value
            for one in good:
                one.start()
            waits = dict(results.get(timeout=60) for _ in good)
            took = time.monotonic() - began
            shares = [(processor_seconds(pid) - before) / took for pid, before in zip(pids, used, strict=True)]
            done = (count.value - done) / took
            for one in good:
                one.join()
            if child:
                child.kill()
                child.join()
            return Phase(waits, shares[1] if child else 0, shares[0], done)


def quantile(waits, share):
    waits = sorted(waits)
    return waits[min(len(waits) - 1, int(share * len(waits)))] * 1000


def main():
    kinds = ["tokens", "tokens_many", "hellos", "hellos_many", "handshakes", "half_open", "garbage", "strangers",
             "strangers_full"]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=HERE.parent / "target/release/sorteo")
    options.add_argument("--kinds", default=",".join(kinds))
    options.add_argument("--phases", default=",".join(PHASES))
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--scratch", default=None)
    options = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    phases = options.phases.split(",")
    print_head(phases)
    with tempfile.TemporaryDirectory(prefix="sorteo-attack-", dir=options.scratch) as folder:
        files = make_certificates(pathlib.Path(folder))
        hello = hello_of(options.binary, files.ca)
        for kind in options.kinds.split(","):
            rounds, share = [], 0.5
            for number in range(options.rounds):
                turn = number % len(phases)
                seen = {}
                for phase in phases[turn:] + phases[:turn]:
                    seen[phase] = run_phase(options, kind, phase, files, hello, share)
                    if phase == "attack":
                        share = min(0.99, seen[phase].attacker_share)
                rounds.append(seen)
            print_row(kind, phases, rounds)


def print_head(phases):
    print("| attack | a second | processor: attacker, server | p99 of a bet, plain; TLS, ms: " + " | ".join(phases) +
          " | " + " | ".join(f"{phase} ÷ quiet" for phase in phases[1:]) +
          " | newcomers p50 / p99: " + " | ".join(phases) + " |")
    print("|---|" + "---:|" * (1 + 3 * len(phases)), flush=True)


def print_row(kind, phases, rounds):
    def median(value):
        return statistics.median(value(one) for one in rounds)

    def p99(phase, agency):
        return median(lambda one: quantile(one[phase].waits[agency], 0.99))

    def ratio(phase, agency):
        return median(lambda one: quantile(one[phase].waits[agency], 0.99) / quantile(one["quiet"].waits[agency], 0.99))

    def newcomers(phase, tls, share):
        return quantile([wait for one in rounds for wait in one[phase].waits[NEWCOMER][tls::2]], share)

    attacked = "attack" if "attack" in phases else phases[0]
    cells = [kind, f"{median(lambda one: one[attacked].attacks_per_second):,.0f}",
             f"{median(lambda one: one[attacked].attacker_share):.2f}, "
             f"{median(lambda one: one[attacked].server_share):.2f}"]
    cells += [f"{p99(phase, PLAIN):.2f}; {p99(phase, SECURED):.2f}" for phase in phases]
    cells += [f"{ratio(phase, PLAIN):.2f}; {ratio(phase, SECURED):.2f}" for phase in phases[1:]]
    cells += ["; ".join(f"{newcomers(phase, tls, 0.5):.1f} / {newcomers(phase, tls, 0.99):.1f}" for tls in (0, 1))
              for phase in phases]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
