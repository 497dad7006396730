"""An agency: uploads the bets of a CSV file, ends its betting, waits for the draw and prints its winners.

    python3 example.py --server HOST:PORT --agency N --file bets.csv

Run it again after a failure: it goes on where it ended. Once a later draw was opened, say with --draw which
one is meant; each run prints it.
"""

import argparse
import os
import sys
import time
from typing import List, Tuple

from sorteo_client import Client, CsvFile, Event, Retrying, SorteoError, Stored, Tls


PROGRESS_INTERVAL_S = 5.0


def main() -> int:
    """Runs the command, and returns its exit status: 0, or 1 if something failed."""
    arguments = _arguments()
    host, port = arguments.server
    try:
        tls = Tls(arguments.tls_ca, arguments.tls_cert, arguments.tls_key) if arguments.tls else None
        with Client(
            host, port, arguments.agency, arguments.draw, observer=_Report(), token_file=arguments.token_file, tls=tls
        ) as client:
            print(f"draw {client.draw()}", file=sys.stderr)
            count = client.upload(CsvFile(arguments.file))
            if count == 0 and not arguments.allow_empty:
                raise ValueError(f"{arguments.file} has no bets: if the agency has none, give --allow-empty")
            client.done(count)
            _deliver(client.winners(), arguments.winners_out)
    except (SorteoError, OSError, ValueError) as error:
        print(f"example.py: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Upload an agency's bets, and print its winning documents.")
    parser.add_argument("--server", required=True, type=_address, metavar="HOST:PORT")
    parser.add_argument("--agency", required=True, type=int, metavar="N")
    parser.add_argument("--file", required=True, help="the bets: first_name,last_name,document,birthdate,number")
    parser.add_argument("--winners-out", metavar="FILE", help="write the winners here instead of standard output")
    parser.add_argument("--draw", type=int, metavar="N", help="the draw that is meant; the newest if not given")
    parser.add_argument("--allow-empty", action="store_true", help="the agency has no bets")
    parser.add_argument("--token-file", metavar="FILE", help="the agency's token")
    parser.add_argument("--tls", action="store_true", help="use TLS, and never plain text")
    parser.add_argument("--tls-ca", metavar="FILE", help="the authority whose certificate the server must have")
    parser.add_argument("--tls-cert", metavar="FILE", help="the agency's own certificate, if it has one")
    parser.add_argument("--tls-key", metavar="FILE", help="its key")
    arguments = parser.parse_args()
    own = arguments.tls_cert or arguments.tls_key
    if arguments.tls != bool(arguments.tls_ca) or own and not arguments.tls:
        parser.error("--tls and --tls-ca need each other, and --tls-cert and --tls-key need both")
    return arguments


def _address(text: str) -> Tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"not HOST:PORT: {text}")
    return host.strip("[]"), int(port)


class _Report:
    """Prints what happens; of the progress, a line every few seconds and the last."""

    def __init__(self) -> None:
        self._next_progress = time.monotonic() + PROGRESS_INTERVAL_S

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stored):
            if event.rows < event.total and time.monotonic() < self._next_progress:
                return
            self._next_progress = time.monotonic() + PROGRESS_INTERVAL_S
            line = f"stored {event.rows} of {event.total}"
        elif isinstance(event, Retrying):
            line = f"again in {event.pause_s:.1f} s: {event.failure}"
        else:
            line = f"waiting for draw {event.draw}"
        print(line, file=sys.stderr, flush=True)


def _deliver(winners: List[str], path: str) -> None:
    """Writes the winners to a file, completely or not at all, or to standard output if there is no path."""
    text = "".join(document + "\n" for document in winners)
    if not path:
        sys.stdout.write(text)
        return
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".part", path)


if __name__ == "__main__":
    sys.exit(main())
