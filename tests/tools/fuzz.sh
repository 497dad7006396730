#!/usr/bin/env bash
# Runs each fuzz target for so many seconds (60 by default), one after the other,
# starting from tests/corpus. What the fuzzer finds worth keeping stays in
# fuzz/corpus, which git ignores, and makes the next run start further.
#
#     tests/tools/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]
#
# Needs a nightly toolchain and cargo-fuzz. Without them it says so and ends well:
# tests/it replays the corpus, and makes up random input, with stable Rust.
#
# A crash ends with status 1. It stays in fuzz/artifacts; make it smaller with
# `cargo +nightly fuzz tmin`, and keep it as a file of tests/corpus.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds="${1:-60}"
targets=("${@:2}")
[ "${#targets[@]}" -gt 0 ] || targets=(framed counted conversation)

skip() {
  echo "skipped: $1"
  exit 0
}
case "$seconds" in
  '' | *[!0-9]*) echo "usage: tests/tools/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]" >&2; exit 2 ;;
esac
cargo +nightly --version >/dev/null 2>&1 || skip "there is no nightly toolchain (rustup toolchain install nightly)"
cargo +nightly fuzz --version >/dev/null 2>&1 || skip "cargo-fuzz is not installed (cargo install --locked cargo-fuzz)"

# No sanitizer: this program has no unsafe code, and runs twice as fast without.
# Overflows and debug assertions are checked; cargo-fuzz turns them on.
options=(--sanitizer none)
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# The last of the numbers that follow a word in the fuzzer's output.
last() { grep -ao "$1 *[0-9][0-9]*" "$output" | tail -1 | grep -o '[0-9]*$' || echo '?'; }

failed=0
for target in "${targets[@]}"; do
  cargo +nightly fuzz build "${options[@]}" "$target"
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  seeds=(tests/corpus/any tests/corpus/framed tests/corpus/counted)
  outcome=ok
  cargo +nightly fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "${seeds[@]}" -- \
    -dict=fuzz/words.dict -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    </dev/null >"$output" 2>&1 || outcome=FAILED
  echo "$target: $outcome: $(last stat::number_of_executed_units:) executions," \
    "$(last cov:) edges, $(last ft:) features, $(ls "fuzz/corpus/$target" | wc -l) inputs kept"
  if [ "$outcome" = FAILED ]; then
    failed=1
    grep -a -m1 -A3 'panicked at\|ERROR: libFuzzer\|^error' "$output" || tail -20 "$output"
    for artifact in $(grep -ao 'fuzz/artifacts/[a-z]*/[a-z]*-[0-9a-f]*' "$output" | sort -u); do
      echo "reproduce: cargo +nightly fuzz run ${options[*]} $target $artifact"
    done
  fi
done
exit "$failed"
