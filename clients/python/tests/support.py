"""What the tests need around the client: a real server, a scripted one, and a proxy."""

import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from sorteo_client import Bet

ROOT = pathlib.Path(__file__).resolve().parents[3]
DEADLINE_S = 60.0

Address = Tuple[str, int]


def bets(count: int, first_name: str = "Ana", number: int = 1234) -> List[Bet]:
    """Makes bets that differ from each other."""
    return [Bet(first_name, "Paz", str(index), "1999-03-17", number) for index in range(count)]


def seeded() -> random.Random:
    """A source of random numbers that a failure can be repeated with."""
    seed = int(os.environ.get("SORTEO_SEED", random.randrange(2**32)))
    print(f"SORTEO_SEED={seed}", flush=True)
    return random.Random(seed)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {DEADLINE_S:g} s")
        time.sleep(0.01)


def binary() -> pathlib.Path:
    path = pathlib.Path(os.environ.get("SORTEO_BIN", ROOT / "target" / "release" / "sorteo"))
    if not path.is_file():
        raise FileNotFoundError(f"no server at {path}: build it, or set SORTEO_BIN")
    return path


def environment() -> Dict[str, str]:
    """The environment without settings for a server, which refuses those that it does not know."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SORTEO_")}


class Server:
    """The real server, on a database of its own. It can be killed and started again at the same address."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)
        self.database = str(self.folder / "x.db")
        self.address: Address = ("127.0.0.1", 0)
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self.start()

    def start(self) -> None:
        ready = self.folder / "ready"
        if ready.exists():
            ready.unlink()
        host, port = self.address
        command = [str(binary()), "serve", "--listen", f"{host}:{port}", "--database", self.database]
        with open(self.folder / "log", "ab") as log:
            command += ["--agencies", "1", "--ready-file", str(ready), *self._flags]
            self._process = subprocess.Popen(command, stderr=log, stdout=log, env=environment())
        wait_until(lambda: self._is_ready(ready), "the server being ready")
        self.address = (host, int(ready.read_text().strip().rpartition(":")[2]))

    def _is_ready(self, ready: pathlib.Path) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError("the server ended: " + (self.folder / "log").read_text()[-2000:])
        return ready.exists() and ready.read_text().endswith("\n")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._folder.cleanup()

    def command(self, *arguments: str) -> str:
        """Runs another command of the server's binary on the database, and returns what it prints."""
        command = [str(binary()), *arguments, "--database", self.database]
        return subprocess.check_output(command, text=True, env=environment())

    def stored(self, draw: int = 1) -> List[Bet]:
        """The bets of a draw, sorted."""
        lines = self.command("export", "bets", "--format", "jsonl", "--draw", str(draw)).splitlines()
        return sorted(Bet(*(row[field] for field in Bet._fields)) for row in map(json.loads, lines))


class Peer:
    """The server's end of a connection to the scripted server."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(DEADLINE_S)

    def request(self) -> str:
        """Reads one frame; "" at the end of the connection."""
        header = self._exactly(4)
        return self._exactly(struct.unpack(">I", header)[0]).decode() if header else ""

    def batch(self) -> str:
        """Reads a batch and returns its header."""
        header = self.request()
        if header.split("|")[0] != "BATCH":
            raise AssertionError(f"{header!r} instead of a batch")
        for _ in range(int(header.split("|")[2])):
            self.request()
        return header

    def batch_comes(self) -> bool:
        """Whether more arrives soon. Only a False is certain to be what it seems for a client that is right."""
        self.connection.settimeout(0.2)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) != b""
        except socket.timeout:
            return False
        finally:
            self.connection.settimeout(DEADLINE_S)

    def reply(self, line: str) -> None:
        payload = line.encode() + b"\n"
        self.connection.sendall(struct.pack(">I", len(payload)) + payload)

    def greet(self, words: str = "draws,uploads,pages,waits,new", version: str = "1") -> None:
        self._ask_for("HELLO", f"HELLO|OK|{version}|{words}")
        self._ask_for("STATUS", "STATUS|OK|3|open|0|1|0")

    def resume(self, next_row: int) -> None:
        self._ask_for("RESUME", f"RESUME|OK|{next_row}")

    def _ask_for(self, verb: str, reply: str) -> None:
        request = self.request()
        if request.split("|")[0] != verb:
            raise AssertionError(f"{request!r} instead of {verb}")
        self.reply(reply)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.connection.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                return b""
            data += piece
        return data


Script = Callable[[Peer], None]


class Listener:
    """Accepts connections on a free port of this machine, and handles each in a thread."""

    def __init__(self, handle: Callable[[socket.socket, int], None]) -> None:
        self._handle = handle
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listening.getsockname()[:2]
        self.connections = 0
        self._open: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            number = self.connections
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._handle, args=(connection, number))
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for connection in self._open:
            hang_up(connection)
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()


class ScriptedServer(Listener):
    """Carries out one script for each connection; after the last, it closes connections at once."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._failures: List[BaseException] = []
        super().__init__(self._follow)

    def _follow(self, connection: socket.socket, number: int) -> None:
        try:
            if number < len(self._scripts):
                self._scripts[number](Peer(connection))
        except ConnectionError:
            pass  # the client has gone before the end of the script
        except BaseException as failure:
            self._failures.append(failure)
        hang_up(connection)

    def close(self) -> None:
        """Ends, and raises the first failure of a script."""
        super().close()
        if self._failures:
            raise self._failures[0]


class Proxy(Listener):
    """Passes bytes on to a server, at a limited rate and, on the first connection, only so many of them."""

    def __init__(
        self, server: Address, up_bytes: Optional[int] = None, down_bytes: Optional[int] = None, rate: int = 0
    ) -> None:
        self._server = server
        self._limits = (up_bytes, down_bytes)
        self._rate = rate
        super().__init__(self._serve)

    def _serve(self, client: socket.socket, number: int) -> None:
        up_bytes, down_bytes = self._limits if number == 0 else (None, None)
        with socket.create_connection(self._server) as server:
            down = threading.Thread(target=self._pass_on, args=(server, client, down_bytes))
            down.start()
            self._pass_on(client, server, up_bytes)
            down.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, limit: Optional[int]) -> None:
        """Passes bytes on until one side ends or the limit is reached, and then ends both."""
        left = 1 << 40 if limit is None else limit
        try:
            while left:
                data = source.recv(min(left, max(1, self._rate // 20) if self._rate else 65536))
                if not data:
                    break
                target.sendall(data)
                left -= len(data)
                if self._rate:
                    time.sleep(len(data) / self._rate)
        except OSError:
            pass
        hang_up(source)
        hang_up(target)


def hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
