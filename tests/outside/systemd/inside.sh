#!/usr/bin/env bash
#
# Run by systemd.sh inside the system that it boots, by that system's systemd. Shows:
#   1. The server runs in its sandbox, as its user, with the limits of the unit, and
#      operators can look at it.
#   2. A whole draw goes through it, and the operator's commands work beside it.
#   3. Killed, it is started again and has every bet.
#   4. A reload reads the log level again, and the server goes on.
#   5. A stop is clean, and leaves no log behind.
#   6. A wrong configuration is not started again; a refused database only a few times.

set -uo pipefail

readonly config=/etc/sorteo/sorteo.toml
readonly database=/var/lib/sorteo/sorteo.db
readonly bets=2000
# The default of max_connections.
readonly connections=10000
# A deadline in seconds, for what must happen.
readonly patience=60

say() { printf '%s\n' "$*"; }

check() {
    local description=$1
    shift
    if "$@"; then
        say "ok      $description"
    else
        say "FAILED  $description"
    fi
}

equal() {
    [[ $1 == "$2" ]] || {
        say "        wanted: $1"
        say "        got:    $2"
        return 1
    }
}

# within COMMAND…: polls until the command succeeds.
within() {
    local deadline=$((SECONDS + patience))
    until "$@"; do
        if ((SECONDS >= deadline)); then
            say "        did not happen within $patience s: $*"
            journalctl --unit sorteo --lines 20 --no-pager --output cat | sed 's/^/        /'
            return 1
        fi
        sleep 0.1
    done
}

# quiet COMMAND…: shows what the command says only when it fails.
quiet() {
    "$@" >/test/quiet.log 2>&1 || {
        sed 's/^/        /' /test/quiet.log
        return 1
    }
}

property() { systemctl show --property="$1" --value sorteo; }
has() { [[ $(property "$1") == "$2" ]]; }
answers() { sorteo status >/test/status 2>&1; }
logged() { journalctl --unit sorteo --output cat --no-pager | grep --count --fixed-strings -- "$1"; }
was_logged() { (($(logged "$1") > 0)); }
of_process() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(property MainPID)/status"; }
as_its_user() { quiet runuser -u sorteo -- "$@"; }

# asked PATH: what the operators' port answers, without a program that asks.
asked() {
    exec 3<>/dev/tcp/127.0.0.1/9090 || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}

# The unit asks for more; a system that allows less gives what it has.
may_open_all() {
    local soft hard
    read -r soft hard < <(awk '/^Max open files/ { print $4, $5 }' "/proc/$(property MainPID)/limits")
    equal "$hard" "$soft" && ((hard > connections))
}

test_sandbox() {
    check "the server runs" quiet systemctl start sorteo
    check "it answers" within answers
    check "it runs as its user" equal sorteo "$(stat --format %U "/proc/$(property MainPID)")"
    check "its calls are filtered" equal 2 "$(of_process Seccomp)"
    check "it can get no privileges" equal 1 "$(of_process NoNewPrivs)"
    check "it has no capabilities" equal 0000000000000000 "$(of_process CapBnd)"
    check "it may open as many files as it is configured to" may_open_all
    check "its files are its own" equal "600 sorteo" "$(stat --format '%a %U' "$database")"
    check "its folder is its own" equal "700 sorteo" "$(stat --format '%a %U' "${database%/*}")"
    check "operators are told that it is ready" quiet grep --quiet '"ready":true,"parts"' <(asked /readyz)
    # What it looks up in /proc, of which it sees only its own part.
    check "operators are told what it uses" equal 4 \
        "$(asked /metrics | grep --count --extended-regexp '^process_[a-z_]+ [1-9]')"
    check "it warns of nothing" equal "0 0" "$(logged ' WARNING ') $(logged ' ERROR ')"
}

test_draw() {
    quiet sorteo generate --dir /test/data --agencies 2 --bets "$bets" --seed 1
    check "an agency uploads" quiet sorteo upload --agency 1 --file /test/data/agency-1.csv --no-wait
    check "another uploads, and the draw is made" quiet sorteo upload --agency 2 --file /test/data/agency-2.csv
    check "the draw is whole" equal "draw 1: drawn, 2 of 2 agencies done, $bets bets" "$(sorteo status)"
    check "a command beside the server, as its user" as_its_user sorteo check --database "$database"
}

test_kill() {
    local before
    before=$(sorteo status)
    systemctl kill --signal KILL sorteo
    check "killed, it is started again" within has NRestarts 1
    check "it answers again" within answers
    check "it has what it had" equal "$before" "$(sorteo status)"
}

test_reload() {
    local process
    process=$(property MainPID)
    echo 'log_level = "debug"' >>"$config"
    check "a reload" quiet systemctl reload sorteo
    check "the level is read again" within was_logged 'log_level: DEBUG'
    check "the same process goes on" equal "$process" "$(property MainPID)"
    check "and answers" within answers
}

test_stop() {
    check "a stop" quiet systemctl stop sorteo
    check "it was clean" equal "success 0" "$(property Result) $(property ExecMainStatus)"
    check "the log is copied and gone" test ! -e "$database-wal"
}

# fails_for_good STATUS RESTARTS: starts it, and waits until systemd has given up.
fails_for_good() {
    # Where there is nothing to forget, it says so.
    systemctl reset-failed sorteo 2>/dev/null
    quiet systemctl start sorteo
    within has ActiveState failed || return 1
    equal "$1 after $2 restarts" "$(property ExecMainStatus) after $(property NRestarts) restarts"
}

test_refusals() {
    cp "$config" /test/config
    echo 'agences = 5' >>"$config"
    check "a wrong configuration is not started again" fails_for_good 78 0
    cp /test/config "$config"
    # The unit allows five starts; systemd counts the one that it did not make, too.
    echo 'precious' >"$database"
    check "a refused database is started again a few times only" fails_for_good 74 5
    check "and is left as it is" equal precious "$(cat "$database")"
}

# A user that exists only here.
quiet systemd-sysusers
echo 'agencies = 2' >>"$config"
test_sandbox
test_draw
test_kill
test_reload
test_stop
test_refusals
say "the end"
