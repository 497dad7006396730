#!/usr/bin/env bash
#
# Compares the server with other databases: the same bets, in batches of 99, on the
# same file system, in one run, because absolute results vary with the machine.
#
#   sorteo       the server, and `sorteo bench` as its clients
#   ceiling      SQLite alone in one process, see bench/sqlite_ceiling.rs
#   redis        RPUSH of each bet, 99 in a pipeline, `appendfsync always`
#   postgresql   an INSERT of 99 rows by pgbench, `synchronous_commit=on`
#
# All of them sync a batch to disk before they reply, and do nothing but store it:
# Redis gets lines of text that it does not interpret, PostgreSQL a table without an
# index. This is not the maximum that each can reach: with many clients, one RPUSH of
# all 99 bets takes Redis less than half the time of 99 RPUSH. Each system runs on
# loopback with the clients on the same machine, with an empty database for each
# measurement, and only while it is measured. The systems are interleaved in rounds.
# The output has medians; ratios are the medians of the ratios within each round:
#
#   1. at 1, 5, 16 and 64 clients;
#   2. with 5 ms added to every fsync and fdatasync, as on a slower disk, at 1
#      and 64 clients. strace starts the server and delays only those two calls, by
#      5 ms and the cost of a stop. It has to start the server, because strace cannot
#      use its seccomp filter on a process that it attaches to, and without the filter
#      it would stop, and slow down, all other system calls too;
#   3. with a new connection for every batch, at 16 clients.
#
# Nothing is asserted: other tests check correctness, and the reader decides what is
# fast enough.
#
# Prints tables in Markdown. Writes them to bench/out/, with the plot's data and all
# measurements (tables.md, summary.json, measurements.csv), and the plot to
# docs/compare.svg, or with --quick to bench/out/ too.
#
# Usage: bench/compare.sh [--quick]
#   --quick   one round of one second, to test the script
#
# Variables, with their defaults: ROUNDS (3); SECONDS_EACH (3), whole seconds per
# measurement; SCRATCH (/var/tmp), a folder on the disk to measure, not in memory;
# SORTEO and CEILING, programs to measure instead of building them.
#
# PostgreSQL, Redis, strace, gnuplot and Python are installed from Debian if they are
# missing, which requires root; no service is left running. If the script runs as
# root, so do the servers, except PostgreSQL, which refuses to and runs as its own user.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly out=$root/bench/out
readonly clients_all=(1 5 16 64)
readonly clients_slow=(1 64)
readonly clients_fresh=16
readonly servers=(sorteo redis postgresql)
readonly batch=99
# Enough that no two batches of a transaction are equal; they are as large as real bets.
readonly bets=10000
readonly fsync_delay_us=5000
# Far more than is needed: it only ends a run that hangs.
readonly wait_max=60

# For decimal points, and for names with accents.
export LC_ALL=C.UTF-8

plot=$root/docs/compare.svg
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-3}

say() { printf '%s\n' "$*" >&2; }

die() {
    say "compare: $*"
    exit 1
}

# usage: prints the header of this file up to its variables.
usage() { sed -n '3,/^# Variables/{/^# Variables/d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

while (($# > 0)); do
    case $1 in
    --quick)
        rounds=${ROUNDS:-1}
        seconds=${SECONDS_EACH:-1}
        plot=$out/compare.svg
        ;;
    -h | --help)
        usage
        exit
        ;;
    *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "ROUNDS must be a whole number above 0, not $rounds"
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "SECONDS_EACH must be a whole number above 0, not $seconds"

# --- Cleaning up ---------------------------------------------------------------

work=
server=
load=
policy=

cleanup() {
    local status=$?
    trap - EXIT INT TERM
    # The whole process group: the load is a pipeline.
    [[ -z $load ]] || kill -KILL -- "-$load" 2>/dev/null || true
    stop KILL
    [[ -z $policy ]] || rm -f "$policy"
    if ((status != 0)) && [[ -s $work/log ]]; then
        say "compare: the end of the last log:"
        tail -n 20 "$work/log" >&2
    fi
    # PostgreSQL's other processes exit by themselves, but only after the first one has.
    [[ -z $work ]] || rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# stop SIGNAL: ends the server, if one is running, and waits for it.
stop() {
    [[ -n $server ]] || return 0
    kill "-$1" "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

# --- Requirements --------------------------------------------------------------

# The newest installed PostgreSQL; Debian does not put its programs in PATH.
find_postgresql() {
    local bin
    for bin in /usr/lib/postgresql/*/bin; do
        [[ -x $bin/postgres && -x $bin/pgbench && -x $bin/initdb ]] && printf '%s\n' "$bin"
    done | sort --version-sort | tail -n 1
}

install_missing() {
    local packages=() package
    [[ -n $(find_postgresql) ]] || packages+=(postgresql)
    command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || packages+=(redis-server)
    command -v gnuplot >/dev/null || packages+=(gnuplot-nox)
    command -v strace >/dev/null || packages+=(strace)
    command -v python3 >/dev/null || packages+=(python3)
    ((${#packages[@]} > 0)) || return 0
    ((EUID == 0)) || die "not installed, and installing requires root: ${packages[*]}"
    say "compare: installing ${packages[*]}"
    # Debian starts a service as soon as it is installed, unless this script forbids it.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get update --quiet=2 >&2
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
        "${packages[@]}" >"$work/log" 2>&1 || die "apt-get could not install them: ${packages[*]}"
    [[ -z $policy ]] || rm -f "$policy"
    policy=
    # And it must not start at the next boot either.
    for package in "${packages[@]}"; do
        case $package in
        postgresql | redis-server) systemctl disable --now "$package" >/dev/null 2>&1 || true ;;
        esac
    done
}

make_work() {
    local folder=${SCRATCH:-/var/tmp} kind
    kind=$(stat --file-system --format %T "$folder")
    # In memory a sync costs nothing, so the comparison would be meaningless.
    [[ $kind != tmpfs && $kind != ramfs ]] || die "$folder is in memory: set SCRATCH to a folder on a disk"
    work=$(mktemp --directory "$folder/sorteo-compare.XXXXXX")
    # PostgreSQL's user must be able to enter it.
    chmod 755 "$work"
}

build() {
    sorteo=${SORTEO:-}
    ceiling=${CEILING:-}
    if [[ -z $sorteo ]]; then
        (cd "$root" && cargo build --release --locked) >&2
        sorteo=${CARGO_TARGET_DIR:-$root/target}/release/sorteo
    fi
    if [[ -z $ceiling ]]; then
        # The file name of a bench target contains a hash; cargo reports the whole name.
        ceiling=$(cd "$root" && cargo build --release --locked --bench sqlite_ceiling \
            --message-format json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("target", {}).get("name") == "sqlite_ceiling" and message.get("executable"):
        print(message["executable"])')
    fi
    [[ -x $sorteo ]] || die "$sorteo is not an executable file"
    [[ -x $ceiling ]] || die "$ceiling is not an executable file"
}

# Generates the bets: rows.csv for the ceiling, one statement per batch for pgbench, and
# a bet of average length for redis-benchmark, which repeats a single request. `sorteo
# bench` generates its own bets with the same generator.
make_bets() {
    "$sorteo" generate --dir "$work/bets" --agencies 1 --bets "$bets" >/dev/null
    mv "$work/bets/agency-1.csv" "$work/bets/rows.csv"
    python3 "$root/bench/batches.py" "$work/bets" "$batch"
    redis_row=$(<"$work/bets/row.txt")
    pgbench_scripts=()
    local script
    for script in "$work"/bets/*.sql; do
        pgbench_scripts+=(--file "$script")
    done
}

# --- Starting and loading each system -------------------------------------------------
#
# start_X prepares an empty database and sets $server to the server's process ID;
# `tracer` is put before its command. load_X CLIENTS KEPT prints bets per second and, if
# the client reports them, p50 and p99 of the reply times in microseconds. KEPT is
# `kept` for persistent connections, `fresh` for a new one for every batch. Both append
# their output to one log, whose end is shown when something fails.

tracer=()

# until_ready COMMAND…: polls until the command succeeds or the server has exited.
until_ready() {
    local deadline=$((SECONDS + wait_max))
    until "$@" >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || die "the server exited before it was ready: $*"
        ((SECONDS < deadline)) || die "not ready within $wait_max s: $*"
        sleep 0.02
    done
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_sorteo() {
    # More agencies than are ever done, so that betting never closes.
    "${tracer[@]}" "$sorteo" serve --listen 127.0.0.1:0 --ready-file "$work/db/ready" \
        --database "$work/db/sorteo.db" --agencies 100000 --log-level warning >>"$work/log" 2>&1 &
    server=$!
    until_ready test -s "$work/db/ready"
    address=$(<"$work/db/ready")
}

load_sorteo() {
    local fresh=()
    [[ $2 == kept ]] || fresh=(--fresh)
    "$sorteo" bench --server "$address" --connections "$1" --batch "$batch" --duration "$seconds" --json \
        "${fresh[@]}" | python3 -c '
import json, sys
report = json.load(sys.stdin)
latency = report["latency_us"]
print(report["bets_per_second"], latency["p50"], latency["p99"])'
}

stop_sorteo() { stop TERM; }

start_redis() {
    port=$(free_port)
    # No background rewrite of the append-only file: it would only cost time.
    "${tracer[@]}" redis-server --bind 127.0.0.1 --port "$port" --dir "$work/db" --save '' \
        --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 >>"$work/log" 2>&1 &
    server=$!
    until_ready redis-cli -p "$port" ping
}

# redis_benchmark CLIENTS KEPT REQUESTS: prints rate, p50 and p99. Fields are counted from
# the end, because the first field is the command itself.
redis_benchmark() {
    local keep=1
    [[ $2 == kept ]] || keep=0
    redis-benchmark -h 127.0.0.1 -p "$port" -c "$1" -P "$batch" -k "$keep" -n "$3" --csv \
        RPUSH bets "$redis_row" |
        awk -F '","' 'NR == 2 { sub(/"$/, "", $NF); printf "%s %.0f %.0f\n", $(NF - 6), $(NF - 3) * 1000, $(NF - 1) * 1000 }'
}

load_redis() {
    local rate
    # redis-benchmark takes a number of requests, not a duration: a short run first
    # estimates the rate.
    rate=$(redis_benchmark "$1" "$2" $((batch * (200 + 20 * $1))))
    rate=${rate%% *}
    redis_benchmark "$1" "$2" "$(awk -v r="$rate" -v s="$seconds" -v b="$batch" 'BEGIN { print b * int(1 + r * s / b) }')"
}

stop_redis() { stop KILL; }

# The prefix that runs PostgreSQL as its user. Unlike `runuser`, `setpriv` executes the
# server in its own process, so the process that we signal is the server.
as_postgres=()

make_cluster() {
    postgresql=$(find_postgresql)
    mkdir "$work/cluster"
    if ((EUID == 0)); then
        as_postgres=(setpriv --reuid postgres --regid postgres --init-groups)
        chown postgres: "$work/cluster"
    fi
    # From /, because PostgreSQL's user may not be able to enter the current folder.
    (cd / && "${as_postgres[@]}" "$postgresql/initdb" --pgdata "$work/cluster" --username bench \
        --auth trust --encoding UTF8 --no-sync >"$work/log" 2>&1) || die "initdb failed"
}

start_postgresql() {
    port=$(free_port)
    # Debian's defaults otherwise. The last two are defaults too, but the comparison
    # depends on them.
    (
        cd /
        exec "${tracer[@]}" "${as_postgres[@]}" "$postgresql/postgres" -D "$work/cluster" -p "$port" \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
            -c fsync=on -c synchronous_commit=on
    ) >>"$work/log" 2>&1 &
    server=$!
    # A query, because pg_isready succeeds while the server still refuses connections.
    export PGHOST=127.0.0.1 PGPORT=$port PGUSER=bench PGDATABASE=postgres PGOPTIONS='-c client_min_messages=warning'
    until_ready "$postgresql/psql" --no-psqlrc --command 'SELECT'
    # The checkpoint, so that no earlier data is written during the measurement.
    "$postgresql/psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 >>"$work/log" 2>&1 <<'SQL'
DROP TABLE IF EXISTS bets;
CREATE TABLE bets (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    draw_id    integer NOT NULL,
    agency     bigint NOT NULL,
    first_name text NOT NULL,
    last_name  text NOT NULL,
    document   text NOT NULL,
    birthdate  date NOT NULL,
    number     bigint NOT NULL
);
CHECKPOINT;
SQL
}

load_postgresql() {
    local fresh=()
    [[ $2 == kept ]] || fresh=(--connect)
    # Its time includes connecting, its rate does not: hence one more second. If no
    # transaction completes, it prints no rate.
    "$postgresql/pgbench" --no-vacuum --client "$1" --jobs 2 --time $((seconds + 1)) "${fresh[@]}" \
        "${pgbench_scripts[@]}" | awk -v batch="$batch" '$1 == "tps" && !told++ { print $3 * batch }'
}

# A fast shutdown: the server closes its connections and does not wait for clients.
stop_postgresql() { stop INT; }

# The ceiling is not a server: it has nothing to start, and no clients.
start_ceiling() { :; }
load_ceiling() {
    "${tracer[@]}" "$ceiling" "$work/bets/rows.csv" "$work/db/ceiling.db" "$seconds" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["bets_per_second"])'
}
stop_ceiling() { :; }

# --- Measuring --------------------------------------------------------------------------

# measure VARIANT ROUND SYSTEM CLIENTS: one measurement, one line of measurements.csv.
# VARIANT is `kept`, `fresh`, or `slow` for kept connections and slow syncs.
measure() {
    local variant=$1 round=$2 system=$3 clients=$4 kept=kept rate p50 p99
    tracer=()
    case $variant in
    fresh) kept=fresh ;;
    # -D: strace runs as a grandchild, so that the process we start is the server itself.
    slow) tracer=(strace -D -f --seccomp-bpf -qq -e "trace=fsync,fdatasync" -e signal=none
        -e "inject=fsync,fdatasync:delay_enter=$fsync_delay_us" -o /dev/null) ;;
    esac
    rm -rf "$work/db"
    mkdir "$work/db"
    : >"$work/log"
    # So that this measurement does not wait for what the previous one left unwritten.
    sync --file-system "$work"
    "start_$system"
    # As a background job: a signal interrupts `wait` immediately, and cleanup() then
    # kills the job's process group.
    set -m
    "load_$system" "$clients" "$kept" >"$work/answer" 2>>"$work/log" &
    load=$!
    set +m
    wait "$load" || die "the load on $system failed"
    load=
    read -r rate p50 p99 <"$work/answer" || die "the load on $system printed no result"
    "stop_$system"
    [[ $round == warm-up ]] || printf '%s\n' "$variant,$round,$system,$clients,$rate,${p50:-},${p99:-}" >>"$out/measurements.csv"
    say "$(printf '%-8s %-6s %-11s %3d clients %10.0f bets/s' "$round" "$variant" "$system" "$clients" "$rate")"
}

measure_all() {
    local round clients system
    mkdir -p "$out"
    printf 'variant,round,system,clients,bets_per_second,p50_us,p99_us\n' >"$out/measurements.csv"
    for system in ceiling "${servers[@]}"; do
        measure kept warm-up "$system" "${clients_all[0]}"
    done
    for ((round = 1; round <= rounds; round++)); do
        for clients in "${clients_all[@]}"; do
            for system in ceiling "${servers[@]}"; do
                measure kept "$round" "$system" "$clients"
            done
        done
        for system in "${servers[@]}"; do
            measure fresh "$round" "$system" "$clients_fresh"
        done
        for clients in "${clients_slow[@]}"; do
            for system in "${servers[@]}"; do
                measure slow "$round" "$system" "$clients"
            done
        done
    done
}

# machine: prints the machine and versions that the results are valid for.
machine() {
    printf '%s\n' "$(nproc) × $(sed -n 's/^model name\s*: //p;T;q' /proc/cpuinfo), Linux $(uname --kernel-release)," \
        "$(findmnt --noheadings --output FSTYPE --target "$work"); $("$sorteo" --version);" \
        "$("$postgresql/postgres" --version); Redis $(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/');" \
        "rounds: $rounds, $seconds s each" | paste --serial --delimiters ' '
}

main() {
    make_work
    install_missing
    build
    make_bets
    make_cluster
    measure_all
    machine >"$out/machine.txt"
    python3 "$root/bench/tables.py" "$out" | tee "$out/tables.md"
    gnuplot -c "$root/bench/plot.gnuplot" "$out/plot.dat" "$plot"
    say "compare: the plot is in ${plot#"$root/"}"
}

main
