"""The rules for bets and CSV files."""

import pathlib
import tempfile
import tracemalloc
import unittest
from typing import Any, Iterator, List, Tuple

from sorteo_client import BadBet, Bet, Client, CsvFile, Settings, _Upload, check_bet

GOOD = Bet("Ana", "Paz", "30904465", "1999-03-17", 7574)


class Rules(unittest.TestCase):
    def test_good_bets(self) -> None:
        check_bet(Bet("é" * 60, " ", "A-1.2/3 x", "2000-02-29", 0), 1)
        check_bet(GOOD._replace(birthdate="0000-02-29"), 1)
        check_bet(Bet("x" * 120, "\u2027\u2070", "1" * 32, "0001-01-01", 2**32 - 1), 1)

    def test_bad_bets_are_named_by_row_and_field(self) -> None:
        cases: List[Tuple[str, Any]] = [
            ("first_name", ""), ("first_name", "é" * 60 + "x"), ("last_name", "a|b"), ("last_name", "a\nb"),
            ("first_name", "a\u200bb"), ("first_name", "a\u2028"), ("last_name", "a\u2800"), ("last_name", "\ud800"),
            ("last_name", "\U000e0001"), ("first_name", "\ufffb"),
            ("document", ""), ("document", "1" * 33), ("document", "1,2"), ("document", "\u0661"), ("document", "1\n"),
            ("birthdate", "1999-02-29"), ("birthdate", "1999-2-01"), ("birthdate", "19990201"),
            ("birthdate", "1999-02-01 "), ("birthdate", "\u0661999-02-01"), ("number", -1), ("number", 2**32),
        ]
        for field, value in cases:
            with self.subTest(field=field, value=value), self.assertRaises(BadBet) as caught:
                check_bet(GOOD._replace(**{field: value}), 17)
            self.assertEqual((caught.exception.row, caught.exception.field), (17, field))

    def test_nothing_is_sent_if_a_bet_is_bad(self) -> None:
        client = Client("127.0.0.1", 1, agency=1, settings=Settings(give_up_after_s=0.2))
        with self.assertRaisesRegex(BadBet, "row 3, number"):  # and not Unreachable: nobody listens there
            client.upload([GOOD, GOOD, GOOD._replace(number=-1)])

    def test_impossible_settings_are_refused(self) -> None:
        for wrong in ({"batch_rows": 0}, {"batch_rows": 10_001}, {"window_bytes": 0}):
            self.assertRaises(ValueError, lambda: Settings(**wrong))
        self.assertRaises(ValueError, Client, "localhost", 1, 2**32)

    def test_an_upload_is_named_after_its_rows(self) -> None:
        rows = [GOOD, Bet("Luis", "Sosa", "25001002", "1988-11-02", 1234)]
        name = "1fad079dcd3436a4f51cc9892db07ead0aca7bfbbdb722fe50b79811f8fdb63b"
        for batch_rows in (1, 2, 500):
            self.assertEqual(_Upload(rows, batch_rows).name, name)

    def test_memory_does_not_grow_with_the_rows(self) -> None:
        class Many:
            def __iter__(self) -> Iterator[Bet]:
                return (GOOD._replace(number=number) for number in range(100_000))

        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        upload = _Upload(Many(), 500)
        self.assertEqual(sum(batch.size for batch in upload.batches(0, 1, 1)), 100_000)
        self.assertLess(tracemalloc.get_traced_memory()[1], 1_000_000)


class CsvFiles(unittest.TestCase):
    def read(self, data: bytes) -> List[Bet]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bets.csv"
            path.write_bytes(data)
            file = CsvFile(str(path))
            self.assertEqual(list(file), list(file))
            return list(file)

    def test_good_files(self) -> None:
        line = b"Ana,Paz,30904465,1999-03-17,7574"
        for data in (line, line + b"\n", line + b"\r\n", b"\xef\xbb\xbf" + line, line.replace(b"75", b'"0075') + b'"'):
            self.assertEqual(self.read(data), [GOOD])
        self.assertEqual(self.read(b""), [])
        quoted = b'"Ana ""la""",",",1,1999-03-17,"7"\n' + line
        self.assertEqual(self.read(quoted), [Bet('Ana "la"', ",", "1", "1999-03-17", 7), GOOD])

    def test_bad_files_are_named_by_row_and_field(self) -> None:
        good = b"Ana,Paz,1,1999-03-17,7\n"
        cases = [
            (b'Ana,Paz,1,1999-03-17,"75"74\n', "number"), (b'Ana,Paz,1,1999-03-17,"75\n', "number"),
            (b'A"na,Paz,1,1999-03-17,7\n', "first_name"), (b'Ana,"Paz" ,1,1999-03-17,7\n', "last_name"),
            (b'Ana, "Paz",1,1999-03-17,7\n', "last_name"), (b'"Ana\nB",Paz,1,1999-03-17,7\n', "first_name"),
            (b"Ana,Paz,1,1999-03-17\n", "row"), (b"Ana,Paz,1,1999-03-17,7,\n", "row"), (b"\n", "row"),
            (b'Ana,Paz,1,1999-03-17,7,"x\n', "row"), (b"\xff,Paz,1,1999-03-17,7\n", "row"), (b"x" * 8193, "row"),
            (b"Ana,Paz,1,1999-03-17,\n", "number"), (b"Ana,Paz,1,1999-03-17,+7\n", "number"),
            (b"Ana,Paz,1,1999-03-17,1_0\n", "number"), (b"Ana,Paz,1,1999-03-17,12345678901\n", "number"),
            ("Ana,Paz,1,1999-03-17,\u0667\n".encode(), "number"), (b"Ana,Paz,1,1999-03-17,7\r\r\n", "number"),
        ]
        for data, field in cases:
            with self.subTest(data), self.assertRaises(BadBet) as caught:
                self.read(good + data)
            self.assertEqual((caught.exception.row, caught.exception.field), (2, field))
