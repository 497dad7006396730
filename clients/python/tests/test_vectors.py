"""The bytes of every request and reply, as the server's own documentation has them.

The client speaks the framed dialect alone; the small reader and writer of the counted one is here.
"""

import json
import unittest
from typing import Any, Dict, List, Set, Tuple

from sorteo_client import Bet, Refusal, decode_reply, encode_batch, encode_request, encode_row, take_frame
from tests.support import ROOT

Meaning = Dict[str, Any]

# The fields behind the verb and the agency, in the order in which they are sent.
REQUESTS = {
    "AUTH": ("token",), "BET": (), "RESUME": ("upload", "draw"), "DONE": ("count", "draw"), "GET_WINNERS": ("after", "draw"),
    "WAIT_WINNERS": ("max_ms", "draw"), "HELLO": (), "STATUS": (),
}
REPLIES = {"ACK", "ACK_BATCH", "ACK_DONE", "RESUME", "WINNERS", "HELLO", "STATUS"}
STATUS = ("draw", "state", "done", "expected", "bets")


def bet(meaning: Meaning) -> Bet:
    return Bet(*(meaning[field] for field in Bet._fields))


def encode_framed(meaning: Meaning) -> bytes:
    verb = meaning["request"]
    if verb == "BATCH":
        place = [meaning[field] for field in ("upload", "first_row", "draw") if field in meaning]
        header = encode_request(verb, meaning["agency"], len(meaning["bets"]), *place)
        return encode_batch(header, [encode_row(bet(row)) for row in meaning["bets"]])
    fields = [meaning["agency"]] if "agency" in meaning else []
    fields += bet(meaning["bet"]) if "bet" in meaning else ()
    optional = [meaning.get(field, "") for field in REQUESTS[verb]]
    while optional and optional[-1] == "":
        optional.pop()
    return encode_request(verb, *fields, *optional)


def decode_framed(data: bytes) -> Meaning:
    received = bytearray(data)
    payload = take_frame(received)
    if payload is None or received:
        raise AssertionError("not exactly one frame")
    reply = decode_reply(payload)
    if isinstance(reply, Refusal):
        parts = {"count": reply.batch_size, "reason": reply.reason, "detail": reply.detail or None, "row": reply.row}
        present = {key: value for key, value in parts.items() if value is not None}
        return {"reply": reply.verb, "ok": False, **present}
    return {"reply": reply.verb, "ok": True, **accepted(reply.verb, reply.fields)}


def accepted(verb: str, fields: Tuple[str, ...]) -> Meaning:
    if verb == "ACK_BATCH":
        return {"count": int(fields[0])}
    if verb == "RESUME":
        return {"next_row": int(fields[0])}
    if verb == "HELLO":
        return {"version": int(fields[0]), "words": fields[1].split(",")}
    if verb == "STATUS":
        return {key: value if key == "state" else int(value) for key, value in zip(STATUS, fields)}
    if verb == "WINNERS":
        page = {"next": int(fields[1]) if fields[1] else None} if len(fields) == 2 else {}
        return {"documents": fields[0].split(",") if fields[0] else [], **page}
    return {}


def encode_counted(meaning: Meaning) -> bytes:
    if meaning["request"] == "GET_WINNERS":
        payload = f"GET_WINNERS|{meaning['agency']}".encode()
    elif meaning["request"] == "AUTH":
        payload = f"AUTH|{meaning['agency']}|{meaning['token']}".encode()
    else:
        payload = b"\n".join(encode_row(bet(row)) + f"|{row['agency']}".encode() for row in meaning["bets"])
    return b"%d\n" % len(payload) + payload


def decode_counted(data: bytes) -> Meaning:
    length, _, payload = data.partition(b"\n")
    if int(length) != len(payload):
        raise AssertionError("not exactly one message")
    lines = payload.decode().split("\n") if payload else []
    if lines and "|" not in lines[0]:
        return {"reply": lines[0]}
    return {"reply": "WINNERS", "bets": [counted_bet(line) for line in lines]}


def counted_bet(line: str) -> Meaning:
    *texts, number, agency = line.split("|")
    return {**dict(zip(Bet._fields, texts)), "number": int(number), "agency": int(agency)}


class Vectors(unittest.TestCase):
    dialect = "framed"

    def setUp(self) -> None:
        text = (ROOT / "docs" / "vectors" / f"{self.dialect}.json").read_text(encoding="utf-8")
        vectors = json.loads(text)
        self.requests: List[Dict[str, Any]] = vectors["requests"]
        self.replies: List[Dict[str, Any]] = vectors["replies"]

    def verbs(self) -> Tuple[Set[str], Set[str]]:
        """The verbs of the requests and of the replies that the file must have."""
        return {"BATCH", *REQUESTS}, REPLIES

    def encode(self, meaning: Meaning) -> bytes:
        return encode_framed(meaning)

    def decode(self, vector: Dict[str, Any]) -> Meaning:
        return decode_framed(bytes.fromhex(vector["hex"]))

    def is_complete(self, data: bytes) -> bool:
        return take_frame(bytearray(data)) is not None

    def test_every_verb_is_there(self) -> None:
        requests, replies = self.verbs()
        self.assertLessEqual(requests, {vector["meaning"]["request"] for vector in self.requests})
        self.assertLessEqual(replies, {vector["meaning"]["reply"] for vector in self.replies})

    def test_requests_are_encoded(self) -> None:
        for vector in self.requests:
            with self.subTest(vector["name"]):
                self.assertEqual(self.encode(vector["meaning"]).hex(), vector["hex"])

    def test_replies_are_decoded(self) -> None:
        for vector in self.replies:
            with self.subTest(vector["name"]):
                self.assertEqual(self.decode(vector), vector["meaning"])

    def test_a_reply_cut_at_any_byte_is_incomplete(self) -> None:
        for vector in self.replies:
            data = bytes.fromhex(vector["hex"])
            for length in range(len(data)):
                self.assertFalse(self.is_complete(data[:length]), vector["name"])
            self.assertTrue(self.is_complete(data), vector["name"])


class CountedVectors(Vectors):
    dialect = "counted"

    def verbs(self) -> Tuple[Set[str], Set[str]]:
        return {"AUTH", "BETS", "GET_WINNERS"}, {"ACK", "WINNERS", "ERROR_BUSY", "ERROR_UNAUTHORIZED"}

    def encode(self, meaning: Meaning) -> bytes:
        return encode_counted(meaning)

    def decode(self, vector: Dict[str, Any]) -> Meaning:
        return decode_counted(bytes.fromhex(vector["hex"]))

    def is_complete(self, data: bytes) -> bool:
        length, line_feed, payload = data.partition(b"\n")
        return bool(line_feed) and len(payload) >= int(length)
