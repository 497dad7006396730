"""The client against the real server, and whatever can break between them.

The server is the file named by SORTEO_BIN, or target/release/sorteo of this repository. What is random repeats
with the SORTEO_SEED that is printed.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import unittest
from typing import Callable, List, Optional
from unittest import mock

import sorteo_client
from sorteo_client import (
    Bet, BettingClosed, Client, CsvFile, Event, Refused, Retrying, Settings, Stored, Unreachable, encode_request,
)
from tests.support import Address, Proxy, Server, bets, seeded, wait_until

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "example.py"
SMALL = Settings(batch_rows=10, give_up_after_s=60)


class Once:
    """An observer that does something as soon as a number of rows is stored, and keeps the failures."""

    def __init__(self, rows: int, action: Callable[[], None]) -> None:
        self._rows = rows
        self._action: Optional[Callable[[], None]] = action
        self.failures: List[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Retrying):
            failure = event.failure
            self.failures.append(failure.reason if isinstance(failure, Refused) else "lost")
        if isinstance(event, Stored) and event.rows >= self._rows and self._action is not None:
            action, self._action = self._action, None
            action()


class WithServer(unittest.TestCase):
    def setUp(self) -> None:
        pause = mock.patch.object(sorteo_client, "PAUSE_MIN_S", 0.01)
        pause.start()
        self.addCleanup(pause.stop)
        self.server = Server()
        self.addCleanup(self.server.close)

    def client(
        self,
        address: Optional[Address] = None,
        settings: Settings = SMALL,
        observer: Callable[[Event], None] = lambda event: None,
    ) -> Client:
        client = Client(*(address or self.server.address), agency=1, settings=settings, observer=observer)
        self.addCleanup(client.close)
        return client

    def write_csv(self, rows: List[Bet]) -> str:
        path = self.server.folder / "bets.csv"
        path.write_text("".join(",".join(map(str, bet)) + "\n" for bet in rows), encoding="utf-8")
        return str(path)


class WholeDraw(WithServer):
    def test_from_the_file_to_the_winners_over_several_pages(self) -> None:
        rows = bets(2500, number=7574) + bets(499, first_name="Luis")
        client = self.client(settings=Settings())
        self.assertEqual(client.upload(CsvFile(self.write_csv(rows))), 2999)
        client.done(2999)
        self.assertEqual(client.winners(), [bet.document for bet in rows[:2500]])
        self.assertEqual(self.server.stored(), sorted(rows))
        self.assertEqual(client.upload(rows), 2999)  # also after the draw, as nothing is left to store
        client.done(2999)

    def test_the_same_bets_are_stored_once_and_other_bets_besides(self) -> None:
        rows, others = bets(95), bets(7, "Eva")
        for _ in range(2):
            self.client().upload(CsvFile(self.write_csv(rows)))
            self.client(settings=Settings(batch_rows=33)).upload(rows)
        self.client().upload(others)
        self.client().upload([])
        self.assertEqual(self.server.stored(), sorted(rows + others))
        with self.assertRaises(Refused) as caught:
            self.client().done(95)
        self.assertEqual((caught.exception.reason, caught.exception.detail), ("count_mismatch", "102"))

    def test_all_text_that_the_rules_allow_is_stored_as_it_is(self) -> None:
        rows = [
            Bet("é" * 60, ' "', "A-1.2/3 x", "2000-02-29", 0),
            Bet("\u2027", "\U0001f600", "007", "0001-01-01", 2**32 - 1),
        ]
        self.client().upload(rows)
        self.assertEqual(self.server.stored(), sorted(rows))


class Breaking(WithServer):
    def test_the_server_is_killed_again_and_again(self) -> None:
        random = seeded()
        rows = bets(3000)
        kills = 0

        def kill() -> None:
            nonlocal kills
            kills += 1
            self.server.kill()
            self.server.start()

        for part in range(4):
            some = rows[: 750 * (part + 1)][750 * part :]
            observer = Once(random.randrange(1, 600), kill)
            self.client(observer=observer).upload(some)
            self.assertIn("lost", observer.failures)
        self.assertEqual(kills, 4)
        self.assertEqual(self.server.stored(), sorted(rows))

    def test_the_client_is_killed_again_and_again(self) -> None:
        random = seeded()
        rows = bets(20_000) + bets(3, "Eva", number=7574)
        winners = self.server.folder / "winners"
        host, port = self.server.address
        command = [sys.executable, str(EXAMPLE), "--server", f"{host}:{port}", "--agency", "1", "--file"]
        command += [self.write_csv(rows), "--winners-out", str(winners)]
        for _ in range(4):
            self._kill_after_rows(command, random.randrange(0, 15_000))
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        self.assertEqual(self.server.stored(), sorted(rows))
        self.assertEqual(winners.read_text(), "0\n1\n2\n")

    def _kill_after_rows(self, command: List[str], rows: int) -> None:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("stored") and int(line.split()[1]) >= rows:
                    break
            process.kill()

    def test_the_connection_is_cut_behind_any_byte(self) -> None:
        expected: List[Bet] = []
        cuts = [(cut, None) for cut in range(0, 1500, 37)] + [(None, cut) for cut in range(0, 170, 5)]
        for up_bytes, down_bytes in cuts:
            rows = bets(25, f"Cut {up_bytes} {down_bytes}")
            proxy = Proxy(self.server.address, up_bytes, down_bytes)
            self.addCleanup(proxy.close)
            with self.client(proxy.address) as client:
                self.assertEqual(client.upload(rows), 25)
            expected += rows
        self.assertEqual(self.server.stored(), sorted(expected))

    def test_a_line_too_slow_to_make_progress_is_given_up(self) -> None:
        proxy = Proxy(self.server.address, rate=2000)
        self.addCleanup(proxy.close)
        settings = Settings(batch_rows=500, give_up_after_s=1)  # a batch needs longer, though bytes move all the time
        with self.assertRaises(Unreachable):
            self.client(proxy.address, settings).upload(bets(500))

    def test_a_slow_line_with_progress_is_not_given_up(self) -> None:
        rows = bets(300)  # which takes about three seconds
        proxy = Proxy(self.server.address, rate=5000)
        self.addCleanup(proxy.close)
        settings = Settings(batch_rows=2, window_batches=2, give_up_after_s=2)
        self.client(proxy.address, settings).upload(rows)
        self.assertEqual(self.server.stored(), sorted(rows))

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            address = unused.getsockname()
        with self.assertRaisesRegex(Unreachable, "cannot connect"):
            self.client(address, Settings(give_up_after_s=0.2)).draw()


class Others(WithServer):
    def test_a_second_upload_of_the_same_bets_with_other_cuts_in_the_middle(self) -> None:
        rows = bets(3000)
        observer = Once(300, lambda: self.assertEqual(self.client(settings=Settings(batch_rows=7)).upload(rows), 3000))
        self.client(observer=observer).upload(rows)
        self.assertIn("conflict", observer.failures)
        self.assertEqual(self.server.stored(), sorted(rows))

    def test_two_uploads_of_the_same_bets_with_other_cuts_at_once(self) -> None:
        rows = bets(2000)
        counts: List[int] = []
        threads = [
            threading.Thread(target=lambda client: counts.append(client.upload(rows)), args=(client,))
            for client in (self.client(), self.client(settings=Settings(batch_rows=7)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(counts, [2000, 2000])
        self.assertEqual(self.server.stored(), sorted(rows))

    def test_the_next_draw_is_opened_in_the_middle(self) -> None:
        def draw_and_open_next() -> None:
            with socket.create_connection(self.server.address) as connection:
                connection.sendall(encode_request("DONE", 1))
                self.assertEqual(connection.recv(100)[4:], b"ACK_DONE|OK\n")
            self.server.command("draw", "open")

        rows = bets(3000)
        client = self.client(observer=Once(300, draw_and_open_next))
        with self.assertRaises(BettingClosed):
            client.upload(rows)
        self.assertEqual(self.server.stored(2), [])
        first = self.server.stored(1)
        self.assertEqual(first, sorted(rows[: len(first)]))
        self.assertGreaterEqual(len(first), 300)
        with self.assertRaises(BettingClosed):  # the client stays with its draw
            client.upload(rows)
        self.assertEqual(client.winners(), [])
        self.assertEqual(self.client().draw(), 2)
        with Client(*self.server.address, agency=1, draw=1, settings=SMALL) as later:
            later.done(len(first))
            self.assertEqual(later.winners(), [])
        self.assertEqual(self.server.stored(2), [])


class Example(WithServer):
    def run_example(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        host, port = self.server.address
        command = [sys.executable, str(EXAMPLE), "--server", f"{host}:{port}", *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_it_waits_for_the_draw_and_prints_the_winners(self) -> None:
        path = self.write_csv(bets(3, number=7574))
        result = self.run_example("--agency", "1", "--file", path)
        self.assertEqual((result.returncode, result.stdout), (0, "0\n1\n2\n"))

    def test_a_bad_file_fails_with_its_row_and_field(self) -> None:
        path = self.write_csv(bets(3) + [Bet("Ana", "Paz", "1", "1999-02-30", 1)])
        result = self.run_example("--agency", "1", "--file", path)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("row 4, birthdate", result.stderr)
        self.assertEqual(self.server.stored(), [])

    def test_a_missing_file_fails(self) -> None:
        result = self.run_example("--agency", "1", "--file", os.devnull + "/none")
        self.assertEqual(result.returncode, 1)

    def test_the_wrong_agency_fails(self) -> None:
        self.server.command("draw", "set", "--agencies", "1-1", "--reason", "a test")
        result = self.run_example("--agency", "7", "--file", self.write_csv(bets(3)))
        self.assertEqual(result.returncode, 1)
        self.assertIn("unknown_agency", result.stderr)
