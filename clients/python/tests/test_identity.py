"""Tokens and TLS, against a scripted server with certificates of its own, and the real one."""

import contextlib
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import unittest
from typing import Any, List, Optional
from unittest import mock

from sorteo_client import (
    BadIdentity, Client, Event, Forbidden, IncompatibleServer, ProtocolError, Refused, Retrying, Settings, SorteoError,
    Stored, Tls, Unauthorized, Unreachable, UntrustedServer, encode_request, read_token,
)
from tests.support import DEADLINE_S, Peer, Script, ScriptedServer, Server, bets, wait_until
from tests.test_client import WithServer, answers

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "example.py"
OLD = "sorteo_" + "0a" * 8 + "_" + "1b" * 32
NEW = "sorteo_" + "2c" * 8 + "_" + "3d" * 32
QUICK = Settings(batch_rows=2, give_up_after_s=5)
IMPATIENT = Settings(give_up_after_s=0.3)


class WithFiles(WithServer):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.token_file = self.write("token", OLD + "\n")

    def write(self, name: str, content: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_bytes(content.encode())
        path.chmod(mode)
        return str(path)

    def identified(
        self, *scripts: Script, tls: Optional[Tls] = None, host: str = "", settings: Settings = QUICK
    ) -> Client:
        """A client with a token, and perhaps TLS."""
        self.server = ScriptedServer(*scripts)
        self.addCleanup(self.server.close)
        address, port = self.server.address
        identity: Any = {"token_file": self.token_file, "tls": tls}
        client = Client(host or address, port, 1, settings=settings, observer=self.events.append, **identity)
        self.addCleanup(client.close)
        return client

    def assert_no_secret(self, *shown: object) -> None:
        for secret in (OLD, NEW):
            self.assertNotIn(secret[24:], " ".join(f"{thing} {thing!r}" for thing in shown))


def auth(token: str = OLD, reply: str = "ACK|OK", then: Script = lambda peer: None) -> Script:
    """A server that expects a token first, and replies when more has come: the client does not wait."""

    def script(peer: Peer) -> None:
        request = peer.request()
        if request != f"AUTH|1|{token}":
            raise AssertionError(f"{request!r} instead of AUTH")
        if not peer.batch_comes():
            raise AssertionError("the client waits for the reply to AUTH")
        peer.reply(reply)
        then(peer)

    return script


class TokenFiles(WithFiles):
    def test_one_line_end_is_no_part_of_the_token(self) -> None:
        for end in ("", "\n", "\r\n"):
            self.assertEqual(read_token(self.write("token", OLD + end)), OLD)

    def test_each_fault_has_its_own_error_which_does_not_show_the_content(self) -> None:
        cases = {
            "empty": "", "empty ": "\n", "a line too many": f"{OLD}\n{NEW}\n", "a line too many ": OLD + "\n\n",
            "holds no token": OLD[:-1], "holds no token ": OLD.upper(), "holds no token  ": OLD + " ",
            "holds no token   ": "\xff" * 5000, "holds no token    ": OLD + NEW,
        }
        for problem, content in cases.items():
            with self.subTest(problem), self.assertRaisesRegex(BadIdentity, problem.strip()) as caught:
                read_token(self.write("token", content))
            self.assert_no_secret(caught.exception)
        with self.assertRaisesRegex(BadIdentity, "nowhere: No such file"):
            read_token(str(self.folder / "nowhere"))

    def test_nobody_else_can_read_the_file_but_a_group_that_root_chose(self) -> None:
        token = self.write("token", OLD)
        for owner, mode, is_private in (
            (7, 0o600, True), (7, 0o400, True), (7, 0o640, False), (7, 0o604, False), (7, 0o620, False),
            (0, 0o640, True), (0, 0o644, False), (0, 0o660, False), (0, 0o601, False),
        ):
            status = os.stat_result((0o100000 | mode, 0, 0, 0, owner, 0, 0, 0, 0, 0))
            with self.subTest(owner=owner, mode=oct(mode)), mock.patch("os.fstat", return_value=status):
                if is_private:
                    self.assertEqual(read_token(token), OLD)
                    continue
                with self.assertRaisesRegex(BadIdentity, f"mode 0{mode:o}, .*: chmod 600 {token}"):
                    read_token(token)

    def test_a_bad_file_ends_the_call_before_it_connects(self) -> None:
        self.write("token", OLD, 0o644)
        with self.assertRaisesRegex(BadIdentity, "chmod 600"):
            self.identified().draw()
        self.assertEqual(self.server.connections, 0)


class Tokens(WithFiles):
    def test_a_token_comes_first_on_every_connection_as_the_file_has_it_then(self) -> None:
        def half(peer: Peer) -> None:  # a token that is revoked while an upload goes on
            peer.greet()
            peer.resume(0)
            peer.batch()
            peer.reply("ACK_BATCH|OK|2")
            self.write("token", NEW)

        rest = answers("ACK_BATCH|OK|2", "ACK_BATCH|OK|1", next_row=2, greet=False)
        client = self.identified(auth(OLD, then=half), auth(NEW, then=rest))
        self.assertEqual(client.upload(bets(5)), 5)
        self.assertEqual(self.reasons(), ["lost"])
        self.assert_no_secret(client, *self.events)

    def test_a_refused_token_is_final(self) -> None:
        client = self.identified(auth(reply="ACK|ERR|unauthorized"))
        with self.assertRaisesRegex(Unauthorized, "not valid for this agency") as caught:
            client.upload(bets(5))
        self.assertEqual((caught.exception.reason, self.server.connections), ("unauthorized", 1))
        self.assert_no_secret(caught.exception, client)

    def test_a_refused_token_that_was_replaced_meanwhile_is_not_final(self) -> None:
        def replace(peer: Peer) -> None:
            self.write("token", NEW)
            auth(OLD, "ACK|ERR|unauthorized")(peer)

        self.assertEqual(self.identified(replace, auth(NEW, then=lambda peer: peer.greet())).draw(), 3)
        self.assertEqual(self.reasons(), ["unauthorized"])

    def test_a_server_that_demands_a_token_says_so(self) -> None:
        def script(peer: Peer) -> None:
            peer.request()
            peer.reply("HELLO|ERR|unauthorized")

        with self.assertRaisesRegex(Unauthorized, "no token"):
            self.client(script).draw()
        self.assertEqual(self.server.connections, 1)

    def test_busy_is_tried_again(self) -> None:
        busy = auth(reply="ACK|ERR|busy")
        self.assertEqual(self.identified(busy, busy, auth(then=lambda peer: peer.greet())).draw(), 3)
        self.assertEqual(self.reasons(), ["busy", "busy"])

    def test_another_agency_is_forbidden_for_good(self) -> None:
        client = self.identified(auth(then=answers("ACK_BATCH|ERR|2|forbidden")))
        with self.assertRaisesRegex(Forbidden, "another agency's"):
            client.upload(bets(5))
        self.assertEqual(self.server.connections, 1)

    def test_an_unknown_reason_is_final(self) -> None:
        with self.assertRaises(Refused) as caught:
            self.identified(auth(reply="ACK|ERR|moon_phase")).draw()
        self.assertEqual((caught.exception.reason, self.server.connections), ("moon_phase", 1))

    def test_a_server_without_auth_is_not_used(self) -> None:
        with self.assertRaisesRegex(IncompatibleServer, "auth is off"):
            self.identified(auth(reply="ACK|ERR|unknown", then=lambda peer: peer.greet())).draw()

    def test_a_token_that_is_sent_back_is_not_shown(self) -> None:
        for begin in ("", "ACK|", "ACK|ERR|reason|"):
            client = self.identified(auth(reply=begin + OLD))
            with self.subTest(begin), self.assertRaisesRegex(SorteoError, r"sorteo_\.\.\.") as caught:
                client.draw()
            self.assert_no_secret(caught.exception)


class Certificates:
    """An authority, and what it signs, in files of a folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        for authority in ("ca", "other"):
            self._key(authority, "-x509", "-out", authority + ".pem", "-addext", "keyUsage=keyCertSign")
        self._sign("server", "IP:127.0.0.1,DNS:localhost")
        self._sign("expired", "IP:127.0.0.1", days=-1)
        self._sign("stranger", "IP:127.0.0.2,DNS:elsewhere")
        self._sign("agency", "URI:urn:sorteo:agency:1")

    def _sign(self, name: str, names: str, days: int = 1) -> None:
        self._key(name, "-out", name + ".csr", "-addext", "subjectAltName=" + names)
        command = ["x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        self._openssl(*command, "-copy_extensions", "copy", "-days", str(days), "-out", name + ".pem")

    def _key(self, name: str, *options: str) -> None:
        command = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        # The name in the subject is that of the server: it must not count.
        self._openssl(*command, "-keyout", name + ".key", "-subj", "/CN=localhost", *options)
        (self._folder / (name + ".key")).chmod(0o600)

    def _openssl(self, *command: str) -> None:
        subprocess.run(["openssl", *command], cwd=self._folder, check=True, capture_output=True)

    def path(self, name: str) -> str:
        return str(self._folder / name)

    def server(self, name: str = "server", demands: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name + ".pem"), self.path(name + ".key"))
        context.load_verify_locations(self.path("ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED if demands else ssl.CERT_NONE
        context.set_alpn_protocols(["sorteo/1"])
        return context


def over_tls(context: ssl.SSLContext, script: Script = lambda peer: None) -> Script:
    def handshake(peer: Peer) -> None:
        with peer.connection.dup() as beneath:
            try:
                with context.wrap_socket(peer.connection, server_side=True) as connection:
                    script(Peer(connection))
            except ssl.SSLError:  # one does not like the other's certificate: the alert must arrive
                with contextlib.suppress(OSError):
                    beneath.shutdown(socket.SHUT_WR)
                    while beneath.recv(1 << 16):
                        pass

    return handshake


class TlsConnections(WithFiles):
    certificates: Certificates

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = Certificates(pathlib.Path(folder.name))

    def tls(self, ca: str = "ca", own: str = "") -> Tls:
        path = self.certificates.path
        return Tls(path(ca + ".pem"), path(own + ".pem") if own else None, path(own + ".key") if own else None)

    def test_an_upload_over_tls(self) -> None:
        chosen: List[Optional[str]] = []

        def script(peer: Peer) -> None:
            assert isinstance(peer.connection, ssl.SSLSocket)
            chosen.extend([peer.connection.selected_alpn_protocol(), peer.connection.version()])
            chosen.append(str(dict(peer.connection.getpeercert() or {})["subjectAltName"]))
            self.assertEqual(peer.request(), f"AUTH|1|{OLD}")
            peer.reply("ACK|OK")
            answers(*["ACK_BATCH|OK|10000"] * 10)(peer)

        server = over_tls(self.certificates.server(demands=True), script)
        settings = Settings(batch_rows=10_000, give_up_after_s=60)
        for host in ("127.0.0.1", "localhost"):
            client = self.identified(server, tls=self.tls(own="agency"), host=host, settings=settings)
            self.assertEqual(client.upload(bets(100_000)), 100_000)
        self.assertEqual(self.reasons(), [])
        self.assertEqual(chosen, ["sorteo/1", "TLSv1.3", "(('URI', 'urn:sorteo:agency:1'),)"] * 2)

    def test_a_token_of_the_real_server_that_is_replaced_and_revoked_while_an_upload_goes_on(self) -> None:
        path = self.certificates.path
        server = Server("--tls", "required", "--auth", "required", "--tls-cert", path("server.pem"),
                        "--tls-key", path("server.key"))
        self.addCleanup(server.close)
        old = server.command("token", "add", "1")
        self.token_file = self.write("agency.token", old)
        failures: List[str] = []

        def replace(event: Event) -> None:
            if isinstance(event, Stored) and event.rows == 200:
                self.write("new.token", server.command("token", "add", "1"))
                os.replace(self.folder / "new.token", self.token_file)
                server.command("token", "revoke", old.split("_")[1])
                wait_until(lambda: "error: auth_ended" in (server.folder / "log").read_text(), "the connection's end")
            if isinstance(event, Retrying):
                failures.append(str(event.failure))

        rows = bets(5000, number=7574)
        settings = Settings(batch_rows=100, window_batches=4, give_up_after_s=60)
        client = Client(*server.address, agency=1, token_file=self.token_file, tls=self.tls(), settings=settings,
                        observer=replace)
        self.addCleanup(client.close)
        self.assertEqual(client.upload(rows), len(rows))
        self.assertEqual(len(failures), 1, failures)
        client.done(len(rows))
        self.assertEqual(client.winners(), [bet.document for bet in rows])
        self.assert_no_secret(client, *failures)

    def test_a_certificate_that_is_not_valid_is_final(self) -> None:
        for certificate, authority, problem in (
            ("server", "other", "is not trusted by .*other.pem"), ("expired", "ca", "127.0.0.1 has expired"),
            ("stranger", "ca", "is for another address"),
        ):
            client = self.identified(over_tls(self.certificates.server(certificate)), tls=self.tls(authority))
            with self.subTest(problem), self.assertRaisesRegex(UntrustedServer, problem):
                client.draw()
            self.assertEqual(self.server.connections, 1)
        for certificate in ("stranger", "agency"):  # that of the agency has no name of a host
            client = self.identified(over_tls(self.certificates.server(certificate)), tls=self.tls(), host="localhost")
            with self.assertRaisesRegex(UntrustedServer, "certificate of localhost is for another name"):
                client.draw()

    def test_an_older_tls_is_not_used(self) -> None:
        context = self.certificates.server()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with self.assertRaisesRegex(ProtocolError, "TLS"):
            self.identified(over_tls(context), tls=self.tls()).draw()

    def test_a_server_that_closes_in_the_handshake_is_tried_again_and_never_in_plain_text(self) -> None:
        received: List[bytes] = []

        def close(peer: Peer) -> None:
            received.append(peer.connection.recv(1))

        def reset(peer: Peer) -> None:
            close(peer)
            peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.connection.close()

        for script in (close, reset):
            client = self.identified(*[script] * 1000, tls=self.tls(), settings=IMPATIENT)
            with self.assertRaisesRegex(Unreachable, "TLS may be off"):
                client.draw()
            self.assertGreater(self.server.connections, 1)
        self.assertEqual(set(received), {b"\x16"})

    def test_an_answer_in_plain_text_is_final(self) -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", encode_request("ACK", "ERR", "bad_frame\n")):

            def script(peer: Peer) -> None:
                peer.connection.recv(1 << 16)
                peer.connection.sendall(answer)
                peer.connection.recv(1)

            with self.assertRaisesRegex(ProtocolError, "an answer in plain text"):
                self.identified(script, tls=self.tls()).draw()
            self.assertEqual(self.server.connections, 1)

    def test_a_silent_server_is_tried_again(self) -> None:
        def silent(peer: Peer) -> None:
            while peer.connection.recv(1 << 16):
                pass

        settings = Settings(connect_timeout_s=0.05, give_up_after_s=0.3)
        with self.assertRaisesRegex(Unreachable, "no TLS handshake in time"):
            self.identified(*[silent] * 100, tls=self.tls(), settings=settings).draw()
        self.assertGreater(self.server.connections, 1)

    def test_a_refused_or_missing_certificate_of_the_client_is_final(self) -> None:
        for own, problem in (("", "none was given"), ("other", "other.pem")):
            with self.subTest(own), self.assertRaisesRegex(BadIdentity, f"refused the certificate .*{problem}"):
                self.identified(over_tls(self.certificates.server(demands=True)), tls=self.tls(own=own)).draw()
            self.assertEqual(self.server.connections, 1)

    def test_files_that_cannot_be_used(self) -> None:
        path = self.certificates.path
        ca, certificate, key = path("ca.pem"), path("agency.pem"), path("agency.key")
        nonsense = self.write("nonsense", "nonsense")
        readable = self.write("readable", pathlib.Path(key).read_text(), 0o644)
        for files, problem in (
            (Tls("nowhere"), "nowhere: No such file"), (Tls(nonsense), nonsense), (Tls(ca, "nowhere", key), "nowhere"),
            (Tls(ca, certificate, "nowhere"), "nowhere: No such file"), (Tls(ca, certificate, nonsense), nonsense),
            (Tls(ca, certificate, path("ca.key")), "KEY_VALUES_MISMATCH"),
            (Tls(ca, certificate, readable), f"0644.* chmod 600 {readable}"),
        ):
            with self.subTest(problem), self.assertRaisesRegex(BadIdentity, problem) as caught:
                self.identified(tls=files).draw()
            self.assertEqual(self.server.connections, 0)
            self.assertNotIn("\n", str(caught.exception))
        with self.assertRaisesRegex(ValueError, "need each other"):
            Tls(ca, certificate)

    def test_a_key_with_a_password_does_not_ask_for_it(self) -> None:
        path = self.certificates.path
        encrypted = self.write("encrypted", "")
        command = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", path("agency.key"), "-out", encrypted]
        subprocess.run(command, check=True, capture_output=True)
        files = (path("ca.pem"), path("agency.pem"), encrypted)
        program = f"import sorteo_client; sorteo_client._tls_context(sorteo_client.Tls{files})"
        options: Any = {"input": "x\n", "capture_output": True, "text": True, "start_new_session": True}
        result = subprocess.run([sys.executable, "-c", program], cwd=EXAMPLE.parent, timeout=DEADLINE_S, **options)
        self.assertIn(f"BadIdentity: cannot use {path('agency.pem')} with the key {encrypted}", result.stderr)

    def test_the_example_takes_the_files(self) -> None:
        def script(peer: Peer) -> None:
            self.assertEqual(peer.request(), f"AUTH|1|{OLD}")
            peer.reply("ACK|OK")
            peer.greet()
            for reply in ("RESUME|OK|1", "ACK_DONE|OK", "WINNERS|OK|7|"):
                peer.request()
                peer.reply(reply)

        server = ScriptedServer(over_tls(self.certificates.server(demands=True), script))
        self.addCleanup(server.close)
        path = self.certificates.path
        file = self.write("bets.csv", "Ana,Paz,7,1999-03-17,7574\n")
        command = [sys.executable, str(EXAMPLE), "--server", "localhost:%d" % server.address[1], "--agency", "1"]
        command += ["--file", file, "--token-file", self.token_file, "--tls", "--tls-ca", path("ca.pem")]
        command += ["--tls-cert", path("agency.pem"), "--tls-key", path("agency.key")]
        self.assertEqual(subprocess.check_output(command, text=True, timeout=DEADLINE_S), "7\n")
        for wrong, problem in (
            (command[:10] + command[11:], "--tls and --tls-ca"), (command[:11], "--tls and --tls-ca"),
            (command[:-2], "need each other"),
        ):
            result = subprocess.run(wrong, capture_output=True, text=True, timeout=DEADLINE_S)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(problem, result.stderr.splitlines()[-1])
