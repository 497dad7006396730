#!/usr/bin/env bash
# Runs each fuzz target for so many seconds (60 by default), one after the other,
# starting from tests/corpus. Inputs that reach new code are kept in fuzz/corpus,
# which git ignores, and the next run starts from them too.
#
#     tests/tools/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]
#
# Needs a nightly toolchain and cargo-fuzz. Without them it prints `skipped` and exits
# with 0: tests/it replays the corpus, and generates random input, with stable Rust.
#
# Exits with 1 after a crash, whose input is in fuzz/artifacts; make it smaller with
# `cargo +nightly fuzz tmin`, and add it to tests/corpus.
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

# No sanitizer: the program has no unsafe code, and runs twice as fast without one.
# cargo-fuzz turns on the checks of overflows and debug assertions.
options=(--sanitizer none)
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# last WORD: prints the last number that follows the word in the fuzzer's output.
last() { grep -ao "$1 *[0-9][0-9]*" "$output" | tail -1 | grep -o '[0-9]*$' || echo '?'; }

failed=0
for target in "${targets[@]}"; do
  # The decoder targets build without the program, that is without SQLite and axum.
  features=()
  [ "$target" != conversation ] || features=(--features program)
  cargo +nightly fuzz build "${options[@]}" "${features[@]}" "$target"
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  seeds=(tests/corpus/any tests/corpus/framed tests/corpus/counted)
  outcome=ok
  cargo +nightly fuzz run "${options[@]}" "${features[@]}" "$target" "fuzz/corpus/$target" "${seeds[@]}" -- \
    -dict=fuzz/words.dict -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    </dev/null >"$output" 2>&1 || outcome=FAILED
  echo "$target: $outcome: $(last stat::number_of_executed_units:) executions," \
    "$(last cov:) edges, $(last ft:) features, $(ls "fuzz/corpus/$target" | wc -l) inputs kept"
  if [ "$outcome" = FAILED ]; then
    failed=1
    grep -a -m1 -A3 'panicked at\|ERROR: libFuzzer\|^error' "$output" || tail -20 "$output"
    for artifact in $(grep -ao 'fuzz/artifacts/[a-z]*/[a-z]*-[0-9a-f]*' "$output" | sort -u); do
      echo "reproduce: cargo +nightly fuzz run ${options[*]} ${features[*]} $target $artifact"
    done
  fi
done
exit "$failed"
