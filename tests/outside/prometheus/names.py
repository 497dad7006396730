"""Compares the alerts, the dashboard, the documentation and a scrape with each other,
for prometheus.sh. Reads YAML as plain text, so that the standard library is enough.

    names.py ROOT alerts            each alert has its texts, a test, and a section
    names.py ROOT expressions       prints the dashboard's expressions as a file of rules
    names.py ROOT metrics           alerts and dashboard use only documented metrics
    names.py ROOT scrape FILE       a scrape has exactly the documented metrics
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1])
OPERATING = (ROOT / "docs/operating.md").read_text()
HTTP = (ROOT / "docs/http.md").read_text()
ALERTS = (ROOT / "contrib/prometheus/alerts.yml").read_text()
TESTS = (ROOT / "contrib/prometheus/alerts_test.yml").read_text()
DASHBOARD = json.loads((ROOT / "contrib/grafana/sorteo.json").read_text())

METRIC = re.compile(r"\b(?:sorteo|process)_[a-z_]+\b")
# What Prometheus and the sample configuration add to every series.
LABELS_ADDED = {"job", "instance", "le"}
# A value for each of Grafana's variables, so that promtool can parse the expressions.
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}


def documented():
    """Each name in the table of metrics, with its kind and its labels."""
    rows = re.findall(r"^\| `([a-z_]+)(?:\{([^}]*)\})?` \| (counter|gauge|histogram) \|", HTTP, re.M)
    return {name: (kind, set(re.findall(r"[a-z_]+(?==)", labels))) for name, labels, kind in rows}


def series(metrics):
    """The names of all series of these metrics, each with the metric that it belongs to."""
    names = {}
    for name, (kind, _) in metrics.items():
        ends = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        names.update({name + end: name for end in ends})
    return names


def alerts():
    """Each alert's name, with its part of the file."""
    parts = re.split(r"^ *- alert: (\w+)\n", ALERTS, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2]))


def panels():
    return [panel for row in DASHBOARD["panels"] for panel in [row, *row.get("panels", [])]]


def dashboard_expressions():
    found = [target["expr"] for panel in panels() for target in panel.get("targets", [])]
    found += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return found


def check_alerts():
    headings = {heading.strip().lower() for heading in re.findall(r"^#+ (.*)$", OPERATING, re.M)}
    for name, part in alerts().items():
        for word in ["summary", "description", "severity"]:
            if not re.search(rf"^ *{word}: \S", part, re.M):
                yield f"{name} has no {word}"
        if f"runbook: docs/operating.md#{name.lower()}\n" not in part:
            yield f"{name} does not name its section of docs/operating.md"
        if name.lower() not in headings:
            yield f"docs/operating.md has no section {name}"
        if not re.search(rf"alertname: {name}\n *eval_time: \w+\n *exp_alerts:", TESTS):
            yield f"no test shows that {name} fires"
        if f"alertname: {name}, eval_time" not in TESTS:
            yield f"no test shows that {name} does not fire"
    if not alerts():
        yield "there are no alerts"


def check_metrics():
    metrics = documented()
    known = series(metrics)
    if len(metrics) < 20:
        yield f"docs/http.md lists {len(metrics)} metrics only"
    # Annotations are texts for people: names in them are not checked.
    expressions = [re.sub(r"^ *annotations:.*", "", part, flags=re.M | re.S) for part in alerts().values()]
    for text in expressions + dashboard_expressions():
        for name in METRIC.findall(text):
            if name not in known:
                yield f"{name} is not a documented metric"
        for name, selected in re.findall(r"\b((?:sorteo|process)_[a-z_]+)\{([^}]*)\}", text):
            labels = set(re.findall(r"\w+(?=\s*(?:=~|!~|!=|=))", selected)) - LABELS_ADDED
            if name in known and not labels <= metrics[known[name]][1]:
                yield f"{name} does not have the labels {sorted(labels)}"
        for grouped in re.findall(r"\bby \(([^)]*)\)", text):
            labels = {label.strip() for label in grouped.split(",")} - LABELS_ADDED
            named = [metrics[known[name]][1] for name in METRIC.findall(text) if name in known]
            if not any(labels <= has for has in named):
                yield f"no metric has the labels {sorted(labels)} in `{text.strip()}`"
    for variable in DASHBOARD["templating"]["list"]:
        for name in METRIC.findall(variable.get("definition", "")):
            if name not in known:
                yield f"{name}, in the dashboard's variable {variable['name']}, is not a documented metric"


def check_scrape(path):
    metrics = documented()
    known = series(metrics)
    scraped = {}
    for line in pathlib.Path(path).read_text().splitlines():
        sample = re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ", line)
        if sample and not line.startswith("#"):
            labels = set(re.findall(r"(\w+)=\"", sample[2] or "")) - LABELS_ADDED
            scraped.setdefault(sample[1], set()).update(labels)
    for name in sorted(known.keys() - scraped.keys()):
        yield f"{name} is documented, but was not scraped"
    for name in sorted(scraped.keys() - known.keys()):
        yield f"{name} was scraped, but is not documented"
    for name in sorted(known.keys() & scraped.keys()):
        if scraped[name] != metrics[known[name]][1]:
            yield f"{name} has the labels {sorted(scraped[name])}, not {sorted(metrics[known[name]][1])}"


def print_expressions():
    print("groups:\n  - name: dashboard\n    rules:")
    for number, expression in enumerate(dashboard_expressions()):
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        print(f"      - record: dashboard:{number}\n        expr: {json.dumps(expression)}")


def main():
    what, arguments = sys.argv[2], sys.argv[3:]
    if what == "expressions":
        return print_expressions()
    checks = {"alerts": check_alerts, "metrics": check_metrics, "scrape": check_scrape}
    findings = list(checks[what](*arguments))
    print("\n".join(findings))
    sys.exit(1 if findings else 0)


main()
