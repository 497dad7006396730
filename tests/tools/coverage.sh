#!/usr/bin/env bash
# Branch coverage of the code that must be right: protocol, service, store.
#
#     tests/tools/coverage.sh            a table by file
#     tests/tools/coverage.sh --lines    the table, and the lines that no test reaches
#
# Needs a nightly toolchain (branches are not counted on stable), cargo-llvm-cov,
# and LLVM's own tools: the toolchain's component llvm-tools, or Debian's llvm-19
# or later. Where one is missing it prints `skipped` with what is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

skipped() { echo "skipped: $1"; exit 0; }
cargo llvm-cov --version >/dev/null 2>&1 || skipped "cargo-llvm-cov is not installed (cargo install --locked cargo-llvm-cov)"
cargo +nightly --version >/dev/null 2>&1 || skipped "there is no nightly toolchain"
if ! ls "$(rustc +nightly --print sysroot)"/lib/rustlib/*/bin/llvm-cov >/dev/null 2>&1; then
  tool=$(compgen -c llvm-cov- | sort -V | tail -1)
  [ "${tool#llvm-cov-}" -ge 19 ] 2>/dev/null || skipped "there is neither the component llvm-tools nor Debian's llvm-19"
  export LLVM_COV=$tool LLVM_PROFDATA=llvm-profdata-${tool#llvm-cov-}
fi

# Otherwise older builds would be counted too.
cargo +nightly llvm-cov clean --workspace
cargo +nightly llvm-cov --branch --locked --no-report --tests
# The tests, and code that other tests cover (tests/outside, tests/faults), are left out.
others='(^|/)(tests|registry|rustc|fuzz)/|crates/agency/|src/(agency|cli|config|server)(/|\.rs)|src/(bench|failpoint|generate|lib|logging|main)\.rs'
cargo +nightly llvm-cov report --ignore-filename-regex "$others" --summary-only
if [ "${1:-}" = --lines ]; then
  cargo +nightly llvm-cov report --ignore-filename-regex "$others" --show-missing-lines | sed -n '/Uncovered Lines/,$p'
fi
