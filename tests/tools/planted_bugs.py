#!/usr/bin/env python3
"""Plants bugs, one at a time, in a copy of the sources: the tests must catch each.

Each entry of `bugs_to_plant.py` is one plausible mistake in one place, with the
invariant that it breaks and the tests that should fail because of it. First these
tests run on the unchanged sources, where they must pass. Then each bug is planted
and built, and its tests run again: it is caught if one of them fails. A test that
hangs until its deadline has not caught the bug. A bug whose `old` text does not
occur exactly once in its file is an error, and so is one that does not compile.

    tests/tools/planted_bugs.py [--few] [--only WORDS ...] [--list]

Works in a temporary folder (TMPDIR), on a copy of the files that git tracks or
would add, and of the dependencies that cargo has built here; this folder stays as
it is. A bug whose tests cannot run on this machine is skipped. Needs python3, git
and what the tests need. Ends with a line `N caught, N missed, N skipped`, and
with exit code 1 if any was missed.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from bugs_to_plant import BUGS

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The tests themselves have deadlines of a minute, so a test that takes so long hangs.
TEST_TIMEOUT_S = 300
BUILD_TIMEOUT_S = 1800
# How much of a failure is printed.
FAILURE_CHARS = 160

RESULT = re.compile(r"^test result: \w+\. (\d+) passed; \d+ failed; (\d+) ignored", re.MULTILINE)
FAILED_NAMES = re.compile(r"^failures:\n((?: {4}\S+\n)+)", re.MULTILINE)
PANIC = re.compile(r"panicked at [^\n]+:\d+:\d+:\n(.*?)(?=\n\s*\n|\nnote: |\nthread '|\nstack backtrace|\Z)", re.DOTALL)
MISSING_TOOL = re.compile(r"\[skipped: (.*?)\]")


class TableError(Exception):
    """An entry that no longer fits the sources or the tests."""


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--few", action="store_true", help="only the bugs that every CI run plants")
    options.add_argument("--only", nargs="+", metavar="WORDS", help="only the bugs whose name contains one of these")
    options.add_argument("--list", action="store_true", help="print the table and exit")
    options = options.parse_args()
    bugs = [bug for bug in BUGS if bug.few or not options.few]
    if options.only:
        bugs = [bug for bug in bugs if any(words in bug.name for words in options.only)]
        if not bugs:
            sys.exit(f"no bug has a name with {' or '.join(options.only)}: see --list")
    if options.list:
        for bug in bugs:
            print(f"{bug.name} ({bug.breaks}) in {bug.file}", *bug.tests, sep="\n    ")
        return
    try:
        for bug in BUGS:
            require_unique_place(bug)
        sys.exit(plant_all(bugs))
    except TableError as error:
        sys.exit(f"bugs_to_plant.py: {error}")


def require_unique_place(bug):
    times = (ROOT / bug.file).read_text(encoding="utf-8").count(bug.old)
    if times != 1:
        raise TableError(f"`{bug.name}`: its `old` occurs {times} times in {bug.file}, not once: {bug.old!r}")


def plant_all(bugs):
    """Plants the bugs, prints the verdicts, and returns the exit code."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sorteo-planted-bugs-") as folder:
        copy = Copy(pathlib.Path(folder))
        missing = run_without_bugs(copy, dict.fromkeys(test for bug in bugs for test in bug.tests))
        counts = dict.fromkeys(("caught", "missed", "skipped"), 0)
        for bug in bugs:
            verdict, details = plant(copy, bug, missing)
            counts[verdict] += 1
            print(f"{verdict:8} {bug.name} ({bug.breaks})   {details}", flush=True)
    print(f"in {time.monotonic() - started:.0f} s")
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return 1 if counts["missed"] else 0


def run_without_bugs(copy, tests):
    """Runs the tests on the unchanged sources; returns those that cannot run here, and why.

    A test that fails without a bug is an error, because it would catch every bug.
    """
    missing = {}
    for test in tests:
        copy.build(test)
        result = copy.run(test)
        if result.failed or result.hung:
            raise TableError(f"without any bug, `cargo test {test}` fails: {result.failure}")
        if result.passed:
            print(f"ok       {test}", flush=True)
        elif result.ignored:
            missing[test] = result.missing_tool
            print(f"skipped  {test}: {result.missing_tool}", flush=True)
        else:
            raise TableError(f"`cargo test {test}` runs no test")
    return missing


def plant(copy, bug, missing):
    """Returns the verdict on one bug, and its details."""
    tests = [test for test in bug.tests if test not in missing]
    if not tests:
        return "skipped", missing[bug.tests[0]]
    with copy.planted(bug):
        hung = []
        for test in tests:
            copy.build(test, bug)
            result = copy.run(test)
            if result.failed:
                return "caught", f"by {result.failed}: {result.failure}"
            if result.hung:
                hung.append(test)
    note = f"; hung for {TEST_TIMEOUT_S} s: {', '.join(hung)}" if hung else ""
    return "missed", f"by {', '.join(tests)}{note}"


class Copy:
    """The sources in a folder of their own, and what cargo builds of them."""

    def __init__(self, folder):
        self.sources, self.target, self.temporary = folder / "sources", folder / "target", folder / "tmp"
        self.temporary.mkdir()
        self.copy_sources()
        self.copy_dependencies()

    def copy_sources(self):
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.sources / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.sources / name)

    def copy_dependencies(self):
        """Copies what is built, but not our own crates, whose path is another one in the copy."""
        built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
        ours = shutil.ignore_patterns("sorteo*", "libsorteo*", "it-*", "faults-*", "sqlite_ceiling-*")
        for part in (".fingerprint", "build", "deps"):
            if (built / part).is_dir():
                shutil.copytree(built / part, self.target / "debug" / part, ignore=ours)

    def planted(self, bug):
        return Planted(self.sources / bug.file, bug)

    def build(self, test, bug=None):
        _, target, _ = words_of(test)
        result = self.cargo(["--no-run", "--quiet", *target], {}, BUILD_TIMEOUT_S)
        if result.code != 0:
            errors = [line for line in result.output.splitlines() if line.startswith("error")]
            what = f"`{bug.name}`" if bug else f"`cargo test {test}` without any bug"
            raise TableError(f"{what} does not compile: {errors[0] if errors else result.output[-500:]}")

    def run(self, test):
        variables, target, filters = words_of(test)
        return self.cargo([*target, *filters], variables, TEST_TIMEOUT_S)

    def cargo(self, arguments, variables, timeout):
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target), "TMPDIR": str(self.temporary),
                       "RUST_BACKTRACE": "0", **variables}
        # In a session of its own, so that on a timeout everything that it started ends too.
        process = subprocess.Popen(["cargo", "test", "--locked", *arguments], cwd=self.sources, env=environment,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, errors="replace", start_new_session=True)
        try:
            output, _ = process.communicate(timeout=timeout)
            return Result(process.returncode, output)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return Result(None, output)
            raise


class Planted:
    """A context in which the bug is planted."""

    def __init__(self, path, bug):
        self.path, self.bug = path, bug

    def __enter__(self):
        self.right = self.path.read_text(encoding="utf-8")
        self.path.write_text(self.right.replace(self.bug.old, self.bug.new), encoding="utf-8")

    def __exit__(self, *_):
        self.path.write_text(self.right, encoding="utf-8")


class Result:
    """The result of a run of cargo."""

    def __init__(self, code, output):
        self.code, self.output, self.hung = code, output, code is None
        counts = [tuple(map(int, match)) for match in RESULT.findall(output)]
        self.passed, self.ignored = map(sum, zip(*counts)) if counts else (0, 0)

    @property
    def failed(self):
        """The test that failed, or None. A test that aborts its binary is not named by cargo."""
        if not self.code:
            return None
        names = FAILED_NAMES.findall(self.output)
        return names[-1].split()[0] if names else "a test binary that was aborted"

    @property
    def failure(self):
        """The first failure, on one line."""
        panic = PANIC.search(self.output)
        text = panic.group(1) if panic else self.output[-FAILURE_CHARS:]
        line = " ".join(text.split())
        return line if len(line) <= FAILURE_CHARS else line[:FAILURE_CHARS] + "…"

    @property
    def missing_tool(self):
        tool = MISSING_TOOL.search(self.output)
        return tool.group(1) if tool else "it is ignored"


def words_of(test):
    """Splits a test of the table into environment variables, cargo target and filters."""
    words = shlex.split(test)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    rest = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    split = rest.index("--")
    return variables, rest[:split], rest[split:]


if __name__ == "__main__":
    main()
