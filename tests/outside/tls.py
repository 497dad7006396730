#!/usr/bin/env python3
"""Talks TLS to the real program with `openssl s_client`, and checks who is served.

The certificates are made by `openssl` too, so that neither side of a session,
nor what it trusts, has any of the program's code.

    tests/outside/tls.py [--binary target/release/sorteo]

Needs python3 and openssl. Ends with a line `N passed, N failed`.
"""

import argparse
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from outside import BINARY, Checks, command, frame, start_server

DEADLINE_S = 30
STATUS = frame(b"STATUS")
SERVED = frame(b"STATUS|OK|1|open|0|2|0\n")
HYBRID = "X25519MLKEM768"


class Authority:
    """A certificate authority in a folder of its own, run by `openssl ca`."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "index.txt").touch()
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("1000\n")
        self.config = self.folder / "ca.cnf"
        self.config.write_text(f"""
[ca]
default_ca = here
[here]
dir = {self.folder}
database = $dir/index.txt
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
""")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={name}", "-keyout", self.folder / "ca.key", "-out", self.folder / "ca.pem")

    def issue(self, name, alternative, *dates):
        """Returns the files of a certificate with this alternative name, and of its key."""
        request, key, cert = (self.folder / f"{name}.{end}" for end in ("csr", "key", "pem"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", request, "-addext", f"subjectAltName={alternative}")
        openssl("ca", "-batch", "-notext", "-config", self.config, "-in", request, "-out", cert, *dates)
        key.chmod(0o600)
        return cert, key

    def revoke(self, cert):
        openssl("ca", "-config", self.config, "-revoke", cert)

    def crl(self):
        path = self.folder / "crl.pem"
        openssl("ca", "-config", self.config, "-gencrl", "-out", path)
        return path


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"openssl {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


class Session:
    """What `openssl s_client` printed, and what the server replied to STATUS."""

    def __init__(self, address, *options):
        client = subprocess.Popen(
            ["openssl", "s_client", "-connect", "%s:%d" % address, "-servername", "localhost", "-brief",
             *map(str, options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            client.stdin.write(STATUS)
            client.stdin.flush()
        except BrokenPipeError:
            pass
        # Its input stays open while a reply may come: at its end it closes the session.
        deadline = time.monotonic() + DEADLINE_S
        self.reply = b""
        while len(self.reply) < len(SERVED) and time.monotonic() < deadline:
            more = client.stdout.read1(4096)
            if not more:
                break
            self.reply += more
        _, told = client.communicate(timeout=DEADLINE_S)
        self.told = told.decode(errors="replace")

    def is_served(self):
        return self.reply == SERVED


def plain(address, request):
    """Returns what a peer without TLS gets before the end."""
    with socket.create_connection(address, timeout=DEADLINE_S) as peer:
        peer.sendall(request)
        got = b""
        try:
            while more := peer.recv(4096):
                got += more
        except ConnectionResetError:
            pass
        return got


def wait_for_line(log, text, times=1):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if log.read_text(encoding="utf-8").count(text) >= times:
            return True
        time.sleep(0.02)
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, default=BINARY)
    binary = parser.parse_args().binary
    if shutil.which("openssl") is None:
        print("skipped: there is no openssl here\n0 passed, 0 failed")
        return 0
    check = Checks()
    with tempfile.TemporaryDirectory() as folder:
        run(check, binary, pathlib.Path(folder))
    return check.conclude()


def run(check, binary, folder):
    site, foreign = Authority(folder, "site"), Authority(folder, "foreign")
    server = site.issue("server", "DNS:localhost,IP:127.0.0.1")
    good = site.issue("good", "URI:urn:sorteo:agency:1")
    revoked = site.issue("revoked", "URI:urn:sorteo:agency:2")
    site.revoke(revoked[0])
    expired = site.issue("expired", "URI:urn:sorteo:agency:3", "-startdate", "20200101000000Z", "-enddate",
                         "20210101000000Z")
    early = site.issue("early", "URI:urn:sorteo:agency:4", "-startdate", "20480101000000Z", "-enddate",
                       "20490101000000Z")
    nobody = site.issue("agency-1", "DNS:agency-1.example")
    two = site.issue("two", "URI:urn:sorteo:agency:5,URI:urn:sorteo:agency:6")
    stranger = foreign.issue("stranger", "URI:urn:sorteo:agency:1")
    trust = ["-CAfile", site.folder / "ca.pem", "-verify_return_error", "-verify_hostname", "localhost"]
    flags = ["--agencies", "2", "--auth", "optional", "--tls-cert", server[0], "--tls-key", server[1], "--tls-client-ca",
             site.folder / "ca.pem", "--tls-crl", site.crl()]

    process, address = start(binary, folder, "required", flags)
    log = folder / "required" / "log"
    session = Session(address, *trust)
    check("a client without a certificate is served over TLS", session.is_served(), session.told)
    check("the protocol is TLS 1.3", "TLSv1.3" in session.told, session.told)
    check("the server's certificate is verified", "Verification: OK" in session.told, session.told)
    session = Session(address, *trust, "-alpn", "sorteo/1")
    check("the protocol sorteo/1 is taken", session.is_served(), session.told)
    session = Session(address, *trust, "-alpn", "http/1.1")
    check("another protocol is refused", not session.reply and "no application protocol" in session.told.lower(),
          session.told)
    session = Session(address, *trust, "-tls1_2")
    check("TLS 1.2 is refused", not session.reply and "alert protocol version" in session.told, session.told)
    session = Session(address, *trust, "-groups", "X25519")
    check("X25519 alone is served", session.is_served(), session.told)
    check_hybrid(check, address, trust)
    for request in (STATUS, b"13\nGET_WINNERS|1", b"GET / HTTP/1.1\r\n\r\n"):
        got = plain(address, request)
        check(f"plain {request[:12]!r} is closed without a reply", got == b"", got)
    check("and logged as tls_required", wait_for_line(log, "error: tls_required"))

    session = Session(address, *trust, "-cert", good[0], "-key", good[1])
    check("a certificate of an agency is served", session.is_served(), session.told)
    reasons = []
    for what, (cert, key), reason in (
            ("expired", expired, "certificate_expired"), ("not yet valid", early, "certificate_not_yet_valid"),
            ("foreign", stranger, "certificate_unknown_issuer"), ("revoked", revoked, "certificate_revoked"),
            ("nobody's", nobody, "certificate_without_agency"), ("two agencies'", two, "certificate_without_agency")):
        session = Session(address, *trust, "-cert", cert, "-key", key)
        check(f"a certificate that is {what} is refused with an alert", not session.reply and
              "alert" in session.told, session.told)
        reasons.append(reason)
        check(f"and logged as {reason}", wait_for_line(log, f"reason: {reason}", reasons.count(reason)))

    site.revoke(good[0])
    site.crl()
    process.send_signal(signal.SIGHUP)
    check("SIGHUP takes a new CRL", wait_for_line(log, "config | result: success | tls_cert: "))
    session = Session(address, *trust, "-cert", good[0], "-key", good[1])
    check("a certificate that was revoked meanwhile is refused", not session.reply, session.told)
    stop(check, process)

    process, address = start(binary, folder, "optional", flags)
    check("where TLS is optional, both ways are served",
          Session(address, *trust).is_served() and half_closed(address) == SERVED)
    stop(check, process)

    process, address = start(binary, folder, "off", ["--agencies", "2"])
    session = Session(address, *trust)
    check("where TLS is off, nothing comes of a handshake", not session.reply and "TLSv1.3" not in session.told,
          session.told)
    check("and plain peers are served", half_closed(address) == SERVED)
    stop(check, process)

    server[1].chmod(0o644)
    told = subprocess.run([binary, "config", "check", "--tls", "required", *map(str, flags)], capture_output=True,
                          text=True, check=False)
    check("a key that others can read is refused with exit code 78", told.returncode == 78 and
          "chmod 600" in told.stderr and told.stderr.count("\n") == 1, told)


def check_hybrid(check, address, trust):
    """The hybrid key exchange, if this openssl has it: from 3.5 on."""
    groups = subprocess.run(["openssl", "list", "-kem-algorithms"], capture_output=True, text=True, check=False).stdout
    if not re.search(HYBRID, groups, re.IGNORECASE):
        print(f"skipped: this openssl has no {HYBRID}; tests/it/server/tls shows it with a client of rustls")
        return
    session = Session(address, *trust)
    check("the key exchange is the hybrid one", HYBRID.lower() in session.told.lower(), session.told)


def half_closed(address):
    with socket.create_connection(address, timeout=DEADLINE_S) as peer:
        peer.sendall(STATUS)
        peer.shutdown(socket.SHUT_WR)
        got = b""
        while more := peer.recv(4096):
            got += more
        return got


def start(binary, folder, mode, flags):
    own = folder / mode
    own.mkdir()
    return start_server(binary, own / "sorteo.db", own, "--tls", mode, *flags)


def stop(check, process):
    process.terminate()
    check("the server stops well", process.wait(DEADLINE_S) == 0)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
