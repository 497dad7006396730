"""A client for a sorteo lottery server: uploads an agency's bets exactly once, whatever breaks.

One file, standard library alone, Python 3.9 or newer. Copy it into your program:

    with Client("lottery.example", 12345, agency=1) as client:
        count = client.upload(CsvFile("bets.csv"))
        client.done(count)
        for document in client.winners():
            print(document)

Each of the three calls goes on through lost connections, timeouts and restarts of the server, until
there was no progress for ``Settings.give_up_after_s``. The same calls, in a later process, go on where an
earlier one ended. A call raises a SorteoError, or the error of the source of the bets.
"""

import hashlib
import os
import random
import re
import selectors
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Callable, Deque, Iterable, Iterator, List, NamedTuple, Optional, Tuple, TypeVar, Union

__all__ = [
    "BadBet", "BadIdentity", "Bet", "BettingClosed", "Client", "ConnectionLost", "CsvFile", "Event", "Forbidden",
    "IncompatibleServer", "NotDrawn", "ProtocolError", "Refused", "Retrying", "Settings", "SorteoError",
    "SourceChanged", "Stored", "Tls", "Unauthorized", "Unreachable", "UntrustedServer", "Waiting",
]

T = TypeVar("T")

PROTOCOL_VERSION = 1
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
FRAME_BYTES_MAX = 8192  # of one frame, without the 4 bytes of its length
NAME_BYTES_MAX = 120
BATCH_ROWS_MAX = 10_000  # what a server takes by default
CSV_LINE_BYTES_MAX = 8192
WINNERS_MAX = 10_000_000  # documents of one agency; more is a server that never ends

WINDOW_START = 4  # batches in flight on a new connection
RECEIVE_BYTES = 65_536  # more than a TLS record has, so none is left half read where no select sees it
TOKEN_FILE_BYTES_MAX = 1024  # a token has 88 characters
WAIT_MAX_S = 30.0  # one WAIT_WINNERS; firewalls forget idle connections after a minute or more
PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 3.0
PAUSE_STORAGE_FULL_S = PAUSE_MAX_S  # a disk is not emptied in a moment


# Errors


class SorteoError(Exception):
    """The base of all errors of this module."""


class BadBet(SorteoError):
    """A bet breaks the rules, so nothing was sent. ``row`` counts from 1; ``field`` may also be "row"."""

    def __init__(self, row: int, field: str, problem: str) -> None:
        super().__init__(f"row {row}, {field}: {problem}")
        self.row = row
        self.field = field
        self.problem = problem


class SourceChanged(SorteoError):
    """The bets differ from those read first. No bet was sent that was not there the first time."""


class Refused(SorteoError):
    """The server refused a request, for good or for longer than the client retries.

    ``reason`` and ``detail`` are those of the protocol; ``row`` is the row of the upload, from 1, if it is
    about one.
    """

    explanation = ""  # of the reason, for a person

    def __init__(self, reason: str, detail: str = "", row: Optional[int] = None) -> None:
        place = "" if row is None else f" of row {row}"
        super().__init__(f"refused by the server{place}: {reason} {detail}".rstrip() + self.explanation)
        self.reason = reason
        self.detail = detail
        self.row = row


class BettingClosed(Refused):
    """The draw is over or the agency is done, so bets that are not stored yet cannot be any more."""


class Unauthorized(Refused):
    """The token is wrong, expired, revoked or another agency's, or the server demands one and has got none."""

    explanation = ": no token, or one that is not valid for this agency (any more)"


class Forbidden(Refused):
    """The client has proved to be one agency, and asked for another."""

    explanation = ": the token or certificate is another agency's"


class BadIdentity(SorteoError):
    """A file with a token, key or certificate cannot be used, or the server refused the client's certificate."""


class UntrustedServer(SorteoError):
    """The server's certificate is not one of the given authority, is for another name, or has expired."""


class Unreachable(SorteoError):
    """There was no progress for ``Settings.give_up_after_s``; the cause is the last ConnectionLost.

    What is stored stays stored; the same call later goes on from there.
    """


class ConnectionLost(SorteoError):
    """A connection could not be made, broke, or was silent too long. The client tries again."""


class ProtocolError(SorteoError):
    """The server sent something that is not a reply of the protocol."""


class IncompatibleServer(SorteoError):
    """The server is too old or too new for this client."""


class NotDrawn(SorteoError):
    """The draw had not taken place when the time to wait for it was over."""


# Bets


class Bet(NamedTuple):
    """One bet. The client checks it before it sends anything."""

    first_name: str
    last_name: str
    document: str
    birthdate: str  # YYYY-MM-DD
    number: int


# Controls, separators and characters that cannot be seen, as the protocol lists them; and surrogates, which
# are not text.
_NOT_PLAIN = re.compile(
    "[|\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_DOCUMENT = re.compile("[A-Za-z0-9./ -]{1,32}")
_BIRTHDATE = re.compile("([0-9]{4})-([0-9]{2})-([0-9]{2})")
_DIGITS = re.compile("[0-9]+")


def check_bet(bet: Bet, row: int) -> None:
    """Checks a bet by the rules of the server.

    Raises:
        BadBet: naming the row and the first field that is wrong.
    """
    _check_name(bet.first_name, row, "first_name")
    _check_name(bet.last_name, row, "last_name")
    if _DOCUMENT.fullmatch(bet.document) is None:
        raise BadBet(row, "document", f"not 1 to 32 letters, digits, . - / or spaces: {_shown(bet.document)}")
    if not _is_date(bet.birthdate):
        raise BadBet(row, "birthdate", f"not an existing date YYYY-MM-DD: {_shown(bet.birthdate)}")
    if not 0 <= bet.number <= U32_MAX:
        raise BadBet(row, "number", f"not from 0 to {U32_MAX}: {bet.number}")


def _check_name(name: str, row: int, field: str) -> None:
    invisible = _NOT_PLAIN.search(name)
    if invisible is not None:
        raise BadBet(row, field, f"contains the character U+{ord(invisible.group()):04X}: {_shown(name)}")
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise BadBet(row, field, f"not 1 to {NAME_BYTES_MAX} bytes long: {_shown(name)}")


def _is_date(text: str) -> bool:
    match = _BIRTHDATE.fullmatch(text)
    if match is None:
        return False
    try:
        year, month, day = map(int, match.groups())
        date(year or 2000, month, day)  # the year 0 exists for the server, as a leap year, but not for Python
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    """A text from outside as part of a message: short, and without anything that a terminal obeys."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")


class CsvFile:
    """The bets of a CSV file, read anew by each iteration.

    UTF-8, with or without a byte order mark; commas; no header; the columns first_name, last_name, document,
    birthdate, number; quotes as in RFC 4180; lines end with LF or CRLF, and no field has a line break.
    Iteration raises BadBet for a line of another form, and OSError if the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Bet]:
        with open(self._path, "rb") as file:
            row = 1
            line = file.readline(CSV_LINE_BYTES_MAX + 1)
            if line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            while line:
                yield _parse_line(line, row)
                row += 1
                line = file.readline(CSV_LINE_BYTES_MAX + 1)


_CSV_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')


def _parse_line(line: bytes, row: int) -> Bet:
    if len(line) > CSV_LINE_BYTES_MAX:
        raise BadBet(row, "row", f"longer than {CSV_LINE_BYTES_MAX} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise BadBet(row, "row", "not UTF-8") from None
    if text.endswith("\n"):
        text = text[:-2] if text.endswith("\r\n") else text[:-1]
    fields = _split_line(text, row)
    if len(fields) != len(Bet._fields):
        raise BadBet(row, "row", f"{len(fields)} fields instead of {len(Bet._fields)}")
    first_name, last_name, document, birthdate, number = fields
    return Bet(first_name, last_name, document, birthdate, _parse_number(number, row))


def _split_line(text: str, row: int) -> List[str]:
    if '"' not in text:
        return text.split(",")
    fields: List[str] = []
    position = 0
    while True:
        match = _CSV_FIELD.match(text, position)
        if match is None:
            field = Bet._fields[len(fields)] if len(fields) < len(Bet._fields) else "row"
            raise BadBet(row, field, "quotes must be around the whole field, and doubled inside it")
        quoted, plain, comma = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        position = match.end()
        if not comma:
            return fields


def _parse_number(text: str, row: int) -> int:
    digits = text.lstrip("0") or text[-1:]
    if _DIGITS.fullmatch(text) is None or len(digits) > len(str(U32_MAX)):
        raise BadBet(row, "number", f"not digits from 0 to {U32_MAX}: {_shown(text)}")
    return int(digits)


# Identity

ALPN = "sorteo/1"
_TOKEN = re.compile(b"sorteo_[0-9a-f]{16}_[0-9a-f]{64}")
_CERTIFICATE_PROBLEMS = {  # by the code of OpenSSL
    9: "is not valid yet", 10: "has expired", 62: "is for another name", 64: "is for another address",
}
_CERTIFICATE_REFUSED = re.compile("ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")


@dataclass(frozen=True)
class Tls:
    """The files for TLS, in PEM. They are read anew at each connect.

    ``ca_file`` holds the authorities whose certificate the server must have. ``cert_file`` and ``key_file`` are the
    agency's own, for a server that takes them.

    Raises:
        ValueError: a certificate without its key, or a key without its certificate.
    """

    ca_file: str
    cert_file: Optional[str] = None
    key_file: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file need each other")


def read_token(path: str) -> str:
    """Reads the token of a file. Raises BadIdentity, which never shows what the file holds."""
    try:
        with open(path, "rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            content = file.read(TOKEN_FILE_BYTES_MAX)
    except OSError as error:
        raise BadIdentity(f"the token file {path}: {error.strerror}") from None
    if content.endswith(b"\n"):
        content = content[:-2] if content.endswith(b"\r\n") else content[:-1]
    if not content:
        raise BadIdentity(f"the token file {path} is empty")
    if b"\n" in content:
        raise BadIdentity(f"the token file {path} holds more than one token: a line too many")
    if _TOKEN.fullmatch(content) is None:
        raise BadIdentity(f"{path} holds no token: one is sorteo_, 16 hexadecimal digits, _ and 64 more")
    return content.decode()


def _check_private(path: str, status: os.stat_result) -> None:
    """Raises BadIdentity if others can read a secret. The group may if root owns the file, as for PostgreSQL."""
    others = 0o037 if status.st_uid == 0 else 0o077
    if os.name == "posix" and status.st_mode & others:
        mode = f"{status.st_mode & 0o777:04o}"
        raise BadIdentity(f"{path} has the mode {mode}, so others can read or change it: chmod 600 {path}")


def _tls_context(files: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the server's certificate and name
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    path = files.ca_file
    try:
        context.load_verify_locations(path)
        if files.cert_file is not None and files.key_file is not None:
            path = files.key_file
            _check_private(path, os.stat(path))
            path = f"{files.cert_file} with the key {files.key_file}"
            context.load_cert_chain(files.cert_file, files.key_file, password="")  # it would ask for one
    except OSError as error:
        raise BadIdentity(f"cannot use {path}: {error.strerror}") from None
    return context


def _handshake_failure(error: OSError, host: str, files: Tls) -> SorteoError:
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = _CERTIFICATE_PROBLEMS.get(error.verify_code, f"is not trusted by {files.ca_file}")
        return UntrustedServer(f"the certificate of {host} {problem} ({error.verify_message})")
    if isinstance(error, socket.timeout):
        return ConnectionLost("no TLS handshake in time")
    closed = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if isinstance(error, closed) or not isinstance(error, ssl.SSLError):
        return ConnectionLost("the server closed the connection in the TLS handshake: TLS may be off there")
    if "ALERT" in (error.reason or ""):
        return _certificate_refusal(error, files) or ProtocolError(f"the server refused TLS: {error.reason}")
    return ProtocolError(f"an answer in plain text, or without TLS 1.3: TLS may be off at the server ({error.reason})")


def _certificate_refusal(error: OSError, files: Optional[Tls]) -> Optional[SorteoError]:
    """The refusal of the client's certificate; it can come after the handshake, in place of the first reply."""
    reason = getattr(error, "reason", None) or ""
    if files is None or _CERTIFICATE_REFUSED.search(reason) is None:
        return None
    return BadIdentity(f"the server refused the certificate {files.cert_file or '(none was given)'}: {reason}")


# The protocol, as bytes


def encode_request(*fields: Union[str, int]) -> bytes:
    """Encodes one line of fields as a frame."""
    return _frame("|".join(map(str, fields)).encode())


def encode_batch(header: bytes, rows: Iterable[bytes]) -> bytes:
    """Encodes a batch: the frame of its header, then one frame for each row."""
    return header + b"".join(map(_frame, rows))


def encode_row(bet: Bet) -> bytes:
    """Encodes a bet as a row of a batch, which is also its canonical form without the line feed."""
    return f"{bet.first_name}|{bet.last_name}|{bet.document}|{bet.birthdate}|{bet.number}".encode()


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def take_frame(received: bytearray) -> Optional[bytes]:
    """Removes the first frame from what was received, and returns its payload; None if it is incomplete.

    Raises:
        ProtocolError: the length is one that a reply cannot have.
    """
    if len(received) < 4:
        return None
    length = int.from_bytes(received[:4], "big")
    if not 1 <= length <= FRAME_BYTES_MAX:
        raise ProtocolError(f"a reply of {length} bytes; the limit is {FRAME_BYTES_MAX}: not a sorteo server?")
    if len(received) < 4 + length:
        return None
    payload = bytes(received[4 : 4 + length])
    del received[: 4 + length]
    return payload


class Accepted(NamedTuple):
    """A reply ``verb|OK|fields``."""

    verb: str
    fields: Tuple[str, ...]


class Refusal(NamedTuple):
    """A reply ``verb|ERR|...``. Only a refused batch has a size, and only one with a bad row has a row."""

    verb: str
    reason: str
    detail: str
    row: Optional[int]
    batch_size: Optional[int]


Reply = Union[Accepted, Refusal]

# How many fields may follow OK.
_OK_FIELDS = {
    "ACK": (0,), "ACK_BATCH": (1,), "ACK_DONE": (0,), "RESUME": (1,), "WINNERS": (1, 2), "HELLO": (2,), "STATUS": (5,),
}
_REFUSAL = re.compile(r"()()([a-z0-9_]+)(?:\|(.*))?")
_BATCH_REFUSAL = re.compile(r"([0-9]{1,20})\|(?:row ([0-9]{1,20}): )?([a-z0-9_]+)(?:\|(.*))?")
_CONTROL = re.compile("[\u0000-\u001f\u007f-\u009f]")


def decode_reply(payload: bytes) -> Reply:
    """Decodes the payload of a reply.

    Raises:
        ProtocolError: it is not a reply of the protocol.
    """
    try:
        line = payload.decode()
    except UnicodeDecodeError:
        raise _unknown_reply(payload) from None
    if not line.endswith("\n") or _CONTROL.search(line[:-1]) is not None:
        raise _unknown_reply(payload)
    verb, _, rest = line[:-1].partition("|")
    result, *fields = rest.split("|")
    if verb in _OK_FIELDS and result == "OK" and len(fields) in _OK_FIELDS[verb]:
        return Accepted(verb, tuple(fields))
    if verb in _OK_FIELDS and result == "ERR":
        return _decode_refusal(verb, "|".join(fields), payload)
    raise _unknown_reply(payload)


def _decode_refusal(verb: str, text: str, payload: bytes) -> Refusal:
    match = (_BATCH_REFUSAL if verb == "ACK_BATCH" else _REFUSAL).fullmatch(text)
    if match is None:
        raise _unknown_reply(payload)
    size, row, reason, detail = match.groups()
    return Refusal(verb, reason, detail or "", int(row) if row else None, int(size) if size else None)


def _unknown_reply(payload: bytes) -> ProtocolError:
    return ProtocolError(f"an unknown reply: {payload[:100]!r}")


def _reply_number(text: str) -> int:
    if _DIGITS.fullmatch(text) is None or len(text) > len(str(U64_MAX)):
        raise ProtocolError(f"{_shown(text)} in a reply instead of a number")
    return int(text)


# What the client asks of its surroundings


@dataclass(frozen=True)
class Settings:
    """How a client works. The defaults suit a normal line; on a slow one use smaller batches.

    Raises:
        ValueError: a value is out of its range.
    """

    batch_rows: int = 500  # a batch must arrive within 30 s
    window_batches: int = 64  # most batches in flight
    window_bytes: int = 1_048_576  # most bytes in flight, unless one batch is larger
    connect_timeout_s: float = 5.0
    reply_timeout_s: float = 30.0  # without a byte moving in either direction
    give_up_after_s: float = 600.0  # without progress

    def __post_init__(self) -> None:
        if not 1 <= self.batch_rows <= BATCH_ROWS_MAX:
            raise ValueError(f"batch_rows must be from 1 to {BATCH_ROWS_MAX}")
        for name in ("window_batches", "window_bytes", "connect_timeout_s", "reply_timeout_s", "give_up_after_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")


class Stored(NamedTuple):
    """The server has so many rows of the upload on its disk."""

    rows: int
    total: int


class Retrying(NamedTuple):
    """Something failed that may succeed later; the client pauses and tries again."""

    failure: SorteoError
    pause_s: float


class Waiting(NamedTuple):
    """The draw has not taken place yet."""

    draw: int


Event = Union[Stored, Retrying, Waiting]


def _ignore(event: Event) -> None:
    """The observer of a client that was given none."""


class _Patience:
    """How long the client still tries, and how long it pauses before it tries again."""

    def __init__(self, give_up_after_s: float) -> None:
        self._give_up_after_s = give_up_after_s
        self.progress()

    def progress(self) -> None:
        """Starts the time to give up anew, and makes the next pause short."""
        self._give_up_at = time.monotonic() + self._give_up_after_s
        self._pause_s = PAUSE_MIN_S

    def left_s(self) -> float:
        return self._give_up_at - time.monotonic()

    def next_pause_s(self, failure: Union[ConnectionLost, Refused]) -> float:
        """Chooses the pause after a failure. If there is no time for it, raises Refused or Unreachable."""
        longest = self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
        if isinstance(failure, Refused) and failure.reason == "storage_full":
            longest = PAUSE_STORAGE_FULL_S
        pause = longest * random.uniform(0.5, 1)
        if pause < self.left_s():
            return pause
        if isinstance(failure, Refused):
            raise failure
        raise Unreachable(f"no progress for {self._give_up_after_s:g} s; the last failure: {failure}") from failure


# What a socket that does not wait raises in place of waiting.
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Connection:
    """Requests and replies over one TCP connection. It reads while it writes, so neither side blocks the other."""

    def __init__(
        self, address: Tuple[str, int], settings: Settings, patience: _Patience, tls: Optional[Tls] = None
    ) -> None:
        self._reply_timeout_s = settings.reply_timeout_s
        self._patience = patience
        self._unsent = bytearray()
        self._received = bytearray()
        self._is_auth_pending = False
        self._tls = tls
        context = None if tls is None else _tls_context(tls)
        timeout = max(0.001, min(settings.connect_timeout_s, patience.left_s()))  # 0 would mean not to wait
        try:
            self._socket = socket.create_connection(address, timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {address[0]}:{address[1]}: {error}") from error
        if context is not None and tls is not None:
            try:
                self._socket = context.wrap_socket(self._socket, server_hostname=address[0])
            except OSError as error:
                raise _handshake_failure(error, address[0], tls) from error
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._moved_at = time.monotonic()

    def close(self) -> None:
        self._selector.close()
        self._socket.close()

    def authenticate(self, agency: int, token: str) -> None:
        """Sends a token. Its reply is awaited with that of the first request, which need not wait for it."""
        self._is_auth_pending = True
        self.send(encode_request("AUTH", agency, token))

    def send(self, request: bytes) -> None:
        """Sends as much of a request as there is room for; `receive` sends the rest."""
        self._unsent += request
        self._moved_at = time.monotonic()
        self._write()

    def receive(self, wait_s: float = 0.0) -> Reply:
        """Returns the next reply, which the server may hold back for `wait_s`.

        Raises:
            ConnectionLost: it did not come.
            ProtocolError: it is not a reply.
            Refused, IncompatibleServer: the server did not take the token that was sent before.
        """
        if self._is_auth_pending:
            self._is_auth_pending = False
            reply = self._next_reply(0.0)
            if isinstance(reply, Refusal) and reply.reason == "unknown":
                raise IncompatibleServer("the server does not take tokens: auth is off there, or it is too old")
            _expect(reply, "ACK")
        return self._next_reply(wait_s)

    def _next_reply(self, wait_s: float) -> Reply:
        payload = take_frame(self._received)
        while payload is None:
            self._move(self._reply_timeout_s + wait_s)
            payload = take_frame(self._received)
        # Errors quote replies, and a peer that is no sorteo server may send back what it was sent.
        return decode_reply(_TOKEN.sub(b"sorteo_...", payload))

    def _move(self, timeout_s: float) -> None:
        """Waits until bytes can move, and moves them."""
        left_s = min(self._moved_at + timeout_s - time.monotonic(), self._patience.left_s())
        writing = selectors.EVENT_WRITE if self._unsent else 0
        self._selector.modify(self._socket, selectors.EVENT_READ | writing)
        # A reply that has come is read, however late the caller is.
        ready = self._selector.select(max(left_s, 0.0))
        if not ready:
            raise ConnectionLost("no reply in time")
        self._moved_at = time.monotonic()
        events = ready[0][1]
        if events & selectors.EVENT_READ:
            self._read()
        if events & selectors.EVENT_WRITE:
            self._write()

    def _read(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except _WOULD_BLOCK:
            return
        except OSError as error:
            refusal = _certificate_refusal(error, self._tls)
            if refusal is not None:
                raise refusal from error
            raise ConnectionLost(f"the connection broke: {error}") from error
        if not data:
            raise ConnectionLost("the server closed the connection")
        self._received += data

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except _WOULD_BLOCK:
            return
        except OSError:
            sent = len(self._unsent)  # whatever the server said before it closed can still be read
        del self._unsent[:sent]


# The upload


class _Batch(NamedTuple):
    first_row: int
    size: int  # rows
    request: bytes


class _Upload:
    """The bets of a source under the name of their digest, read once to make sure that all are right.

    It keeps the digest of each batch, 32 bytes, so a batch is sent only if it is what was read first.
    """

    def __init__(self, source: Iterable[Bet], batch_rows: int) -> None:
        """Reads the source. Raises BadBet, TypeError if it can be read only once, and what the source raises."""
        if isinstance(source, Iterator):
            raise TypeError("the bets are read more than once: pass a list or a CsvFile, not an iterator")
        self._source = source
        self._batch_rows = batch_rows
        self._digests: List[bytes] = []
        self.count = 0
        self.stored = 0  # rows known to be stored
        whole = hashlib.sha256()
        bets = iter(source)
        rows = self._checked_rows(bets)
        while rows:
            whole.update(_canonical(rows))
            self._digests.append(_digest(rows))
            self.count += len(rows)
            rows = self._checked_rows(bets)
        self._digests.append(_digest([]))  # the end: an empty batch
        self.name = whole.hexdigest()

    def _checked_rows(self, bets: Iterator[Bet]) -> List[bytes]:
        rows = []
        for row, bet in enumerate(islice(bets, self._batch_rows), self.count + 1):
            check_bet(bet, row)
            rows.append(encode_row(bet))
        return rows

    def batches(self, next_row: int, agency: int, draw: int) -> Iterator[_Batch]:
        """Reads the source again and yields the batches from `next_row` on; the first may be the rest of one.

        Raises:
            SourceChanged: the next batch is not what it was, or there are more rows than there were.
        """
        first = next_row // self._batch_rows
        bets = islice(self._source, first * self._batch_rows, None)
        for index in range(first, len(self._digests)):
            start = index * self._batch_rows
            first_row = max(next_row, start)
            rows = self._rows_again(bets, index)[first_row - start :]
            if rows:
                header = encode_request("BATCH", agency, len(rows), self.name, first_row, draw)
                yield _Batch(first_row, len(rows), encode_batch(header, rows))

    def _rows_again(self, bets: Iterator[Bet], index: int) -> List[bytes]:
        """Reads the rows of a batch. Raises SourceChanged if they are not what they were."""
        change = f"the bets changed after they were read first, behind row {index * self._batch_rows}"
        try:
            rows = [encode_row(bet) for bet in islice(bets, self._batch_rows)]
        except BadBet as error:
            raise SourceChanged(f"{change}: {error}") from error
        if _digest(rows) != self._digests[index]:
            raise SourceChanged(change)
        return rows


def _digest(rows: List[bytes]) -> bytes:
    return hashlib.sha256(_canonical(rows)).digest()


def _canonical(rows: List[bytes]) -> bytes:
    """The form of rows that names an upload: each with a line feed."""
    return b"".join(row + b"\n" for row in rows)


# The client

# Reasons after which the client begins again with what is stored. All others are final.
_TEMPORARY = ("busy", "storage_full", "unavailable", "gap", "conflict")


class Client:
    """An agency at a server. It connects when needed, and again whenever a connection is lost.

    Every request names one draw: the given one, or the one that is the newest when the client first connects.
    A client is for one thread; closing it, or leaving its ``with`` block, closes the connection.

    All methods that talk to the server raise
        Refused: the server refused the request, for good or until `Settings.give_up_after_s` was over.
        Unreachable: there was no progress for `Settings.give_up_after_s`.
        IncompatibleServer, ProtocolError: at the other end is no server for this client.
        BadIdentity: a file of the token or of TLS cannot be used, or the server refused the certificate.
        UntrustedServer: the server's certificate is not valid.
    """

    def __init__(
        self,
        host: str,
        port: int,
        agency: int,
        draw: Optional[int] = None,
        settings: Settings = Settings(),
        observer: Callable[[Event], None] = _ignore,
        token_file: Optional[str] = None,
        tls: Optional[Tls] = None,
    ) -> None:
        """Makes a client; `observer` is called with each Event. Raises ValueError for an impossible agency.

        `token_file` holds the agency's token, and is read anew at each connect. With `tls` all connections use TLS,
        and never plain text.
        """
        if not 0 <= agency <= U32_MAX:
            raise ValueError(f"the agency must be from 0 to {U32_MAX}")
        self._address = (host, port)
        self._agency = agency
        self._wanted_draw = draw
        self._draw: Optional[int] = None  # known once the server was greeted
        self._settings = settings
        self._observe = observer
        self._token_file = token_file
        self._token: Optional[str] = None  # as it was sent last
        self._tls = tls
        self._patience = _Patience(settings.give_up_after_s)
        self._connection: Optional[_Connection] = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection. The client can still be used: it connects again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def draw(self) -> int:
        """Returns the number of the draw that this client is about, and asks the server for it if need be."""
        return self._persist(lambda connection, draw: draw)

    def upload(self, source: Iterable[Bet]) -> int:
        """Stores all bets of a source exactly once, and returns their number.

        The source is read twice or more, so it is a list or a CsvFile, not an iterator. The same bets in the
        same order, from whatever source, are one upload: what is stored of it already is not sent again.

        Raises:
            BadBet: a bet is wrong; nothing was sent.
            BettingClosed: the draw is over or the agency done, and not all of the bets are stored.
            SourceChanged: the source gave other bets when it was read again.
        """
        upload = _Upload(source, self._settings.batch_rows)
        self._persist(lambda connection, draw: self._send_rest(connection, draw, upload))
        return upload.count

    def done(self, count: int) -> None:
        """Ends the agency's betting; `count` is the number of all its bets in this draw, from all uploads.

        Raises:
            Refused: with the reason ``count_mismatch``, and the number of stored bets as its detail.
        """
        self._persist(lambda connection, draw: self._ask(connection, "ACK_DONE", "DONE", self._agency, count, draw))

    def winners(self, wait_s: Optional[float] = None) -> List[str]:
        """Waits for the draw, and returns the documents of the agency's winning bets, as they were stored.

        It waits as long as the server can be reached, or for `wait_s`.

        Raises:
            NotDrawn: `wait_s` is over.
        """
        end = None if wait_s is None else time.monotonic() + wait_s
        documents, after = self._persist(lambda connection, draw: self._await_draw(connection, draw, end))
        while after:
            page, after = self._persist(lambda connection, draw: self._next_page(connection, draw, after))
            documents += page
            if len(documents) > WINNERS_MAX:
                raise ProtocolError(f"more than {WINNERS_MAX} winners")
        return documents

    def _persist(self, attempt: Callable[[_Connection, int], T]) -> T:
        """Carries out an attempt on a connection, and again on a new one until it succeeds or time is over."""
        self._patience.progress()
        while True:
            try:
                return attempt(*self._connected())
            except (ConnectionLost, Refused) as failure:
                self.close()
                if isinstance(failure, Refused) and not self._can_pass(failure):
                    raise
                pause_s = self._patience.next_pause_s(failure)
                self._observe(Retrying(failure, pause_s))
                time.sleep(pause_s)
            except BaseException:
                self.close()  # replies that nobody read may be on their way
                raise

    def _can_pass(self, refusal: Refused) -> bool:
        """Whether a refusal may be another one later. A token that was replaced since it was sent is tried too."""
        if isinstance(refusal, Unauthorized) and self._token_file is not None:
            return read_token(self._token_file) != self._token
        return refusal.reason in _TEMPORARY

    def _connected(self) -> Tuple[_Connection, int]:
        if self._connection is None:
            self._token = None if self._token_file is None else read_token(self._token_file)
            self._connection = _Connection(self._address, self._settings, self._patience, self._tls)
            if self._token is not None:
                self._connection.authenticate(self._agency, self._token)
        if self._draw is None:
            newest = self._greet(self._connection)
            self._draw = newest if self._wanted_draw is None else self._wanted_draw
        return self._connection, self._draw

    def _greet(self, connection: _Connection) -> int:
        """Makes sure that the server can do what the client needs, and returns the newest draw."""
        connection.send(encode_request("HELLO") + encode_request("STATUS"))
        hello = connection.receive()
        if isinstance(hello, Refusal) and hello.reason == "unknown":
            raise IncompatibleServer("the server is too old: it does not know HELLO")
        version, words = _expect(hello, "HELLO")
        if _reply_number(version) != PROTOCOL_VERSION:
            raise IncompatibleServer(f"the server speaks version {version} of the protocol, not {PROTOCOL_VERSION}")
        missing = {"uploads", "draws", "pages", "waits"}.difference(words.split(","))
        if missing:
            raise IncompatibleServer(f"the server cannot do this: {', '.join(sorted(missing))}")
        return _reply_number(_expect(connection.receive(), "STATUS")[0])

    def _ask(self, connection: _Connection, verb: str, *request: Union[str, int]) -> Tuple[str, ...]:
        """Sends a request and returns what follows OK in its reply, whose verb is given."""
        connection.send(encode_request(*request))
        return _expect(connection.receive(), verb)

    def _send_rest(self, connection: _Connection, draw: int, upload: _Upload) -> None:
        """Sends what is not stored of an upload, several batches at a time."""
        next_row = _reply_number(self._ask(connection, "RESUME", "RESUME", self._agency, upload.name, draw)[0])
        if next_row > upload.count:
            raise ProtocolError(f"the server has {next_row} of the {upload.count} rows of the upload")
        self._count_stored(upload, next_row)
        batches = upload.batches(next_row, self._agency, draw)
        window = _Window(self._settings)
        batch = next(batches, None)
        while batch is not None or window.in_flight:
            while batch is not None and window.has_room(batch):
                connection.send(batch.request)
                window.add(batch)
                batch = next(batches, None)
            oldest = window.in_flight[0]
            _expect_stored(connection.receive(), oldest)
            window.acknowledge()
            self._count_stored(upload, oldest.first_row + oldest.size)

    def _count_stored(self, upload: _Upload, rows: int) -> None:
        if rows > upload.stored:
            upload.stored = rows
            self._patience.progress()
            self._observe(Stored(rows, upload.count))

    def _await_draw(self, connection: _Connection, draw: int, end: Optional[float]) -> Tuple[List[str], int]:
        """Waits until the draw has taken place, and returns the first page of winners."""
        while True:
            started = time.monotonic()
            wait_s = min(WAIT_MAX_S, self._settings.give_up_after_s / 2)
            if end is not None:
                wait_s = min(wait_s, max(0.0, end - started))
            connection.send(encode_request("WAIT_WINNERS", self._agency, int(wait_s * 1000), draw))
            reply = connection.receive(wait_s)
            if not (isinstance(reply, Refusal) and reply.reason == "not_ready"):
                return _page(reply, 0)
            now = time.monotonic()
            if end is not None and now >= end:
                raise NotDrawn(f"draw {draw} has not taken place")
            if now - started < wait_s / 2:
                raise ConnectionLost("the server stops")  # only then does it reply early
            self._patience.progress()
            self._observe(Waiting(draw))

    def _next_page(self, connection: _Connection, draw: int, after: int) -> Tuple[List[str], int]:
        connection.send(encode_request("GET_WINNERS", self._agency, after, draw))
        return _page(connection.receive(), after)


class _Window:
    """The batches in flight, and how many more may be: a few at first, then one more with each that is stored."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._allowed = min(WINDOW_START, settings.window_batches)
        self._bytes = 0
        self.in_flight: Deque[_Batch] = deque()

    def has_room(self, batch: _Batch) -> bool:
        if not self.in_flight:
            return True
        fits = self._bytes + len(batch.request) <= self._settings.window_bytes
        return fits and len(self.in_flight) < self._allowed

    def add(self, batch: _Batch) -> None:
        self.in_flight.append(batch)
        self._bytes += len(batch.request)

    def acknowledge(self) -> None:
        self._bytes -= len(self.in_flight.popleft().request)
        self._allowed = min(self._allowed + 1, self._settings.window_batches)


_REFUSALS = {
    "draw_closed": BettingClosed, "agency_done": BettingClosed, "unauthorized": Unauthorized, "forbidden": Forbidden,
}


def _expect(reply: Reply, verb: str, rows_before: int = 0) -> Tuple[str, ...]:
    """Returns what follows OK in a reply of this verb. Raises Refused, or ProtocolError for another verb."""
    if isinstance(reply, Accepted) and reply.verb == verb:
        return reply.fields
    if isinstance(reply, Refusal) and reply.verb in (verb, "ACK"):
        row = None if reply.row is None else rows_before + reply.row
        raise _REFUSALS.get(reply.reason, Refused)(reply.reason, reply.detail, row)
    raise ProtocolError(f"a reply {reply.verb} instead of {verb}")


def _expect_stored(reply: Reply, batch: _Batch) -> None:
    (count,) = _expect(reply, "ACK_BATCH", batch.first_row)
    if _reply_number(count) != batch.size:
        raise ProtocolError(f"the server acknowledged {count} rows of a batch of {batch.size}")


def _page(reply: Reply, after: int) -> Tuple[List[str], int]:
    """Returns the documents of a page of winners, and where the next page begins; 0 if it was the last."""
    fields = _expect(reply, "WINNERS")
    if len(fields) != 2:
        raise ProtocolError("winners that are not a page")
    following = _reply_number(fields[1]) if fields[1] else 0
    if fields[1] and following in (0, after):
        raise ProtocolError(f"the page of winners after {after} is followed by itself")
    if fields[1] and not fields[0]:
        raise ProtocolError("an empty page of winners that is not the last")
    return (fields[0].split(",") if fields[0] else []), following
