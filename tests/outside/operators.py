#!/usr/bin/env python3
"""What an operator sees of the real program while bets arrive, when the draw happens, and when the next one opens.

    tests/outside/operators.py [--binary target/release/sorteo] [--screenshots FOLDER]

Runs `page.py` on the server in each of these states, and `prometheus.sh` on a scrape of its metrics. Installs what
those install. Ends with a line `N passed, N failed`.
"""

import argparse
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from outside import BINARY, DEADLINE_S, Checks, ask, command, connect, start_server

HERE = pathlib.Path(__file__).resolve().parent
AGENCIES = 5
BETS = 78_697


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", type=pathlib.Path, default=BINARY)
    options.add_argument("--screenshots", type=pathlib.Path)
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sorteo-operators-") as folder:
        failed = run(options.binary.resolve(), pathlib.Path(folder), options.screenshots)
    sys.exit(failed != 0)


def run(binary, folder, screenshots):
    check = Checks()
    database = folder / "sorteo.db"
    command(binary, "generate", "--dir", folder, "--agencies", AGENCIES, "--bets", BETS, "--seed", 1)
    server, address = start_server(binary, database, folder, "--agencies", str(AGENCIES),
                                   "--ops-listen", "127.0.0.1:0")
    operators = operators_url(folder / "log")

    def page(state):
        shots = ["--screenshots", screenshots / state] if screenshots else []
        seen = subprocess.run([sys.executable, HERE / "page.py", "--server", operators, *shots],
                              capture_output=True, text=True, check=False)
        check(f"the page, {state}: {seen.stdout.strip().rpartition(chr(10))[2]}", seen.returncode == 0,
              seen.stdout + seen.stderr)

    def upload(agency):
        command(binary, "upload", "--server", "%s:%d" % address, "--agency", agency,
                "--file", folder / f"agency-{agency}.csv", "--no-wait")

    page("empty")
    for agency in range(1, AGENCIES - 1):
        upload(agency)
    with connect(address) as peer:
        check("an invalid bet is refused", b"ERR" in ask(peer, b"BET|4|Ana|Paz|1|1999-02-30|1"))
    page("filling")
    upload(AGENCIES - 1)
    command(binary, "draw", "close-agency", AGENCIES, "--reason", "line down", "--database", database)
    page("drawn")
    scrape = folder / "scrape"
    scrape.write_bytes(urllib.request.urlopen(operators + "/metrics", timeout=DEADLINE_S).read())
    promtool = subprocess.run([HERE / "prometheus.sh", "--scrape", scrape], capture_output=True, text=True, check=False)
    check("promtool accepts the scrape, and it has every documented metric", promtool.returncode == 0,
          promtool.stdout + promtool.stderr)
    command(binary, "draw", "open", "--database", database)
    page("next")
    server.send_signal(signal.SIGTERM)
    check("SIGTERM: exit 0", server.wait(DEADLINE_S) == 0, server.returncode)
    return check.conclude()


def operators_url(log):
    """The URL of the operators' HTTP, from the server's log."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        logged = re.search(r"action: listen_operators \| result: success \| listen: (\S+)", log.read_text(encoding="utf-8"))
        if logged:
            return f"http://{logged[1]}"
        if time.monotonic() > deadline:
            sys.exit("the operators' HTTP did not start: " + log.read_text(encoding="utf-8"))
        time.sleep(0.01)


if __name__ == "__main__":
    main()
