#!/usr/bin/env bash
#
# systemd.sh boots a system whose systemd runs this script in it. What it shows:
#   1. The server runs in its sandbox, as its user, with the limits of the unit, and
#      its operators' HTTP answers.
#   2. A whole draw works, and so do the operator's commands beside the server.
#   3. A server that is killed is started again, and has every bet.
#   4. A reload changes the log level of the running server.
#   5. A stop is clean, and leaves no WAL behind.
#   6. With the settings of TLS and tokens that the sample has in comments, it serves whom
#      it should, and a reload takes a new certificate.
#   7. With a wrong configuration the server is not started again; with a database that
#      it refuses, only a few times.

set -uo pipefail

readonly config=/etc/sorteo/sorteo.toml
readonly database=/var/lib/sorteo/sorteo.db
readonly bets=2000
# The default of max_connections.
readonly connections=10000
# The deadline of each wait in seconds. It only ends a test that hangs.
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

# quiet COMMAND…: prints the output of the command only if it fails.
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

# asked PATH: prints the answer of the operators' HTTP; bash alone can ask.
asked() {
    exec 3<>/dev/tcp/127.0.0.1/9090 || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    cat <&3
    exec 3>&-
}

# The unit asks for a file for each connection and some more; a system with a lower
# limit gives what it has.
may_open_all() {
    local soft hard
    read -r soft hard < <(awk '/^Max open files/ { print $4, $5 }' "/proc/$(property MainPID)/limits")
    equal "$hard" "$soft" && ((hard > connections))
}

test_sandbox() {
    check "the server runs" quiet systemctl start sorteo
    check "it answers a status" within answers
    check "it runs as its user" equal sorteo "$(stat --format %U "/proc/$(property MainPID)")"
    check "its calls are filtered" equal 2 "$(of_process Seccomp)"
    check "it can get no privileges" equal 1 "$(of_process NoNewPrivs)"
    check "it has no capabilities" equal 0000000000000000 "$(of_process CapBnd)"
    check "it may open as many files as it is configured to" may_open_all
    check "its files are its own" equal "600 sorteo" "$(stat --format '%a %U' "$database")"
    check "its folder is its own" equal "700 sorteo" "$(stat --format '%a %U' "${database%/*}")"
    check "the operators' HTTP reports that it is ready" quiet grep --quiet '"ready":true,"parts"' <(asked /readyz)
    # The server reads these in /proc, and the sandbox shows it only its own part of that.
    check "its metrics have its use of the system" equal 4 \
        "$(asked /metrics | grep --count --extended-regexp '^process_[a-z_]+ [1-9]')"
    check "it logs no warning" equal "0 0" "$(logged ' WARNING ') $(logged ' ERROR ')"
}

test_draw() {
    quiet sorteo generate --dir /test/data --agencies 2 --bets "$bets" --seed 1
    check "an agency uploads" quiet sorteo upload --agency 1 --file /test/data/agency-1.csv --no-wait
    check "another uploads, and the draw happens" quiet sorteo upload --agency 2 --file /test/data/agency-2.csv
    check "the draw has both agencies and all bets" equal "draw 1: drawn, 2 of 2 agencies done, $bets bets" "$(sorteo status)"
    check "a command beside the server, as its user" as_its_user sorteo check --database "$database"
}

test_kill() {
    local before
    before=$(sorteo status)
    systemctl kill --signal KILL sorteo
    check "it is started again after a kill" within has NRestarts 1
    check "it answers again" within answers
    check "it has what it had before" equal "$before" "$(sorteo status)"
}

test_reload() {
    local process
    process=$(property MainPID)
    echo 'log_level = "debug"' >>"$config"
    check "a reload succeeds" quiet systemctl reload sorteo
    check "the level is read again" within was_logged 'log_level: DEBUG'
    check "the process is the same" equal "$process" "$(property MainPID)"
    check "it still answers" within answers
}

test_stop() {
    check "a stop succeeds" quiet systemctl stop sorteo
    check "it was clean" equal "success 0" "$(property Result) $(property ExecMainStatus)"
    check "the WAL is copied into the database and removed" test ! -e "$database-wal"
}

# make_certificate NAME: makes a certificate that is its own authority, and installs it.
make_certificate() {
    quiet openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -keyout /test/server.key -out /test/server.pem &&
        install -m 644 /test/server.pem "${config%/*}/server.pem" &&
        install -m 640 -o root -g sorteo /test/server.key "${config%/*}/server.key"
}

secured() {
    sorteo "$1" --server localhost:12345 --agency 1 --tls --tls-ca /test/server.pem --token-file /test/token "${@:2}"
}
secured_answers() { secured status >/test/status 2>&1; }

test_secured() {
    check "a certificate is made" make_certificate first
    sed --in-place --regexp-extended 's/^#((auth|tls|tls_cert|tls_key) = )/\1/' "$config"
    check "all four settings are in the sample" equal 4 "$(grep --count --extended-regexp '^(auth|tls|tls_cert|tls_key) = ' "$config")"
    check "config check has nothing to say" equal OK "$(sorteo config check --config "$config" 2>&1)"
    check "a secured server starts" quiet systemctl start sorteo
    (umask 077 && runuser -u sorteo -- sorteo token add 1 --database "$database" >/test/token)
    check "with TLS and its token, an agency is served" within secured_answers
    check "it has its winners" quiet secured winners
    check "without both, nobody is" not answers
    check "a renewed certificate is made" make_certificate second
    check "a reload succeeds" quiet systemctl reload sorteo
    check "the renewed certificate is used" within secured_answers
    check "a stop of the secured server succeeds" quiet systemctl stop sorteo
}
not() { ! "$@"; }

# fails_for_good STATUS RESTARTS: starts the server, and waits until systemd gives up.
fails_for_good() {
    # Fails where the unit has not failed yet: there is nothing to reset then.
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
    # The unit allows five starts; NRestarts also counts the sixth, which systemd refused.
    echo 'precious' >"$database"
    check "a refused database is started again a few times only" fails_for_good 74 5
    check "the refused database is not changed" equal precious "$(cat "$database")"
}

# Makes the user of the unit, which only this system has.
quiet systemd-sysusers
echo 'agencies = 2' >>"$config"
test_sandbox
test_draw
test_kill
test_reload
test_stop
test_secured
test_refusals
say "the end"
