#!/usr/bin/env python3
"""How long a polite agency waits beside greedy peers, for two programs in turns.

    bench/fairness.py PROGRAM [PROGRAM ...] [--seconds N] [--peers 1,64,1000] [--kinds pages,…]

Each program serves a database with a draw that is drawn, whose agency 1 has many winners,
and then one that is open. Greedy peers keep one kind of request in flight without a
pause, each in a connection of its own:

    pages     pages of an earlier draw's winners
    counted   all winning bets in the counted dialect
    empty     empty batches
    agencies  payloads of 500 agencies, a bet each
    done      DONE with a wrong count
    status    STATUS
    batches   batches of 99 bets, 16 in flight
    uploads   batches of 1,000 bets, 64 in flight or 1 MiB, as `sorteo upload` sends them

Beside them, one polite agency sends a bet, and one asks for STATUS, a request every ten
milliseconds. Prints the median and the 99th percentile of both in milliseconds, and how
many bets were refused as busy. Needs Linux and python3 alone; run it as often as the
machine is noisy.
"""

import argparse
import itertools
import multiprocessing
import os
import pathlib
import select
import socket
import subprocess
import sys
import tempfile
import time

WINNERS = 20_000
IN_FLIGHT_BYTES = 64 << 10
# The limit of `sorteo upload`.
UPLOAD_BYTES = 1 << 20
PAUSE_S = 0.01


def frame(line):
    body = line.encode()
    return len(body).to_bytes(4, "big") + body


def payload(text):
    body = text.encode()
    return b"%d\n%s" % (len(body), body)


ROW = "Ana|Paz|{}|1999-03-17|{}"


def batch(agency, documents):
    rows = [frame(ROW.format(document, 1)) for document in documents]
    return frame(f"BATCH|{agency}|{len(rows)}") + b"".join(rows)


def request(kind, peer):
    """One request of a greedy peer, as bytes."""
    if kind == "agencies":
        return payload("\n".join(f"{ROW.format(1, 1)}|{agency}" for agency in range(1, 501)))
    return {
        "pages": frame("GET_WINNERS|1|0|1"),
        "counted": payload("GET_WINNERS|1"),
        "empty": frame(f"BATCH|{2 + peer}|0"),
        "done": frame("DONE|8000|4000000000"),
        "status": frame("STATUS"),
        "batches": batch(2 + peer, range(99)),
        "uploads": batch(2 + peer, range(1_000)),
    }[kind]


def be_greedy(address, kind, peers, ready, stop):
    """Keeps requests of many connections in flight, and reads what comes back."""
    poll = select.epoll()
    connections = {}
    for peer in range(peers):
        connection = socket.create_connection(address)
        connection.setblocking(False)
        one = request(kind, peer)
        in_flight = UPLOAD_BYTES if kind == "uploads" else IN_FLIGHT_BYTES
        times = 16 if kind == "batches" else max(1, in_flight // len(one))
        connections[connection.fileno()] = (connection, memoryview(one * times), [0])
        poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    ready.set()
    # A peer whose socket is full comes back with the next event.
    while not stop.is_set():
        for descriptor, _ in poll.poll(0.1):
            connection, data, sent = connections[descriptor]
            try:
                while True:
                    if not connection.recv(1 << 20):
                        raise ConnectionError(f"{kind}: the server closed the connection")
            except BlockingIOError:
                pass
            try:
                while True:
                    sent[0] += connection.send(data[sent[0]:])
                    sent[0] %= len(data)
            except BlockingIOError:
                pass


def read_frame(connection, kept):
    while len(kept) < 4 or len(kept) < 4 + int.from_bytes(kept[:4], "big"):
        more = connection.recv(1 << 16)
        if not more:
            raise ConnectionError("the server closed the polite connection")
        kept += more
    length = 4 + int.from_bytes(kept[:4], "big")
    answer = bytes(kept[4:length])
    del kept[:length]
    return answer


def be_polite(address, kind, seconds, results):
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kept, waits, busy = bytearray(), [], 0
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() >= end:
            break
        asked = frame("STATUS") if kind == "status" else frame("BET|8000|" + ROW.format(number, 1))
        began = time.monotonic()
        connection.sendall(asked)
        busy += b"busy" in read_frame(connection, kept)
        waits.append(time.monotonic() - began)
        time.sleep(PAUSE_S)
    results.put((kind, sorted(waits), busy))


def ask(address, request):
    with socket.create_connection(address) as connection:
        connection.sendall(request)
        return read_frame(connection, bytearray()).decode().strip()


def serve(program, folder, agencies):
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    server = subprocess.Popen(
        [program, "serve", "--listen", "127.0.0.1:0", "--database", "lottery.db", "--agencies", str(agencies),
         "--ready-file", str(ready), "--log-level", "error"],
        cwd=folder, stderr=subprocess.DEVNULL)
    while not (ready.exists() and ready.read_text().strip()):
        if server.poll() is not None:
            sys.exit(f"{program} ended with {server.returncode}")
        time.sleep(0.01)
    host, port = ready.read_text().split()[0].rsplit(":", 1)
    return server, (host, int(port))


def prepare(program, folder):
    """Draw 1 has many winners and is drawn; draw 2 is open."""
    server, address = serve(program, folder, 1)
    rows = "\n".join(f"{ROW.format(document, 7574)}|1" for document in range(WINNERS))
    with socket.create_connection(address) as connection:
        for lines in (rows.split("\n")[at:at + 5_000] for at in range(0, WINNERS, 5_000)):
            connection.sendall(payload("\n".join(lines)))
            assert connection.recv(64) == b"3\nACK"
    assert ask(address, frame("DONE|1")) == "ACK_DONE|OK"
    subprocess.run([program, "draw", "open", "--agencies", "9000", "--database", "lottery.db"], cwd=folder,
                   check=True, stdout=subprocess.DEVNULL)
    server.terminate()
    server.wait()


def measure(program, kind, peers, seconds):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(program, folder)
        server, address = serve(program, folder, 9000)
        ready, stop = multiprocessing.Event(), multiprocessing.Event()
        greedy = multiprocessing.Process(target=be_greedy, args=(address, kind, peers, ready, stop))
        greedy.start()
        ready.wait()
        results = multiprocessing.Queue()
        polite = [multiprocessing.Process(target=be_polite, args=(address, kind, seconds, results))
                  for kind in ("bet", "status")]
        for process in polite:
            process.start()
        found = {}
        try:
            for _ in polite:
                what, waits, busy = results.get(timeout=seconds + 120)
                found[what] = (waits[len(waits) // 2] * 1e3, waits[int(len(waits) * 0.99)] * 1e3, busy, len(waits))
        except Exception as error:
            print(f"{kind}: {error!r}", file=sys.stderr)
        stop.set()
        for process in [*polite, greedy]:
            process.join(2)
            process.kill()
        server.kill()
        server.wait()
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--peers", default="1,64,1000")
    parser.add_argument("--kinds", default="pages,counted,empty,agencies,done,status,batches,uploads")
    args = parser.parse_args()
    print(f"{'kind':9} {'peers':>5}  {'program':20} {'bet p50':>9} {'p99':>9} {'busy':>9}  {'status p50':>10} {'p99':>9}")
    for kind in args.kinds.split(","):
        for peers in map(int, args.peers.split(",")):
            for program in args.programs:
                found = measure(os.path.abspath(program), kind, peers, args.seconds)
                bet, status = found.get("bet"), found.get("status")
                cells = [f"{bet[0]:9.1f} {bet[1]:9.1f} {bet[2]:4}/{bet[3]:<4}" if bet else f"{'none':>9} {'':19}",
                         f"{status[0]:10.1f} {status[1]:9.1f}" if status else f"{'none':>10}"]
                print(f"{kind:9} {peers:5}  {pathlib.Path(program).name:20} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
