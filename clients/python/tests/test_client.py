"""The client against a scripted server, which says what no real server should."""

import unittest
from typing import Any, Iterator, List
from unittest import mock

import sorteo_client
from sorteo_client import (
    Bet, BettingClosed, Client, ConnectionLost, Event, IncompatibleServer, NotDrawn, ProtocolError, Refused, Retrying,
    Settings, SourceChanged, Stored, Unreachable,
)
from tests.support import Peer, Script, ScriptedServer, bets, wait_until

QUICK = Settings(batch_rows=2, give_up_after_s=20, reply_timeout_s=10)


def raw(data: bytes) -> Script:
    """A server that sends this after the greeting and the RESUME."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.resume(0)
        peer.connection.sendall(data)
        peer.connection.recv(1 << 20)

    return script


def answers(*lines: str, next_row: int = 0, greet: bool = True) -> Script:
    """A server that replies to each batch with one of these lines."""

    def script(peer: Peer) -> None:
        if greet:
            peer.greet()
        peer.resume(next_row)
        for line in lines:
            peer.batch()
            peer.reply(line)
        peer.request()  # until the client has gone

    return script


class WithServer(unittest.TestCase):
    def setUp(self) -> None:
        pauses = mock.patch.multiple(sorteo_client, PAUSE_MIN_S=0.001, PAUSE_STORAGE_FULL_S=0.002)
        pauses.start()
        self.addCleanup(pauses.stop)
        self.events: List[Event] = []

    def client(self, *scripts: Script, settings: Settings = QUICK) -> Client:
        self.server = ScriptedServer(*scripts)
        self.addCleanup(self.server.close)
        client = Client(*self.server.address, agency=1, settings=settings, observer=self.events.append)
        self.addCleanup(client.close)
        return client

    def reasons(self) -> List[str]:
        failures = [event.failure for event in self.events if isinstance(event, Retrying)]
        return [failure.reason if isinstance(failure, Refused) else "lost" for failure in failures]


class Greeting(WithServer):
    def test_a_server_that_does_not_know_hello_is_too_old(self) -> None:
        def script(peer: Peer) -> None:
            peer.request()
            peer.reply("ACK|ERR|unknown")

        with self.assertRaisesRegex(IncompatibleServer, "too old"):
            self.client(script).draw()

    def test_another_version_is_refused(self) -> None:
        with self.assertRaisesRegex(IncompatibleServer, "version 2"):
            self.client(lambda peer: peer.greet(version="2")).draw()

    def test_a_server_without_draws_is_refused(self) -> None:
        with self.assertRaisesRegex(IncompatibleServer, "draws"):
            self.client(lambda peer: peer.greet(words="uploads,pages,waits")).draw()

    def test_the_newest_draw_is_the_one_and_a_given_draw_stays(self) -> None:
        client = self.client(lambda peer: peer.greet(), lambda peer: peer.greet())
        self.assertEqual(client.draw(), 3)
        with Client(*self.server.address, agency=1, draw=2, settings=QUICK) as given:
            self.assertEqual(given.draw(), 2)


class Replies(WithServer):
    def test_busy_gap_conflict_and_a_full_disk_are_tried_again_from_what_is_stored(self) -> None:
        client = self.client(
            answers("ACK_BATCH|ERR|2|busy"),
            answers("ACK_BATCH|OK|2", "ACK_BATCH|ERR|2|gap|2", greet=False),
            answers("ACK_BATCH|ERR|2|conflict", next_row=2, greet=False),
            answers("ACK_BATCH|ERR|1|storage_full", next_row=3, greet=False),
            answers("ACK|ERR|busy", next_row=3, greet=False),
            answers("ACK_BATCH|OK|1", "ACK_BATCH|OK|1", next_row=3, greet=False),
        )
        self.assertEqual(client.upload(bets(5)), 5)
        self.assertEqual(self.reasons(), ["busy", "gap", "conflict", "storage_full", "busy"])
        self.assertEqual([event.rows for event in self.events if isinstance(event, Stored)], [2, 3, 4, 5])

    def test_an_unknown_reason_is_final(self) -> None:
        client = self.client(answers("ACK_BATCH|ERR|2|moon_phase|full|7"), answers())
        with self.assertRaises(Refused) as caught:
            client.upload(bets(5))
        self.assertEqual((caught.exception.reason, caught.exception.detail), ("moon_phase", "full|7"))
        self.assertEqual(self.server.connections, 1)

    def test_a_refused_row_is_numbered_in_the_upload(self) -> None:
        with self.assertRaises(Refused) as caught:
            self.client(answers("ACK_BATCH|OK|2", "ACK_BATCH|ERR|2|row 1: bad_document")).upload(bets(5))
        self.assertEqual((caught.exception.reason, caught.exception.row), ("bad_document", 3))

    def test_betting_closed_is_an_error_of_its_own(self) -> None:
        for reason in ("draw_closed", "agency_done"):
            with self.subTest(reason), self.assertRaises(BettingClosed):
                self.client(answers(f"ACK_BATCH|ERR|2|{reason}")).upload(bets(5))

    def test_busy_for_too_long_is_told_as_such(self) -> None:
        def script(peer: Peer) -> None:
            if peer.request() == "HELLO":
                peer.reply("HELLO|ERR|busy")

        with self.assertRaises(Refused) as caught:
            self.client(*[script] * 1000, settings=Settings(give_up_after_s=0.2)).draw()
        self.assertEqual(caught.exception.reason, "busy")

    def test_garbage_is_a_protocol_error(self) -> None:
        cases = {
            "another protocol": b"HTTP/1.1 400 Bad Request\r\n",
            "an empty frame": b"\0\0\0\0",
            "a frame over the limit": b"\0\0\x20\x01",
            "no line feed": b"\0\0\0\x0eACK_BATCH|OK|2",
            "not UTF-8": b"\0\0\0\x04AC\xff\n",
            "an unknown verb": b"\0\0\0\x07NACK|OK"[:10] + b"\n",
            "neither OK nor ERR": b"\0\0\0\x08ACK|YES\n",
            "too many fields": b"\0\0\0\x11ACK_BATCH|OK|2|3\n",
            "a count that is none": b"\0\0\0\x10ACK_BATCH|OK|-2\n",
            "another count": b"\0\0\0\x0fACK_BATCH|OK|3\n",
            "a reply to something else": b"\0\0\0\x0cACK_DONE|OK\n",
            "a refusal without a reason": b"\0\0\0\x11ACK_BATCH|ERR|2|\n",
            "a control character": b"\0\0\0\x16ACK_BATCH|ERR|2|gap|\x1b\n",
        }
        for name, data in cases.items():
            with self.subTest(name), self.assertRaises(ProtocolError):
                self.client(raw(data)).upload(bets(5))
            self.assertEqual(self.server.connections, 1)

    def test_more_rows_stored_than_there_are_is_a_protocol_error(self) -> None:
        with self.assertRaises(ProtocolError):
            self.client(answers(next_row=6)).upload(bets(5))

    def test_replies_may_come_in_pieces(self) -> None:
        def script(peer: Peer) -> None:
            with mock.patch.object(Peer, "reply", lambda peer, line: in_pieces(peer, line)):
                answers("ACK_BATCH|OK|2", "ACK_BATCH|OK|2", "ACK_BATCH|OK|1")(peer)

        def in_pieces(peer: Peer, line: str) -> None:
            payload = line.encode() + b"\n"
            for byte in len(payload).to_bytes(4, "big") + payload:
                peer.connection.sendall(bytes([byte]))

        self.assertEqual(self.client(script).upload(bets(5)), 5)
        self.assertEqual(self.reasons(), [])

    def test_a_reply_before_a_close_is_read_though_more_was_being_sent(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            peer.resume(0)
            peer.request()
            peer.reply("ACK_BATCH|ERR|0|too_many")

        with self.assertRaises(Refused) as caught:
            self.client(script, settings=Settings(batch_rows=10_000, give_up_after_s=5)).upload(bets(20_000))
        self.assertEqual(caught.exception.reason, "too_many")


class Window(WithServer):
    def test_a_few_batches_are_in_flight_at_first_and_one_more_with_each_ok(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            peer.resume(0)
            for count in (4, 2, 2, 1):  # up to 6 at a time
                for _ in range(count):
                    peer.batch()
                self.assertFalse(peer.batch_comes())
                peer.reply("ACK_BATCH|OK|2")
            for _ in range(11):
                peer.batch()
                peer.reply("ACK_BATCH|OK|2")
            for _ in range(5):
                peer.reply("ACK_BATCH|OK|2")
            peer.request()

        client = self.client(script, settings=Settings(batch_rows=2, window_batches=6, give_up_after_s=20))
        self.assertEqual(client.upload(bets(40)), 40)
        self.assertEqual(self.reasons(), [])

    def test_bytes_in_flight_are_limited_but_one_batch_always_goes(self) -> None:
        for window_bytes, in_flight in ((10, 1), (300, 2)):  # a batch has about 140 bytes

            def script(peer: Peer) -> None:
                peer.greet()
                peer.resume(0)
                for _ in range(in_flight - 1):
                    peer.batch()
                for _ in range(8):
                    peer.batch()
                    self.assertFalse(peer.batch_comes())
                    peer.reply("ACK_BATCH|OK|2")
                for _ in range(in_flight - 1):
                    peer.reply("ACK_BATCH|OK|2")
                peer.request()

            count = 2 * (8 + in_flight - 1)
            settings = Settings(batch_rows=2, window_bytes=window_bytes, give_up_after_s=20)
            self.assertEqual(self.client(script, settings=settings).upload(bets(count)), count)
            self.assertEqual(self.reasons(), [])


class GivingUp(WithServer):
    def test_a_silent_server_is_unreachable(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            while peer.request():
                pass

        settings = Settings(reply_timeout_s=0.05, give_up_after_s=0.5)
        with self.assertRaises(Unreachable) as caught:
            self.client(script, *[lambda peer: None] * 1000, settings=settings).upload(bets(5))
        self.assertIsInstance(caught.exception.__cause__, ConnectionLost)

    def test_time_without_progress_counts_and_pauses_grow_until_there_is_progress(self) -> None:
        clock = mock.Mock(return_value=0.0)
        with mock.patch("sorteo_client.time.monotonic", clock), mock.patch("random.uniform", lambda low, high: high):
            sorteo_client.PAUSE_MIN_S = 0.1
            patience = sorteo_client._Patience(10)
            lost = ConnectionLost("")
            self.assertEqual([patience.next_pause_s(lost) for _ in range(7)], [0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])
            clock.return_value = 6.9
            self.assertEqual(patience.next_pause_s(lost), 3.0)
            patience.progress()
            clock.return_value = 16.0
            self.assertEqual(patience.next_pause_s(lost), 0.1)
            clock.return_value = 17.0
            self.assertRaises(Unreachable, patience.next_pause_s, lost)


class Changing:
    """A source that gives something else each time it is read."""

    def __init__(self, *readings: List[Bet]) -> None:
        self._readings = iter(readings)

    def __iter__(self) -> Iterator[Bet]:
        return iter(next(self._readings))


class Sources(WithServer):
    def test_bets_that_changed_are_not_sent(self) -> None:
        before = bets(6)
        cases = {
            "other": before[:3] + [before[3]._replace(number=7)] + before[4:],
            "in another order": [before[0], before[1], before[3], before[2], *before[4:]],
            "shorter": before[:3],
            "shifted": bets(1, "Eva") + before,
        }
        for name, after in cases.items():
            frames: List[str] = []

            def script(peer: Peer) -> None:
                peer.greet()
                peer.resume(2)
                while "" not in frames:  # which is the end of the connection
                    frames.append(peer.request())

            with self.subTest(name), self.assertRaises(SourceChanged):
                self.client(script).upload(Changing(before, after))
            wait_until(lambda: "" in frames, "the end of the connection")
            self.assertEqual(frames, [""])

    def test_rows_that_follow_the_last_batch_are_noticed(self) -> None:
        with self.assertRaises(SourceChanged):
            self.client(answers()).upload(Changing(bets(4), bets(6)))

    def test_an_iterator_is_refused(self) -> None:
        client: Any = self.client()
        with self.assertRaises(TypeError):
            client.upload(iter(bets(5)))
        self.assertEqual(self.server.connections, 0)

    def test_an_error_of_the_source_is_not_taken_for_one_of_the_network(self) -> None:
        class Vanishing(Changing):
            def __iter__(self) -> Iterator[Bet]:
                try:
                    return super().__iter__()
                except StopIteration:
                    raise FileNotFoundError from None

        with self.assertRaises(FileNotFoundError):
            self.client(answers()).upload(Vanishing(bets(5)))


class Winners(WithServer):
    def test_pages_are_fetched_and_a_lost_page_again(self) -> None:
        requests: List[str] = []

        def serve(*lines: str) -> Script:
            def script(peer: Peer) -> None:
                if not requests:
                    peer.greet()
                for line in lines:
                    requests.append(peer.request())
                    peer.reply(line)

            return script

        client = self.client(
            serve("WINNERS|OK|1,2|9"), serve("WINNERS|ERR|unavailable"), serve("WINNERS|OK|3|5", "WINNERS|OK||")
        )
        self.assertEqual(client.winners(), ["1", "2", "3"])
        waiting = "WAIT_WINNERS|1|10000|3"
        self.assertEqual(requests, [waiting, "GET_WINNERS|1|9|3", "GET_WINNERS|1|9|3", "GET_WINNERS|1|5|3"])

    def test_a_page_followed_by_itself_is_a_protocol_error(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            for _ in range(2):
                peer.request()
                peer.reply("WINNERS|OK|1|9")

        with self.assertRaises(ProtocolError):
            self.client(script).winners()

    def test_waiting_ends_after_the_given_time(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            self.assertEqual(peer.request(), "WAIT_WINNERS|1|0|3")
            peer.reply("WINNERS|ERR|not_ready")

        with self.assertRaises(NotDrawn):
            self.client(script).winners(wait_s=0)

    def test_an_early_not_ready_means_that_the_server_stops(self) -> None:
        def stopping(peer: Peer) -> None:
            peer.greet()
            peer.request()
            peer.reply("WINNERS|ERR|not_ready")
            self.assertEqual(peer.request(), "")  # it does not ask the same server again at once

        def restarted(peer: Peer) -> None:
            peer.request()
            peer.reply("WINNERS|OK|1|")

        self.assertEqual(self.client(stopping, restarted).winners(), ["1"])
        self.assertEqual(self.reasons(), ["lost"])


class Done(WithServer):
    def test_a_count_mismatch_is_refused_with_what_is_stored(self) -> None:
        def script(peer: Peer) -> None:
            peer.greet()
            self.assertEqual(peer.request(), "DONE|1|5|3")
            peer.reply("ACK_DONE|ERR|count_mismatch|4")

        with self.assertRaises(Refused) as caught:
            self.client(script).done(5)
        self.assertEqual((caught.exception.reason, caught.exception.detail), ("count_mismatch", "4"))
