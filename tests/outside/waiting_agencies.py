#!/usr/bin/env python3
"""Five thousand connections that wait for the draw are answered when it happens.

    tests/outside/waiting_agencies.py [--connections 5000] [--binary target/release/sorteo]

A third of them send another request behind their wait, a third shut down their
sending side. Before the draw none may be answered, and waiting may take no processor
time; after it each must get the winners of its own agency, while another connection
is still served. How long that takes is printed, and fails no check. Ends with a
line `N passed, N failed`.
"""

import argparse
import pathlib
import selectors
import signal
import socket
import sys
import tempfile
import time

from outside import BINARY, DEADLINE_S, Checks, allow_connections, answer, ask, connect, frame, processor_share, start_server

AGENCIES = 5
WINNING_NUMBER = 7574
WINNERS_OF_EACH = 100
# Less than the longest wait that the protocol allows, more than the test takes.
WAIT_MS = 60_000
# How long the server is watched while all wait, and which share of a core it may use meanwhile.
WATCHED_S = 2
IDLE_SHARE_MAX = 0.01


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=BINARY)
    options.add_argument("--connections", type=int, default=5000)
    options = options.parse_args()
    count = allow_connections(options.connections)
    with tempfile.TemporaryDirectory(prefix="sorteo-waiting-") as folder:
        failed = run(options.binary, pathlib.Path(folder), count)
    sys.exit(failed != 0)


def run(binary, folder, count):
    check = Checks()
    server, address = start_server(binary, folder / "sorteo.db", folder, "--agencies", str(AGENCIES),
                                   "--winning-number", str(WINNING_NUMBER))
    with connect(address) as peer:
        for agency in range(1, AGENCIES + 1):
            bets = [b"Ana|Paz|%d|1999-03-17|%d" % (agency * 1000 + bet, WINNING_NUMBER)
                    for bet in range(WINNERS_OF_EACH)]
            ask(peer, b"BATCH|%d|%d" % (agency, len(bets)), *bets)
        for agency in range(1, AGENCIES):
            ask(peer, b"DONE|%d" % agency)
        waiting = selectors.DefaultSelector()
        agency_of = {}
        for index in range(count):
            waiter = connect(address)
            agency_of[waiter] = index % AGENCIES + 1
            waiter.sendall(frame(b"WAIT_WINNERS|%d|%d" % (agency_of[waiter], WAIT_MS)))
            waiting.register(waiter, selectors.EVENT_READ)
        # Once this is answered, the server holds all the waits. What comes behind a
        # wait is handled after it, and must not keep the server busy until then.
        ask(peer, b"STATUS")
        for index, waiter in enumerate(agency_of):
            if index % 3 == 1:
                waiter.sendall(frame(b"STATUS"))
            elif index % 3 == 2:
                waiter.shutdown(socket.SHUT_WR)
        share = processor_share(server.pid, WATCHED_S)
        check(f"{count} waits take no processor time: {share:.2%} of a core", share < IDLE_SHARE_MAX)
        check("none is answered before the draw", not waiting.select(timeout=0))

        began = time.monotonic()
        ask(peer, b"DONE|%d" % AGENCIES)
        drawn = time.monotonic()
        answers, times, asked = {}, [], []
        while len(answers) < count and time.monotonic() < drawn + DEADLINE_S:
            # Another connection must be served while the waits are answered.
            before = time.monotonic()
            ask(peer, b"STATUS")
            asked.append(time.monotonic() - before)
            for key, _ in waiting.select(timeout=1):
                answers[key.fileobj] = answer(key.fileobj)
                times.append(time.monotonic() - drawn)
                waiting.unregister(key.fileobj)
        check("each is answered", len(answers) == count, f"{len(answers)} of {count}")
        expected = {agency: ask(peer, b"GET_WINNERS|%d|0" % agency) for agency in range(1, AGENCIES + 1)}
        check("the winners are there", all(one.count(b",") == WINNERS_OF_EACH - 1 for one in expected.values()),
              expected)
        wrong = [got for waiter, got in answers.items() if got != expected[agency_of[waiter]]]
        check("each gets the winners of its own agency", not wrong, wrong[:3])
        times.sort()
        print(f"the draw in {1000 * (drawn - began):.1f} ms; answers after it, in ms: median "
              f"{1000 * times[len(times) // 2]:.0f}, the last {1000 * times[-1]:.0f}; a STATUS meanwhile: "
              f"at most {1000 * max(asked):.1f}")
    for waiter in agency_of:
        waiter.close()
    server.send_signal(signal.SIGTERM)
    check("SIGTERM: exit 0", server.wait(timeout=DEADLINE_S) == 0, server.returncode)
    return check.conclude()


if __name__ == "__main__":
    main()
