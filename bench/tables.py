#!/usr/bin/env python3
"""Computes medians and ratios from the measurements of one run.

A ratio is the median of the ratios within each round: if the machine is slow for half
a minute, it is slow for both systems that are compared.

Argument: the folder with measurements.csv and machine.txt. Prints the tables in
Markdown; writes summary.json and plot.dat, the data of the plot, to the same folder.
"""

import collections
import csv
import json
import pathlib
import statistics
import sys

NAMES = {"sorteo": "sorteo", "redis": "Redis", "postgresql": "PostgreSQL", "ceiling": "SQLite alone"}
SERVERS = ["sorteo", "redis", "postgresql"]


def read(path):
    """Reads the measurements: (variant, system, clients) -> rows, in the order of the rounds."""
    samples = collections.defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            samples[row["variant"], row["system"], int(row["clients"])].append(row)
    return samples


def medians_of(samples):
    """Returns variant -> system -> clients -> {rate, p50, p99}, and all rates of SQLite alone."""
    medians = collections.defaultdict(lambda: collections.defaultdict(dict))
    for (variant, system, clients), rows in samples.items():
        columns = {"rate": "bets_per_second", "p50_us": "p50_us", "p99_us": "p99_us"}
        medians[variant][system][clients] = {
            name: statistics.median(float(row[column]) for row in rows)
            for name, column in columns.items()
            if rows[0][column]
        }
    # SQLite alone has no clients. It was measured once for each number of clients, but
    # all these measurements are of the same thing.
    alone = [
        float(row["bets_per_second"])
        for (variant, system, _), rows in samples.items()
        if (variant, system) == ("kept", "ceiling")
        for row in rows
    ]
    del medians["kept"]["ceiling"]
    return medians, alone


def ratio(samples, one, other):
    """Returns how many times as fast one was as the other in the same round (median)."""
    rounds = zip(samples[one], samples[other], strict=True)
    return times(statistics.median(float(a["bets_per_second"]) / float(b["bets_per_second"]) for a, b in rounds))


def number(value):
    return f"{value:,.0f}"


def thousands(value):
    """Rounds to three digits, which is already more than the noise allows."""
    return number(float(f"{value:.3g}"))


def milliseconds(micros):
    return f"{micros / 1000:.2f}" if micros < 10_000 else f"{micros / 1000:.1f}"


def times(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---:|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_kept(kept, samples):
    rows = []
    for clients, sorteo in sorted(kept["sorteo"].items()):
        redis, postgresql = kept["redis"][clients], kept["postgresql"][clients]
        rows.append([
            str(clients),
            thousands(sorteo["rate"]),
            f"{milliseconds(sorteo['p50_us'])} / {milliseconds(sorteo['p99_us'])}",
            thousands(redis["rate"]),
            thousands(postgresql["rate"]),
            *(ratio(samples, ("kept", "sorteo", clients), ("kept", other, clients))
              for other in ["ceiling", "redis", "postgresql"]),
        ])
    head = ["clients", "**sorteo**", "p50 / p99, ms", "Redis", "PostgreSQL"]
    print("Bets per second, each synced to disk before its reply.\n")
    table(head + ["sorteo ÷ ceiling", "÷ Redis", "÷ PostgreSQL"], rows)


def print_slow(slow, samples):
    few, many = min(slow["sorteo"]), max(slow["sorteo"])
    rows = []
    for system in SERVERS:
        one, all_ = slow[system][few], slow[system][many]
        # A reply faster than the delay would show that the delay had no effect.
        latency = milliseconds(one["p50_us"]) if "p50_us" in one else ""
        times_one = ratio(samples, ("slow", system, many), ("slow", system, few))
        rows.append([NAMES[system], latency, thousands(one["rate"]), thousands(all_["rate"]), times_one])
    print("With 5 ms added to every fsync:\n")
    head = ["", f"p50 at {few}, ms", f"{few} client", f"{many} clients", f"{many} ÷ {few}"]
    table(head, rows)


def print_fresh(fresh, kept, samples):
    rows = []
    for system in SERVERS:
        ((clients, new),) = fresh[system].items()
        old = kept[system][clients]
        part = ratio(samples, ("fresh", system, clients), ("kept", system, clients))
        rows.append([NAMES[system], thousands(old["rate"]), thousands(new["rate"]), part])
    print(f"With a new connection for every batch, {clients} clients:\n")
    table(["", "kept", "new", "new ÷ kept"], rows)


def apart(heights, distance):
    """Returns the heights, moved up where they are too close together, so that labels do not overlap."""
    placed, last = list(heights), float("-inf")
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        last = placed[index] = max(heights[index], last + distance)
    return placed


def write_plot(path, kept, ceiling):
    """Writes two blocks: the rates, and the positions of the labels at the ends of the lines."""
    lines = ["# clients sorteo redis postgresql ceiling"]
    for clients in sorted(kept["sorteo"]):
        rates = [kept[system][clients]["rate"] for system in SERVERS] + [ceiling]
        lines.append(" ".join(f"{value:.0f}" for value in [clients, *rates]))
    names = apart(rates, distance=max(rates) * 0.06)
    lines += ["", "", " ".join(f"{value:.0f}" for value in [clients, *names])]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    folder = pathlib.Path(sys.argv[1])
    samples = read(folder / "measurements.csv")
    medians, alone = medians_of(samples)
    ceiling = statistics.median(alone)
    machine = (folder / "machine.txt").read_text(encoding="utf-8").strip()
    print_kept(medians["kept"], samples)
    # The same thing was measured many times: the spread shows how noisy the machine was.
    spread = f"{thousands(min(alone))} to {thousands(max(alone))}"
    print(f"The ceiling, SQLite alone: {thousands(ceiling)} (from {spread}).\n")
    print_slow(medians["slow"], samples)
    print_fresh(medians["fresh"], medians["kept"], samples)
    print(f"Medians of one run: {machine}.")
    summary = {"machine": machine, "ceiling_bets_per_second": ceiling, "medians": medians}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_plot(folder / "plot.dat", medians["kept"], ceiling)


main()
