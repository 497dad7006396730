#!/usr/bin/env bash
#
# Tests what contrib has for Prometheus and Grafana, with Prometheus's own promtool.
#
#     tests/outside/prometheus.sh [--scrape FILE]
#
# What it shows:
#   1. promtool accepts the alerts and the sample configuration, also with the lines for
#      TLS and a token, and each alert fires when it must and only then (alerts_test.yml).
#   2. Each alert has its test, a summary, a description, and a section in
#      docs/operating.md.
#   3. Every expression of the dashboard parses, and alerts and dashboard use only
#      metrics and labels that are in the table of metrics in docs/http.md.
#   4. With a scrape of a real server (`curl --output FILE http://…/metrics`): it has
#      exactly the metrics of that table, and promtool finds nothing wrong with it.
#      A refusal's metric appears with the first refusal, so let the server refuse
#      something before the scrape.
#
# Without an installed promtool it takes the one in Debian's package prometheus. The
# package is unpacked and not installed, which would start a server. Needs python3.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
scrape=
case ${1:-} in
    '') ;;
    --scrape) scrape=$(realpath "${2:?a file is missing}") ;;
    *) echo "usage: tests/outside/prometheus.sh [--scrape FILE]" >&2; exit 2 ;;
esac

failed=0

# check DESCRIPTION COMMAND…: prints the output of the command only if it fails.
check() {
    local description=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        printf 'ok      %s\n' "$description"
    else
        failed=$((failed + 1))
        sed 's/^/        /' "$work/output"
        printf 'FAILED  %s\n' "$description"
    fi
}

find_promtool() {
    ! command -v promtool >/dev/null || { promtool=promtool; return; }
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    cd "$work"
    apt-get download -qq prometheus 2>/dev/null ||
        { "${sudo[@]}" apt-get update -qq && apt-get download -qq prometheus; }
    dpkg-deb --extract prometheus_*.deb package
    promtool=$work/package/usr/bin/promtool
}

# All of the six keys that the sample has in comments are used.
secured_is_a_configuration() {
    [ "$(grep -cE '^ *(authorization|credentials_file|scheme|tls_config|ca_file|min_version):' "$work/secured.yml")" -eq 6 ] &&
        "$promtool" check config --syntax-only "$work/secured.yml"
}

lists() { python3 "$root/tests/outside/prometheus/names.py" "$root" "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
find_promtool
cd "$root/contrib/prometheus"
check "the alerts are rules" "$promtool" check rules alerts.yml
check "the sample is a configuration" "$promtool" check config prometheus.yml
# The files that it names are not here.
sed -E 's/^( *)#( *(authorization|credentials_file|scheme|tls_config|ca_file|min_version):)/\1\2/' prometheus.yml >"$work/secured.yml"
cp alerts.yml "$work/"
check "it is one with TLS and a token too" secured_is_a_configuration
check "each alert fires when it must" "$promtool" test rules alerts_test.yml
check "each alert has its test, its texts and its section" lists alerts
lists expressions >"$work/dashboard.yml"
check "the dashboard's expressions parse" "$promtool" check rules "$work/dashboard.yml"
check "alerts and dashboard use only documented metrics" lists metrics
if [ -n "$scrape" ]; then
    check "the scrape has exactly the documented metrics" lists scrape "$scrape"
    check "promtool finds nothing wrong with the scrape" "$promtool" check metrics <"$scrape"
fi
printf 'prometheus: %d failed\n' "$failed"
[ "$failed" -eq 0 ]
