#!/usr/bin/env bash
# Repeats the tests that choose at random, with new seeds, for so many hours, and
# prints what they counted.
#
#     tests/tools/soak.sh HOURS [FILTER]
#
# HOURS may be a fraction (0.1). With FILTER only the tests of faults whose name
# contains it run. Each turn runs the tests of faults (three rounds of each), of
# damage, the random conversations and properties with more cases, and a minute of
# each fuzz target where cargo-fuzz is installed. A failure prints its seed and keeps
# its folder, and the turns go on. Prints the sums, and exits with 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

if [[ ! "${1:-}" =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
filter=("${@:2}")
ends=$(awk -v now="$(date +%s)" -v hours="$1" 'BEGIN { printf "%d", now + hours * 3600 }')
results=$(mktemp -d "${TMPDIR:-/tmp}/sorteo-soak-XXXXXX")
turns=0 failures=0
export FAULTS_ROUNDS=${FAULTS_ROUNDS:-3} PROPTEST_CASES=${PROPTEST_CASES:-500}
export FAULTS_COUNTS=$results/counts

cargo test --locked --no-run || exit 1

# part NAME COMMAND…: runs one part of a turn, and keeps its output only if it fails.
part() {
  local name=$1 log
  shift
  log=$results/$turns-$name.log
  if "$@" >"$log" 2>&1 </dev/null; then
    rm "$log"
  else
    failures=$((failures + 1))
    printf 'turn %d: %s FAILED, see %s\n' "$turns" "$name" "$log"
    grep -E 'FAULTS_SEED=|panicked|proptest|artifact' "$log" | head -20
  fi
}

while [ "$(date +%s)" -lt "$ends" ]; do
  turns=$((turns + 1))
  FAULTS_SEED=$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')
  export FAULTS_SEED
  part faults cargo test --locked --test faults -- "${filter[@]}"
  if [ "${#filter[@]}" -eq 0 ]; then
    part damage cargo test --locked --test damage
    part conversations cargo test --locked --test it -- conversations
    part properties cargo test --locked --test it -- wire_properties
    part fuzz tests/tools/fuzz.sh 60
  fi
  printf 'turn %d ends, %d failures so far, %d minutes left\n' \
    "$turns" "$failures" $(((ends - $(date +%s)) / 60))
done

echo
echo "counted in $turns turns:"
[ -e "$FAULTS_COUNTS" ] && awk '{ n = $1; $1 = "" }
    /^ longest/ { if (n > sum[$0]) sum[$0] = n; next }
    { sum[$0] += n }
    END { for (what in sum) printf "%12d %s\n", sum[what], what }' \
  "$FAULTS_COUNTS" | sort -k2
echo "soak: $turns turns, $failures failed"
[ "$failures" -eq 0 ] && rmdir "$results" 2>/dev/null || echo "logs and counts: $results"
[ "$failures" -eq 0 ]
