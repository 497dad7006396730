#!/usr/bin/env python3
"""What tokens and TLS cost: bets per second and latency, by number of connections.

    bench/secure.py --old BINARY [--binary target/release/sorteo] [--rounds 7] [--seconds 3]
                    [--connections 1,16,64] [--scratch FOLDER]

Within each round, in turns and each with a new server and an empty database, with
`sorteo bench` in batches of 99 over persistent connections:

    old      a program from before there were tokens and TLS (or any other), plain
    plain    this program, plain
    secured  this program, over TLS and with a token

Which of them begins changes from round to round. Prints a Markdown table with the
medians of the rounds, the medians of the rounds' ratios, and the processor time of server
and client for a batch, which other load on the machine hardly changes. The certificates are made
with `openssl`. Only compare results of the same run with each other.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
AGENCY = 1
VARIANTS = ["old", "plain", "secured"]

Certificates = collections.namedtuple("Certificates", "ca cert key")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_certificates(folder):
    """Makes an authority, and a certificate of the server with its key. Returns the files."""
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    ca_key, request = folder / "ca.key", folder / "server.csr"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new_key, "-days", "30", "-subj", "/CN=authority", "-keyout", ca_key, "-out", files.ca)
    openssl("req", *new_key, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", files.key, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", files.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "30",
            "-copy_extensions", "copy", "-out", files.cert)
    files.key.chmod(0o600)
    return files


def serve_secured(tls, files):
    """Returns the options of a `sorteo serve` that requires tokens."""
    return ["--auth", "required", "--tls", tls, "--tls-cert", files.cert, "--tls-key", files.key]


def add_token(binary, database, agency):
    """Returns the file with a new token of the agency."""
    done = subprocess.run([binary, "token", "add", str(agency), "--database", database],
                          check=True, capture_output=True, text=True)
    path = database.with_name(f"agency-{agency}.token")
    path.touch(mode=0o600)
    path.write_text(done.stdout, encoding="ascii")
    return path


@contextlib.contextmanager
def server(binary, folder, *options):
    """Runs a server in the folder; yields its process and its address."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--database", folder / "sorteo.db", "--ready-file", ready,
             "--log-level", "warning", *map(str, options)], stderr=log)
    try:
        while not ready.exists():
            if process.poll() is not None:
                sys.exit("the server did not start: " + (folder / "log").read_text(encoding="utf-8"))
            time.sleep(0.001)
        host, port = ready.read_text(encoding="ascii").strip().rsplit(":", 1)
        yield process, (host, int(port))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def processor_seconds(pid):
    """The processor time that the process has used so far: utime and stime of proc(5)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(options, variant, connections, certificates):
    """Returns the report of `sorteo bench` on a new server."""
    binary = options.old if variant == "old" else options.binary
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        folder = pathlib.Path(folder)
        flags = serve_secured("required", certificates) if variant == "secured" else []
        with server(binary, folder, "--agencies", 2, *flags) as (process, address):
            sender = ["--agencies", "1"]
            if variant == "secured":
                token = add_token(binary, folder / "sorteo.db", AGENCY)
                sender = ["--agency", AGENCY, "--token-file", token, "--tls", "--tls-ca", certificates.ca]
            used, used_here = processor_seconds(process.pid), os.times()
            done = subprocess.run(
                [binary, "bench", "--server", "%s:%d" % address, "--connections", str(connections), "--duration",
                 str(options.seconds), "--json", *map(str, sender)], check=True, capture_output=True, text=True)
            report, now = json.loads(done.stdout), os.times()
            batches = report["bets"] / report["batch"]
            report["server_us"] = (processor_seconds(process.pid) - used) / batches * 1e6
            report["client_us"] = (now.children_user + now.children_system - used_here.children_user -
                                   used_here.children_system) / batches * 1e6
            return report


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--binary", default=HERE.parent / "target/release/sorteo")
    options.add_argument("--old", required=True)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--connections", default="1,16,64")
    options.add_argument("--scratch", default=None)
    options = options.parse_args()
    counts = [int(count) for count in options.connections.split(",")]
    with tempfile.TemporaryDirectory(prefix="sorteo-secure-", dir=options.scratch) as folder:
        certificates = make_certificates(pathlib.Path(folder))
        rounds = collections.defaultdict(list)
        for number in range(options.rounds):
            turn = number % len(VARIANTS)
            for connections in counts:
                order = VARIANTS[turn:] + VARIANTS[:turn]
                reports = {one: measure(options, one, connections, certificates) for one in order}
                rounds[connections].append(reports)
                print(number + 1, connections, *(f"{one} {reports[one]['bets_per_second']:,.0f}" for one in VARIANTS),
                      file=sys.stderr, flush=True)
    print_tables(rounds)


def print_tables(rounds):
    print("| connections | | bets/s | p50, ms | p99, ms | p99.9, ms | server, µs a batch"
          " | client, µs a batch |\n|---:|---|" + "---:|" * 6)
    for connections, reports in rounds.items():
        for variant in VARIANTS:
            rate = statistics.median(one[variant]["bets_per_second"] for one in reports)
            times = [statistics.median(one[variant]["latency_us"][key] for one in reports) / 1000
                     for key in ("p50", "p99", "p99_9")]
            print(f"| {connections} | {variant} | {rate:,.0f} | " + " | ".join(f"{ms:.2f}" for ms in times) + " | " +
                  " | ".join(f"{statistics.median(one[variant][key] for one in reports):.0f}"
                             for key in ("server_us", "client_us")) + " |")
    print("\n| connections | secured ÷ plain | plain ÷ old | p99 secured ÷ plain"
          " | processor secured ÷ plain |\n|---:|---:|---:|---:|---:|")
    for connections, reports in rounds.items():
        def ratio(over, under, value):
            return statistics.median(value(one[over]) / value(one[under]) for one in reports)
        print(f"| {connections} | {ratio('secured', 'plain', rate_of):.3f} | {ratio('plain', 'old', rate_of):.3f}"
              f" | {ratio('secured', 'plain', p99_of):.2f} | {ratio('secured', 'plain', processor_of):.2f} |")


def rate_of(report):
    return report["bets_per_second"]


def p99_of(report):
    return report["latency_us"]["p99"]


def processor_of(report):
    return report["server_us"] + report["client_us"]


if __name__ == "__main__":
    main()
