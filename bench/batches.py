#!/usr/bin/env python3
"""Converts generated bets into the input of the other systems' load generators.

Arguments: a folder with rows.csv, the bets, and the number of bets per batch.
Writes to the same folder batch-NNN.sql, each with an INSERT of one batch, for
pgbench, and row.txt, one bet of average length, for redis-benchmark, which
repeats a single request.
"""

import csv
import pathlib
import sys

# pgbench accepts at most 128 scripts.
SCRIPTS_MAX = 100
AGENCIES = 5


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def insert(agency, bets):
    rows = ",\n".join(
        f"(1,{agency},{','.join(map(literal, texts))},{int(number)})" for *texts, number in bets
    )
    columns = "draw_id, agency, first_name, last_name, document, birthdate, number"
    # pgbench would read a colon as the start of a variable.
    assert ":" not in rows
    return f"INSERT INTO bets ({columns}) VALUES\n{rows};\n"


def main():
    folder, batch = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    with open(folder / "rows.csv", encoding="utf-8", newline="") as file:
        bets = list(csv.reader(file))
    for script in range(min(SCRIPTS_MAX, len(bets) // batch)):
        sql = insert(1 + script % AGENCIES, bets[script * batch : (script + 1) * batch])
        (folder / f"batch-{script:03}.sql").write_text(sql, encoding="utf-8")

    lines = ["|".join(bet) for bet in bets]
    size = lambda line: len(line.encode())
    average = sum(map(size, lines)) / len(lines)
    row = min(lines, key=lambda line: abs(size(line) - average))
    (folder / "row.txt").write_text(row, encoding="utf-8")


main()
