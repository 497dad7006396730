#!/usr/bin/env bash
#
# Tests the unit of contrib/systemd with systemd itself.
#
#     tests/outside/systemd.sh [BINARY]       target/release/sorteo, unless another is named
#
# What it shows:
#   1. systemd knows every directive of the unit (`systemd-analyze verify`), and
#      grades its sandbox no worse than the threshold below (`systemd-analyze security`).
#   2. systemd-nspawn boots a throw-away copy of this machine's system, whose systemd
#      runs the server in that sandbox. What is checked there is listed at the head of
#      systemd/inside.sh.
#
# It needs systemd, openssl and, for the second part, root, systemd-nspawn, overlayfs and
# writable control groups. It installs missing packages with apt; where the second
# part cannot run it prints `skipped` with the reason.
#
# No speed is tested: each wait is for a condition, and its deadline only ends a test
# that hangs. With KEEP=1 the folder of the booted system is kept.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
readonly unit=$root/contrib/systemd/sorteo.service
# The exposure level in tenths, from 0 (safest) to 100; systemd calls it OK below 40.
readonly exposure_max=15
# The deadline of the booted system in seconds, far above what it needs.
readonly boot_max=240

failed=0

say() { printf '%s\n' "$*"; }

check() {
    local description=$1
    shift
    if "$@"; then
        say "ok      $description"
    else
        failed=$((failed + 1))
        say "FAILED  $description"
    fi
}

conclude() {
    if ((failed > 0)); then
        say "systemd: $failed failed"
        exit 1
    fi
    say "systemd: all passed"
    exit 0
}

skip() {
    say "skipped: the unit cannot be run here: $*"
    conclude
}

need_tools() {
    local missing=()
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
    command -v openssl >/dev/null || missing+=(openssl)
    [ "${#missing[@]}" -gt 0 ] || return 0
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# In a copy that runs /bin/true, because systemd-analyze wants the program to exist.
verifies() {
    local complaints
    sed "s|^ExecStart=/usr/local/bin/sorteo |ExecStart=/bin/true |" "$unit" >"$work/sorteo.service"
    # systemd-analyze warns of an unknown directive, and still exits with 0.
    complaints=$(systemd-analyze verify --man=no "$work/sorteo.service" 2>&1) || true
    [ -z "$complaints" ] || { say "$complaints"; return 1; }
}

graded() {
    local report
    if report=$(systemd-analyze security --offline=true --no-pager --threshold="$exposure_max" \
        "$work/sorteo.service" 2>&1); then
        say "        $(tail -n 1 <<<"$report")"
    else
        say "$report"
        return 1
    fi
}

# Prints the control groups that systemd-nspawn may leave behind.
groups() {
    local of_this=/ hierarchy
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        [ -e "$hierarchy/cgroup.procs" ] || continue
        case $hierarchy in
            */systemd) of_this=$(sed -n 's/^[0-9]*:name=systemd://p' /proc/self/cgroup) ;;
            *) of_this=$(sed -n 's/^0:://p' /proc/self/cgroup) ;;
        esac
        printf '%s\n' "$hierarchy$of_this/payload" "$hierarchy$of_this/supervisor"
    done
}

cleanup() {
    local status=$? group
    trap - EXIT
    for group in "${left_behind[@]}"; do
        [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + || true
    done
    if [ -n "${KEEP:-}" ]; then
        say "kept: $work"
    else
        ! mountpoint -q "$work/disk/system" || umount "$work/disk/system"
        ! mountpoint -q "$work/disk" || umount "$work/disk"
        rm -rf "$work"
    fi
    exit "$status"
}

# Installs the unit into an overlay of this machine's system, as docs/operating.md
# describes it. What is written there stays in memory.
install_system() {
    local disk=$work/disk system=$work/disk/system
    mkdir "$disk"
    mount -t tmpfs none "$disk" && mkdir "$disk/upper" "$disk/work" "$system" || return 1
    mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" overlay "$system" || return 1
    install -D -m 755 "$binary" "$system/usr/local/bin/sorteo"
    install -D -m 644 "$unit" "$system/etc/systemd/system/sorteo.service"
    install -D -m 644 "$root/contrib/systemd/sorteo-sysusers.conf" "$system/etc/sysusers.d/sorteo.conf"
    install -D -m 644 "$root/contrib/systemd/sorteo.toml" "$system/etc/sorteo/sorteo.toml"
    install -D -m 755 "$root/tests/outside/systemd/inside.sh" "$system/test/inside.sh"
    # The only unit that the booted system starts.
    cat >"$system/etc/systemd/system/sorteo-test.service" <<'UNIT'
[Unit]
After=basic.target
Requires=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/test/inside.sh
StandardOutput=file:/test/result
StandardError=file:/test/result
UNIT
}

run_system() {
    local system=$work/disk/system group before=()
    mapfile -t before < <(groups)
    for group in "${before[@]}"; do
        [ -d "$group" ] || left_behind+=("$group")
    done
    timeout --kill-after=5 "$boot_max" systemd-nspawn --quiet --directory="$system" --machine="sorteo-test-$$" \
        --register=no --keep-unit --private-network --link-journal=no --console=pipe \
        --boot systemd.unit=sorteo-test.service </dev/null >"$work/boot.log" 2>&1 || true
    [ -e "$system/test/result" ]
}

need_tools
work=$(mktemp -d)
left_behind=()
trap cleanup EXIT

say "-- the unit's file"
check "systemd knows every directive" verifies
check "the sandbox is graded $((exposure_max / 10)).$((exposure_max % 10)) or better" graded

say "-- the unit in a booted system"
binary=${1:-$root/target/release/sorteo}
[ -x "$binary" ] || { say "there is no $binary: run cargo build --release, or pass another"; exit 2; }
[ "$(id -u)" -eq 0 ] || skip "it needs root"
install_system >"$work/install.log" 2>&1 || skip "no overlay of this system: $(tail -n 1 "$work/install.log")"
run_system || skip "systemd does not boot in systemd-nspawn: $(tail -n 1 "$work/boot.log")"
result=$work/disk/system/test/result
cat "$result"
failed=$((failed + $(grep -c '^FAILED' "$result" || true)))
# inside.sh prints this line last: without it, it died on the way.
check "all checks inside the system were run" grep -qx 'the end' "$result"
conclude
