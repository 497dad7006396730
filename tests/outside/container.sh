#!/usr/bin/env bash
#
# Tests the image and the compose file with a real Docker engine and real crashes.
#
# What it shows:
#   1. The image builds, runs as a user other than root, becomes healthy by its own
#      health check, and stops with exit code 0 on `docker stop`.
#   2. The compose file's `up` is a whole draw: every agency ends with exit code 0
#      and its winners, within the limits that the file sets. A second `up` on the
#      same volumes changes nothing.
#   3. The server may be killed (SIGKILL) in the middle of the upload. Started
#      again on its volume, it has every bet that it had acknowledged, the
#      agencies go on by themselves, and there is one draw, with all bets and the
#      right winners. After a clean stop and another start the answers are the same.
#   4. With docker-compose.secured.yaml, the server requires TLS and tokens, its health
#      check has a token of its own, and the draw is the same; whoever has no TLS, no
#      token or another agency's gets nothing.
# The expected bets and winners are computed from the generated files with awk, and
# compared with the database; the program's own reports prove nothing here.
#
# What it needs: a Docker engine, docker-compose 1.29 or the compose plugin, the
# programs sqlite3 and openssl, and the base images of the Dockerfile, which
# container/base-images.sh pulls or, where no registry answers, makes (its first
# lines say what that needs). Without Docker, compose or sqlite3 it prints
# `skipped` with the reason and exits with 77.
#
# No speed is tested: each wait is for a condition, and its deadline only ends a
# test that hangs. Containers, networks and volumes are removed at the end,
# whatever happens; the images stay, since building them takes minutes. With
# KEEP=1 everything stays.
#
# Variables: BETS (78697), how many bets are generated; IMAGE (sorteo:test), the
# name of the image that is built; TRIES (5), how often the kill may miss the upload.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
readonly project=sorteo-test-$$
readonly alone=$project-alone
readonly agencies=(1 2 3 4 5)
readonly winning_number=7574
readonly tries=${TRIES:-5}

# The compose file reads these. Port 0 takes a free one, so that the test runs
# beside a server that is up.
export BETS=${BETS:-78697} IMAGE=${IMAGE:-sorteo:test} HOST_PORT=0 OPS_PORT=0
# With a line for each batch that was acknowledged.
export AGENCY_LOG_LEVEL=DEBUG

# The deadlines of the waits in seconds, far above what is needed.
readonly healthy_max=60
readonly upload_start_max=120
readonly draw_max=300
# Above the drain limit, like the compose file's stop_grace_period.
readonly stop_grace=15

passed=0
failed=0

say() { printf '%s\n' "$*"; }

skip() {
    say "container: skipped: $*"
    exit 77
}

# check DESCRIPTION COMMAND…: prints one line; the test goes on either way.
check() {
    local description=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        say "ok      $description"
    else
        failed=$((failed + 1))
        say "FAILED  $description"
    fi
}

# need DESCRIPTION COMMAND…: the same, but the test ends if it fails, because the rest
# depends on it.
need() {
    local before=$failed
    check "$@"
    ((failed == before)) || exit 1
}

# equal WANTED GOT: prints both if they differ.
equal() {
    [[ $1 == "$2" ]] || {
        say "        wanted: $1"
        say "        got:    $2"
        return 1
    }
}

# same WANTED-FILE GOT-FILE: prints the first differing lines.
same() {
    cmp --silent "$1" "$2" || {
        diff "$1" "$2" | head -n 5 | sed 's/^/        /' || true
        return 1
    }
}

# within SECONDS COMMAND…: polls until the command succeeds.
within() {
    local seconds=$1 deadline
    shift
    deadline=$((SECONDS + seconds))
    until "$@"; do
        if ((SECONDS >= deadline)); then
            say "        did not happen within $seconds s: $*"
            return 1
        fi
        sleep 0.05
    done
}

compose_files=(--file "$root/docker-compose.yaml")
compose() { "${compose_program[@]}" --project-name "$project" "${compose_files[@]}" "$@"; }

# container SERVICE: prints its container. Found by labels, because the two compose
# programs name containers differently.
container() {
    docker container ls --all --quiet \
        --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$1"
}

state() { docker container inspect --format '{{.State.Status}}' "$1"; }
exit_code() { docker container inspect --format '{{.State.ExitCode}}' "$1"; }
health() { docker container inspect --format '{{.State.Health.Status}}' "$1"; }
is_healthy() { [[ $(health "$1") == healthy ]]; }
is_exited() { [[ $(state "$1") == exited ]]; }

# logs CONTAINER: its output, from all its starts.
logs() { docker container logs "$1" 2>&1; }

# log_count CONTAINER TEXT: how many lines of its log have the text. Not `grep --quiet`,
# which stops reading early: with pipefail that would be a failure of `logs`.
log_count() { logs "$1" | grep --count --fixed-strings -- "$2" || true; }

# bets_in CONTAINER ACTION: the sum of the bets in the log lines of an action's
# successes.
bets_in() {
    logs "$1" | awk -F 'cantidad: ' -v start="action: $2 | result: success" \
        'index($0, start) { sum += $2 } END { print sum + 0 }'
}
has_stored_bets() { (($(bets_in "$1" apuesta_recibida) > 0)); }

cleanup() {
    local status=$?
    trap - EXIT
    if ((failed > 0 || status != 0)) && [[ -n ${server:-} ]]; then
        say "the last lines of the server's log:"
        logs "$server" | tail -n 20 | sed 's/^/        /' || true
    fi
    if [[ -n ${KEEP:-} ]]; then
        say "kept: compose project $project, container $alone, files in $work"
    else
        docker container rm --force --volumes "$alone" >/dev/null 2>&1 || true
        compose down --volumes --remove-orphans --timeout 1 >/dev/null 2>&1 || true
        rm -rf "$work"
    fi
    # A step that ended the script without a check is a failure too.
    if ((status != 0 && failed == 0)); then
        failed=1
    fi
    say "container: $passed passed, $failed failed"
    ((failed == 0)) || exit 1
}

# --- The server's database, and what must be in it ---------------------------

# copy_database CONTAINER DIR: copies the database and its WAL. The container must not
# run, so that nothing writes meanwhile.
copy_database() {
    rm -rf "$2"
    mkdir "$2"
    docker container cp "$1:/data/." "$2"
}

# query DIR SQL: prints the rows with commas between the values, and without quotes.
query() { sqlite3 -readonly -batch -noheader -separator , "$1/sorteo.db" "$2"; }

# Computes what the database must hold from the generated files, sorted: $work/bets.want
# has a line for each bet, $work/winners.want one for each winning bet, and
# $work/winners.N the documents of agency N's winners.
expect_from_files() {
    local files=$work/files agency
    rm -rf "$files"
    mkdir "$files"
    docker container cp "$(container generate):/data/." "$files"
    for agency in "${agencies[@]}"; do
        awk -v agency="$agency" '{ gsub(/["\r]/, ""); print agency "," $0 }' "$files/agency-$agency.csv"
    done | sort >"$work/bets.want"
    awk -F , -v n="$winning_number" '$NF == n { print $1 "," $(NF - 2) }' "$work/bets.want" |
        sort >"$work/winners.want"
    for agency in "${agencies[@]}"; do
        awk -F , -v agency="$agency" '$1 == agency { print $2 }' "$work/winners.want" >"$work/winners.$agency"
    done
}

# check_agencies TIMES: each agency exited with 0, and in each of its TIMES runs it
# logged as many winners as its file has.
check_agencies() {
    local times=$1 agency id wanted
    for agency in "${agencies[@]}"; do
        id=$(container "agency-$agency")
        wanted=$(wc -l <"$work/winners.$agency")
        check "agency $agency ends with exit code 0" equal 0 "$(exit_code "$id")"
        check "agency $agency receives its $wanted winners" equal "$times" "$(log_count "$id" \
            "action: consulta_ganadores | result: success | cant_ganadores: $wanted")"
    done
}

# check_database DIR: compares a copy of the database with the expected files.
check_database() {
    local db=$1
    query "$db" 'SELECT agency, first_name, last_name, document, birthdate, number FROM bets' |
        sort >"$work/bets.got"
    query "$db" 'SELECT agency, document FROM results' | sort >"$work/winners.got"
    check "$BETS bets are stored" equal "$BETS" "$(query "$db" 'SELECT count(*) FROM bets')"
    check "each bet of the files is stored exactly once" same "$work/bets.want" "$work/bets.got"
    check "there is one draw, and it is drawn" equal 1,1 \
        "$(query "$db" 'SELECT count(*), count(drawn_at) FROM draws')"
    check "the winners are the rows with $winning_number in the files" same "$work/winners.want" "$work/winners.got"
    check "the view of the agencies counts every bet" equal "${#agencies[@]},$BETS" \
        "$(query "$db" 'SELECT count(*), sum(bets) FROM agencies')"
}

# check_winners: compares the running server's answers to each agency.
check_winners() {
    local agency
    for agency in "${agencies[@]}"; do
        docker container exec "$server" /usr/local/bin/sorteo winners \
            --server 127.0.0.1:12345 --agency "$agency" 2>/dev/null |
            sort >"$work/answer" || true
        check "the server answers agency $agency's winners" same "$work/winners.$agency" "$work/answer"
    done
}

check_one_draw() {
    check "one sorteo line in the log of all the server's starts" equal 1 \
        "$(log_count "$server" 'action: sorteo | result: success')"
}

# check_stop CONTAINER TIMES: stops it; its log then has TIMES clean shutdowns.
check_stop() {
    docker container stop --time "$stop_grace" "$1" >/dev/null
    check "docker stop ends the server with exit code 0" equal 0 "$(exit_code "$1")"
    check "the server's log has its shutdown" equal "$2" \
        "$(log_count "$1" 'action: shutdown | result: success')"
}

all_agencies_exited() {
    local agency id
    for agency in "${agencies[@]}"; do
        id=$(container "agency-$agency")
        is_exited "$id" || return 1
    done
}

# --- The parts ---------------------------------------------------------------

need_tools() {
    command -v docker >/dev/null || skip "docker is not installed"
    docker info >/dev/null 2>&1 || skip "no Docker engine answers"
    if docker compose version >/dev/null 2>&1; then
        compose_program=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose_program=(docker-compose)
    else
        skip "neither docker compose nor docker-compose is installed"
    fi
    command -v sqlite3 >/dev/null || skip "sqlite3 is not installed"
}

build_image() {
    local args
    mapfile -t args < <("$root/tests/outside/container/base-images.sh" --build-args)
    docker build "${args[@]}" --tag "$IMAGE" "$root" >"$work/build.log" 2>&1 || {
        tail -n 40 "$work/build.log"
        return 1
    }
}

# image_says FORMAT: prints a field of the image's configuration.
image_says() { docker image inspect --format "$1" "$IMAGE"; }

test_image() {
    local owner
    say "-- the image"
    check "the image's user is not root" equal 10001:10001 "$(image_says '{{.Config.User}}')"
    check "the entry point is the program, without a shell" \
        equal '["/usr/local/bin/sorteo"]' "$(image_says '{{json .Config.Entrypoint}}')"
    check "the health check runs without a shell" equal CMD "$(image_says '{{index .Config.Healthcheck.Test 0}}')"
    check "the program is stopped with SIGTERM" equal SIGTERM "$(image_says '{{.Config.StopSignal}}')"
    check "/data is a volume" equal '{"/data":{}}' "$(image_says '{{json .Config.Volumes}}')"

    # The image alone: no variable, no volume, no network.
    docker container run --detach --name "$alone" --network none "$IMAGE" >/dev/null
    server=$alone
    need "the server becomes healthy by itself" within "$healthy_max" is_healthy "$alone"
    check "process 1 is the program" equal sorteo "$(docker container exec "$alone" cat /proc/1/comm)"
    check "it runs as that user" equal 10001 \
        "$(docker container exec "$alone" awk '$1 == "Uid:" { print $2 }' /proc/1/status)"
    owner=$(docker container exec "$alone" stat --format %u:%g /data/sorteo.db)
    check "the database belongs to that user" equal 10001:10001 "$owner"
    check_stop "$alone" 1
    docker container rm --volumes "$alone" >/dev/null
    server=
    test_port SERVER_PORT 4000 4000
    test_port SORTEO_LISTEN 0.0.0.0:5000 5000
}

# test_port VARIABLE VALUE PORT: the server listens there, and the health check asks there.
test_port() {
    docker container run --detach --name "$alone" --network none --env "$1=$2" "$IMAGE" >/dev/null
    server=$alone
    need "with $1=$2 the server becomes healthy" within "$healthy_max" is_healthy "$alone"
    check "with $1=$2 it listens on port $3" equal "0.0.0.0:$3" \
        "$(docker container logs "$alone" 2>&1 | sed -n 's/.*action: config | result: success | listen: \([^ ]*\).*/\1/p')"
    docker container rm --force --volumes "$alone" >/dev/null
    server=
}

# limits CONTAINER: prints its limits: bytes of memory, processes, billionths of a processor.
limits() {
    docker container inspect \
        --format '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}}' "$1"
}

# published CONTAINER: prints its published ports, each with the host's address.
published() {
    docker container inspect --format \
        '{{range $port, $hosts := .NetworkSettings.Ports}}{{range $hosts}}{{$port}} {{.HostIp}}{{println}}{{end}}{{end}}' \
        "$1" | sed '/^$/d' | sort | paste --serial --delimiters=,
}

check_compose_limits() {
    check "the server is limited" equal "2147483648 1152 1000000000" "$(limits "$server")"
    check "an agency is limited" equal "268435456 64 500000000" "$(limits "$(container agency-1)")"
    check "the server's ports are published on loopback only" \
        equal "12345/tcp 127.0.0.1,9090/tcp 127.0.0.1" "$(published "$server")"
    check "the server leaves no core dump" equal "0 0" \
        "$(docker container exec "$server" awk '/^Max core file size/ { print $5, $6 }' /proc/1/limits)"
    check "the server may open a file for each connection" equal "16384 16384" \
        "$(docker container exec "$server" awk '/^Max open files/ { print $4, $5 }' /proc/1/limits)"
}

test_whole_draw() {
    say "-- a whole draw"
    need "compose up starts everything in the right order" \
        quiet compose up --detach
    server=$(container server)
    need "all agencies end" within "$draw_max" all_agencies_exited
    check_compose_limits
    check "the data are generated without an error" equal 0 "$(exit_code "$(container generate)")"
    expect_from_files
    # Without a winner the comparisons below would compare empty files.
    need "the files have winners" test -s "$work/winners.want"
    check_agencies 1
    check_one_draw
    check "sorteo check finds nothing wrong, beside the running server" \
        quiet docker container exec "$server" /usr/local/bin/sorteo check --database /data/sorteo.db

    need "a second compose up runs" quiet compose up --detach
    need "all agencies end again" within "$draw_max" all_agencies_exited
    check_agencies 2
    check_one_draw
    check_winners
    check_stop "$server" 1
    copy_database "$server" "$work/db"
    check_database "$work/db"
    compose down --volumes --timeout "$stop_grace" >/dev/null 2>&1
    server=
}

# quiet COMMAND…: prints the output of the command only if it fails.
quiet() {
    "$@" >"$work/quiet.log" 2>&1 || {
        sed 's/^/        /' "$work/quiet.log"
        return 1
    }
}

# agencies_cut_off DIR: prints how many agencies have some but not all bets stored.
agencies_cut_off() {
    query "$1" 'SELECT agency, count(*) FROM bets GROUP BY agency' |
        awk -F , 'NR == FNR { rows[$1]++; next }
                  $2 < rows[$1] { cut++ }
                  END { print cut + 0 }' "$work/bets.want" -
}

# kill_in_mid_upload: starts the server and the agencies on new volumes, and kills the
# server while bets arrive. Fails, without counting a failed check, if no agency was
# between its first and its last bet. Compose only makes the containers, and they are
# started here, because `up` gives up when the server it waits for is gone. They are
# made in two steps without dependencies, because docker-compose waits for a
# dependency's health even where it starts nothing.
kill_in_mid_upload() {
    local agency id ids=() starting=() cut stored logged acknowledged=0
    quiet compose up --no-start --no-deps server generate || return 1
    quiet compose up --no-start --no-deps "${agencies[@]/#/agency-}" || return 1
    server=$(container server)
    for agency in "${agencies[@]}"; do
        ids+=("$(container "agency-$agency")")
    done
    quiet docker container start --attach "$(container generate)" || return 1
    docker container start "$server" >/dev/null
    within "$healthy_max" is_healthy "$server" || return 1

    # All at once and in the background: the first agencies may have ended before the
    # last one is started.
    for id in "${ids[@]}"; do
        docker container start "$id" >/dev/null &
        starting+=("$!")
    done
    within "$upload_start_max" has_stored_bets "$server" || return 1
    docker container kill --signal KILL "$server" >/dev/null
    wait "${starting[@]}"
    within "$stop_grace" is_exited "$server" || return 1

    logged=$(bets_in "$server" apuesta_recibida)
    for id in "${ids[@]}"; do
        acknowledged=$((acknowledged + $(bets_in "$id" apuesta_enviada)))
    done
    copy_database "$server" "$work/db"
    expect_from_files
    stored=$(query "$work/db" 'SELECT count(*) FROM bets')
    cut=$(agencies_cut_off "$work/db")
    say "        killed with $stored of $BETS bets stored, $logged logged, $acknowledged acknowledged," \
        "$cut agencies cut off"
    ((cut > 0)) || return 1
    stored_at_kill=$stored
    logged_at_kill=$logged
    acknowledged_at_kill=$acknowledged
}

test_crash() {
    local try
    say "-- the server is killed in mid-upload"
    for ((try = 1; try <= tries; try++)); do
        if kill_in_mid_upload; then
            break
        fi
        say "        the kill missed the upload (try $try of $tries): again, with more bets"
        compose down --volumes --timeout 1 >/dev/null 2>&1
        server=
        BETS=$((BETS * 4))
    done
    need "the kill lands in mid-upload" test "$try" -le "$tries"
    check "the server died of the signal" equal 137 "$(exit_code "$server")"
    check "all bets in the server's log are stored" test "$logged_at_kill" -le "$stored_at_kill"
    check "all bets that the agencies logged as acknowledged are stored" test "$acknowledged_at_kill" -le "$stored_at_kill"
    check "nothing is drawn yet" equal 0 "$(log_count "$server" 'action: sorteo | result: success')"

    docker container start "$server" >/dev/null
    need "the server becomes healthy on the files that the crash left" within "$healthy_max" is_healthy "$server"
    need "all agencies end" within "$draw_max" all_agencies_exited
    check_agencies 1
    check_one_draw
    check_winners
    check "sorteo check finds nothing wrong, beside the running server" \
        quiet docker container exec "$server" /usr/local/bin/sorteo check --database /data/sorteo.db
    check_stop "$server" 1
    copy_database "$server" "$work/db"
    check_database "$work/db"

    docker container start "$server" >/dev/null
    need "the server becomes healthy after a clean stop" within "$healthy_max" is_healthy "$server"
    check_winners
    check_one_draw
    check_stop "$server" 2
}

# make_secrets: makes the certificate as docs/operating.md has it, and lets the user of the
# containers read it, as the compose file has it. As root in a container, so that this test
# need not be root.
make_secrets() {
    local page=$root/docs/operating.md
    (
        umask 022
        cd "$work"
        sed -n '/^### A certificate/,/^### /p' "$page" | sed -n '/^```sh/,/^```/{/^```/!p}' >certificate.sh
        quiet bash -e certificate.sh
        install -d -m 755 secrets
        install -m 644 lottery/ca.pem lottery/server.pem secrets
        install -m 600 lottery/server.key secrets
    ) || return 1
    quiet docker container run --rm --user 0 --entrypoint /bin/sh --network none --volume "$work/secrets:/secrets" \
        "$IMAGE" -c 'chown 0:10001 /secrets/server.key && chmod 640 /secrets/server.key'
}

# ask_as AGENCY COMMAND TOKEN-OF: an agency's command in the server's container, with TLS.
ask_as() {
    docker container exec "$server" /usr/local/bin/sorteo "$2" --server localhost:12345 --agency "$1" \
        --tls --tls-ca /secrets/ca.pem --token-file "/tokens/agency-$3.token"
}
fails() { ! quiet "$@" >/dev/null; }

test_secured() {
    local agency
    say "-- a whole draw with TLS and tokens"
    need "a certificate is made" make_secrets
    export SECRETS=$work/secrets
    compose_files=(--file "$root/docker-compose.yaml" --file "$root/docker-compose.secured.yaml")
    need "compose up starts everything in the right order" quiet compose up --detach
    server=$(container server)
    need "all agencies end" within "$draw_max" all_agencies_exited
    expect_from_files
    check_agencies 1
    check_one_draw
    check "the health check gets an answer" within "$healthy_max" is_healthy "$server"
    for agency in "${agencies[@]}"; do
        ask_as "$agency" winners "$agency" 2>/dev/null | sort >"$work/answer" || true
        check "agency $agency gets its winners with its token" same "$work/winners.$agency" "$work/answer"
    done
    check "another agency's token gets nothing" fails ask_as 2 winners 1
    check "without TLS and a token, nobody gets a status" fails docker container exec "$server" /usr/local/bin/sorteo status
    check "the tokens are for their owner alone" equal 600 \
        "$(docker container exec "$server" /bin/sh -c 'stat --format %a /tokens/*' | sort --unique)"
    check "nothing is open" equal 0 "$(log_count "$server" 'WARNING  action: config ')"
    check_stop "$server" 1
    copy_database "$server" "$work/db"
    check_database "$work/db"
    compose down --volumes --timeout "$stop_grace" >/dev/null 2>&1
    compose_files=(--file "$root/docker-compose.yaml")
    server=
}

need_tools
export LC_ALL=C
work=$(mktemp -d)
trap cleanup EXIT
say "-- the images"
need "the base images are there" "$root/tests/outside/container/base-images.sh"
need "the image builds" build_image
test_image
test_whole_draw
test_secured
test_crash
