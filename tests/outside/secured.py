#!/usr/bin/env python3
"""Types docs/operating.md's "From nothing to a secured server" as it stands, and checks what comes of it.

    tests/outside/secured.py [--binary target/release/sorteo]

One shell runs the section's blocks in their order, in a scratch folder: what is in a
block `sh` must succeed, and what a block `console` shows must be printed. After each
heading follow the checks of CHECKS, with sockets and ssl of Python and none of the
program's code. (What the section says about systemd is not typed: systemd.sh boots the
unit.) The page's ports are fixed, so the shell has a network of its own
(`unshare --net`); where that is not allowed, the ports must be free.

Needs python3, bash, openssl 3 and curl. Ends with a line `N passed, N failed`.
"""

import argparse
import json
import os
import pathlib
import re
import select
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time

from outside import BINARY, ROOT, Checks, frame

PAGE = ROOT / "docs" / "operating.md"
SECTION = "From nothing to a secured server"
# Of a block of commands, and of what the server does about one. No speed is tested.
BLOCK_DEADLINE_S, DEADLINE_S = 120, 30
AGENCIES = ["1", "2", "3", "4", "5"]
AGENCIES_PORT, OPERATORS_PORT = ("127.0.0.1", 12345), ("127.0.0.1", 9090)
# What differs each time, in what the page shows and in what is printed.
VARYING = [(r"\b[0-9a-f]{16}\b", "ID"), (r"\d{4}-\d\d-\d\d \d\d:\d\d|\bnever\b", "TIME"), (r" +", " ")]


def parts(text):
    """The section's headings, each with its blocks: (language, text)."""
    section = re.search(rf"^## {SECTION}\n(.*?)^## ", text, re.M | re.S).group(1)
    headed = re.split(r"^### (.*)\n", section, flags=re.M)[1:]
    return [(heading, re.findall(r"^```(\w+)\n(.*?)^```", body, re.M | re.S))
            for heading, body in zip(headed[::2], headed[1::2])]


class Shell:
    """A bash that is typed into; what it prints comes back with each exit code."""

    def __init__(self, folder, environment):
        self.process = subprocess.Popen(["bash", "--norc"], cwd=folder, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.count = 0

    def type(self, text):
        self.count += 1
        mark = f"--typed-{self.count}--"
        self.process.stdin.write(f"{text}\nprintf '\\n%s %s\\n' {mark} $?\n".encode())
        printed, deadline = b"", time.monotonic() + BLOCK_DEADLINE_S
        while not (found := re.search(rf"\n{mark} (\d+)\n".encode(), printed)):
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                sys.exit(f"no end of:\n{text}\nprinted so far:\n{printed.decode()}")
            more = self.process.stdout.read(65536)
            if not more:
                sys.exit(f"the shell ended in:\n{text}\n{printed.decode()}")
            printed += more
        return printed[:found.start()].decode(), int(found.group(1))

    def end(self):
        self.process.stdin.write(b'kill "$server" 2>/dev/null; wait; exit\n')
        self.process.communicate(timeout=DEADLINE_S)


def normal(text):
    text += "\n"
    for varying, word in VARYING:
        text = re.sub(varying, word, text)
    return text.strip("\n")


def type_block(check, shell, heading, language, text):
    if language == "console":
        for shown in re.split(r"^\$ ", text, flags=re.M)[1:]:
            typed, _, expected = shown.partition("\n")
            printed, _ = shell.type(typed)
            check(f"{heading}: $ {typed[:60]}", normal(printed) == normal(expected), f"it printed\n{printed}")
        return
    # Stops at the first command that fails, and says so with the exit code.
    printed, code = shell.type(f"set -e\n{text}set +e")
    check(f"{heading}: {text.strip().splitlines()[0][:60]}…", code == 0, printed)


class Tls:
    """A connection over TLS to one of the server's ports."""

    def __init__(self, folder, address, name="localhost"):
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        self.socket = context.wrap_socket(socket.create_connection(address, timeout=DEADLINE_S), server_hostname=name)

    def ask(self, *lines):
        self.socket.sendall(b"".join(frame(line.encode()) for line in lines))
        return [self.answer() for _ in lines]

    def ask_counted(self, payload):
        self.socket.sendall(f"{len(payload.encode())}\n{payload}".encode())
        digits = b""
        while not digits.endswith(b"\n"):
            digits += self.read(1) or b"\n"
        return self.read(int(digits)).decode()

    def answer(self):
        length = int.from_bytes(self.read(4), "big")
        return self.read(length).decode().strip()

    def read(self, length):
        got = b""
        while len(got) < length:
            more = self.socket.recv(length - len(got))
            if not more:
                return got
            got += more
        return got

    def is_closed(self):
        try:
            return self.read(1) == b""
        except TimeoutError:
            return False

    def http(self, method, path, headers="", body=""):
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost:9090\r\nConnection: close\r\n{headers}"
                            f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        got = b""
        while more := self.socket.recv(65536):
            got += more
        return got.decode()

    def serial(self):
        return self.socket.getpeercert()["serialNumber"]


def token(folder, name):
    return (folder / f"{name}.token").read_text(encoding="ascii").strip()


def auth(folder, agency):
    return f"AUTH|{agency}|{token(folder, f'agency-{agency}')}"


def plain(address, request=b"\0\0\0\6STATUS"):
    with socket.create_connection(address, timeout=DEADLINE_S) as peer:
        peer.sendall(request)
        try:
            return peer.recv(4096)
        except ConnectionResetError:
            return b""


def winners_of_file(folder, agency):
    rows = (folder / "data" / f"agency-{agency}.csv").read_text(encoding="utf-8").splitlines()
    return [row.split(",")[2] for row in rows if row.endswith(",7574")]


def after_certificate(check, folder, _):
    modes = {name: stat.filemode((folder / name).stat().st_mode) for name in ("ca.key", "server.key")}
    check("the keys are for their owner alone", set(modes.values()) == {"-rw-------"}, modes)
    verified = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "server.pem"], cwd=folder,
                              capture_output=True, text=True, check=False)
    check("the authority's certificate verifies the server's", verified.stdout == "server.pem: OK\n", verified.stderr)


def after_server(check, folder, _):
    check("a peer without TLS gets nothing at the agencies' port", plain(AGENCIES_PORT) == b"")
    check("nor at the operators'", plain(OPERATORS_PORT, b"GET / HTTP/1.0\r\n\r\n") == b"")
    check("a peer without a token is refused",
          Tls(folder, AGENCIES_PORT).ask("STATUS") == ["STATUS|ERR|unauthorized"])


def after_tokens(check, folder, _):
    files = sorted(path.name for path in folder.glob("*.token*"))
    expected = [f"agency-{agency}.token" for agency in AGENCIES] + ["ana.token", "prometheus.token"]
    check("there is a file for each token, and no other", files == expected, files)
    modes = {(folder / name).stat().st_mode & 0o777 for name in files}
    check("they are for their owner alone", modes == {0o600}, modes)
    texts = [(folder / name).read_text(encoding="ascii") for name in files]
    check("each holds a token", all(re.fullmatch(r"sorteo_[0-9a-f]{16}_[0-9a-f]{64}\n", text) for text in texts))


def after_page(check, folder, _):
    signed_in = Tls(folder, OPERATORS_PORT).http("POST", "/sign-in", "Content-Type: application/x-www-form-urlencoded\r\n"
                                                 "Sec-Fetch-Site: same-origin\r\n", f"token={token(folder, 'ana')}")
    cookie = re.search(r"^set-cookie: (sorteo_session=[0-9a-f]+); (.*)\r$", signed_in, re.M | re.I)
    check("Ana signs in", signed_in.startswith("HTTP/1.1 303") and cookie, signed_in)
    check("her cookie is for TLS alone, and for no script",
          cookie and {"HttpOnly", "SameSite=Strict", "Secure"} <= set(cookie.group(2).split("; ")), signed_in)
    with_cookie = Tls(folder, OPERATORS_PORT).http("GET", "/api/status", f"Cookie: {cookie.group(1)}\r\n")
    check("with it she sees the draw", with_cookie.startswith("HTTP/1.1 200"), with_cookie)
    status = json.loads(with_cookie.split("\r\n\r\n", 1)[1])
    check("and that nothing is open", status["unprotected"] == [], status)
    bearer = f"Authorization: Bearer {token(folder, 'agency-1')}\r\n"
    check("an agency's token is none of an operator's",
          Tls(folder, OPERATORS_PORT).http("GET", "/api/status", bearer).startswith("HTTP/1.1 401"))


def after_agencies(check, folder, _):
    expected = {agency: winners_of_file(folder, agency) for agency in AGENCIES}
    check("there are winners", sum(map(len, expected.values())) > 4, expected)
    got = {agency: (folder / f"winners-{agency}.txt").read_text(encoding="utf-8").split() for agency in AGENCIES}
    check("each agency has the winners of its file", got == expected, got)
    of_two = Tls(folder, AGENCIES_PORT).ask(auth(folder, 1), "GET_WINNERS|2", "GET_WINNERS|1")
    check("agency 1 is refused agency 2's winners, and gets its own",
          of_two == ["ACK|OK", "WINNERS|ERR|forbidden", "WINNERS|OK|" + ",".join(expected["1"])], of_two)
    counted = Tls(folder, AGENCIES_PORT)
    row = "Ana|Paz|30904465|1999-03-17|7574"
    replies = [counted.ask_counted(payload) for payload in
               (auth(folder, 1), "GET_WINNERS|2", f"{row}|2", f"{row}|1\n{row}|2")]
    check("in the other dialect too, and within a payload of both",
          replies == ["ACK", *["ERROR_INVALID_AGENCY"] * 3], replies)
    for role, code in (("prometheus", "403"), ("ana", "200")):
        bearer = f"Authorization: Bearer {token(folder, role)}\r\n"
        response = Tls(folder, OPERATORS_PORT).http("GET", "/api/draws/1/results", bearer)
        check(f"{role} gets {code} for the results", response.startswith(f"HTTP/1.1 {code}"), response)


def before_replacing(_check, folder, kept):
    kept["old token"] = auth(folder, 1)


def after_replacing(check, folder, kept):
    check("the token is another one", kept["old token"] != auth(folder, 1))
    for name, line in (("old", kept["old token"]), ("new", auth(folder, 1))):
        check(f"the {name} token is valid", Tls(folder, AGENCIES_PORT).ask(line) == ["ACK|OK"])


def before_revoking(check, folder, kept):
    kept["revoked"], kept["line"] = Tls(folder, AGENCIES_PORT), auth(folder, 2)
    check("agency 2 is connected", kept["revoked"].ask(kept["line"]) == ["ACK|OK"])


def after_revoking(check, folder, kept):
    check("its connection is closed", kept["revoked"].is_closed())
    refused = Tls(folder, AGENCIES_PORT).ask(kept["line"])
    check("its token is refused", refused == ["ACK|ERR|unauthorized"], refused)
    check("its new one is not", Tls(folder, AGENCIES_PORT).ask(auth(folder, 2)) == ["ACK|OK"])


def before_renewing(check, folder, kept):
    kept["established"] = Tls(folder, AGENCIES_PORT)
    check("agency 3 is connected", kept["established"].ask(auth(folder, 3)) == ["ACK|OK"])


def after_renewing(check, folder, kept):
    old, deadline = kept["established"].serial(), time.monotonic() + DEADLINE_S
    while (new := Tls(folder, AGENCIES_PORT).serial()) == old and time.monotonic() < deadline:
        time.sleep(0.1)
    check("new connections get the new certificate", new != old, old)
    check("so do operators", Tls(folder, OPERATORS_PORT).serial() == new)
    check("the established connection goes on", kept["established"].ask("STATUS")[0].startswith("STATUS|OK|1|drawn"))


def after_moving(check, folder, _):
    check("a peer without TLS gets nothing again", plain(AGENCIES_PORT) == b"")
    check("with its token, agency 4 is served", Tls(folder, AGENCIES_PORT).ask(auth(folder, 4)) == ["ACK|OK"])


def while_optional(check, folder, _):
    reply = plain(AGENCIES_PORT)
    check("a peer without anything is served", reply[4:].startswith(b"STATUS|OK|1|drawn|5|5|"), reply)
    check("and one with a token too", Tls(folder, AGENCIES_PORT).ask(auth(folder, 4)) == ["ACK|OK"])


# By heading: what is done before its first block, after its last, and after each block `console`.
CHECKS = {
    "A certificate": (None, after_certificate, None),
    "The server": (None, after_server, None),
    "Tokens": (None, after_tokens, None),
    "The operators' page": (None, after_page, None),
    "The agencies": (None, after_agencies, None),
    "Replace a token": (before_replacing, after_replacing, None),
    "Revoke a token": (before_revoking, after_revoking, None),
    "Renew the certificate": (before_renewing, after_renewing, None),
    "Move agencies over": (None, after_moving, while_optional),
}


def run(check, binary, scratch):
    environment = {"PATH": f"{binary.parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HOME": str(scratch)}
    shell, folder, kept = Shell(scratch, environment), scratch / "lottery", {}
    try:
        typed = parts(PAGE.read_text(encoding="utf-8"))
        headings = [heading for heading, _ in typed if heading in CHECKS]
        check("the section has every heading that is checked", headings == list(CHECKS), headings)
        for heading, blocks in typed:
            before, after, beside = CHECKS.get(heading, (None, None, None))
            if heading not in CHECKS:
                continue
            if before:
                before(check, folder, kept)
            for language, text in blocks:
                type_block(check, shell, heading, language, text)
                if beside and language == "console":
                    beside(check, folder, kept)
            after(check, folder, kept)
        log = (folder / "server.log").read_text(encoding="utf-8")
        secrets = [token(folder, path.stem).split("_")[2] for path in folder.glob("*.token")]
        check("no token is in the log", not any(secret in log for secret in secrets))
    finally:
        shell.end()


def in_network_of_its_own():
    """Starts this program again where all ports are free, if that is allowed."""
    if "--here" in sys.argv or shutil.which("unshare") is None:
        return
    arguments = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    loopback = "ip link set lo up"
    if subprocess.run([*arguments, "sh", "-c", loopback], capture_output=True, check=False).returncode == 0:
        os.execvp("unshare", [*arguments, "sh", "-c", f'{loopback} && exec "$@"', "sh",
                              sys.executable, *sys.argv, "--here"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    parser.add_argument("--here", action="store_true", help="in this network, whose ports 12345 and 9090 are free")
    binary = parser.parse_args().binary.resolve()
    for tool in ("bash", "openssl", "curl"):
        if shutil.which(tool) is None:
            print(f"skipped: there is no {tool} here\n0 passed, 0 failed")
            return 0
    in_network_of_its_own()
    check = Checks()
    with tempfile.TemporaryDirectory() as scratch:
        run(check, binary, pathlib.Path(scratch))
    return check.conclude()


if __name__ == "__main__":
    sys.exit(main())
