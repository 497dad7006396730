#!/usr/bin/env python3
"""Whether `page.py` catches mistakes: plants bugs, one at a time, in a copy of the page, and sees which check fails.

Each bug names the scenario that must catch it, and a part of the name of the check that must fail. All of them take
about ten minutes: to be run after a change of the page or of its test.

    tests/tools/page_bugs.py [--only TEXT]…

Ends with a line `N caught, N missed`.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Shorter than the default of page.py: here most runs wait for something that never happens.
PATIENCE_S = 6
PAGE = ROOT / "src" / "ops" / "page"
TEST = ROOT / "tests" / "outside" / "page.py"
JS, CSS, HTML = "page.js", "page.css", "index.html"

# scenario, file, text to replace, its replacement, part of the name of the check that must fail
BUGS = [
    ("filling", JS, "setText($('draw-heading'), heading);", "", "shown after loading"),
    ("filling", JS, "setText($('draw-state-text'), state);", "", "its state is shown"),
    ("filling", JS, "String(draw.winning_number)", "'1'", "its winning number"),
    ("filling", JS, "setText($('draw-bets'), number(draw.bets));", "", "an open draw: its bets"),
    ("filling", JS, "draw.expected_inferred ? 'done", "!draw.expected_inferred ? 'done", "how many agencies are done"),
    ("filling", JS, "missing > 0 ? t('silentCount'", "missing > 9 ? t('silentCount'", "how many are still expected"),
    ("filling", JS, "setMoment($('draw-opened'), draw.opened_at);", "", "when it was opened"),
    ("filling", JS, "$('results').hidden = draw.state !== 'drawn';", "$('results').hidden = false;", "neither winners nor"),
    ("filling", JS, "one.done_by === 'operator' ? 'agencyClosed'", "one.done_by === 'x' ? 'agencyClosed'", "who closed them"),
    ("filling", JS, "one.bets / largest", "one.bets / 1e5", "bars relative to the largest"),
    ("filling", CSS, '.state[data-state="closed"] .lock,', "", "a sign beside each state"),
    ("filling", JS, "Math.max(0, ...seconds)", "Math.min(9e9, ...seconds)", "current and highest"),
    ("filling", JS, "`${first + i} ${", "`${i} ${", "a point for each second"),
    ("filling", JS, "meter.value = value;", "", "connections and queue"),
    ("filling", JS, "setText(element.querySelector('.sentence'), reasonText(reason));", "", "refused: code, count"),
    ("filling", JS, "const hidden = onlyOpen && one.done;", "const hidden = false;", "only those not done, where"),
    ("filling", JS, "if (row.element.hidden !== hidden)", "if (hidden)", "agencies: all again"),
    ("filling", JS, "take(JSON.parse(event.data));", "if (!status) take(JSON.parse(event.data));", "live: bets arrive"),
    ("filling", JS, "take(JSON.parse(event.data));", "if (status) location.reload(); take(JSON.parse(event.data));",
     "without loading again"),
    ("filling", JS, "else body.insertBefore(row.element, place);", "else body.append(row.element);", "is in its order"),
    ("filling", JS, "if (row.written === wanted) return;", "if (row.written) return;", "live: an agency that is done"),
    ("filling", JS, "draw.state, share, one.bets,", "draw.state, one.bets,", "live: bars are scaled again"),
    ("filling", JS, "  if (row) return row;\n", "", "rows are updated, not made again"),
    ("filling", JS, "document.title = `", "document.titel = `", "live: the title follows"),
    ("filling", JS, "setText($('done-text')", "if (!$('done-text').textContent) setText($('done-text')", "live: agencies done"),
    ("filling", JS, "setText($('rate-text')", "if (!$('rate-text').textContent) setText($('rate-text')", "the chart follows"),
    ("filling", JS, "if (body.children[i] !== element) body.insert", "if (i) body.insert",
     "a new reason comes first"),
    ("filling", JS, "setText($('draw-bets'), number(draw.bets));",
     "setText($('draw-bets'), number(draw.bets)); announce(number(draw.bets));", "not read out each second"),
    ("filling", HTML, '<div id="content" hidden>', '<div id="content" style="color: red" hidden>', "no violation"),
    ("filling", JS, "listen();\n", "listen();\nconsole.warn('left over');\n", "nothing in the console"),
    ("drawn", JS, "tellChange(before?.draw, next.draw);", "", "the draw: read out"),
    ("drawn", JS, "setText($('draw-state-text'), state);", "if (draw.state === 'open') setText($('draw-state-text'), state);",
     "shown when it is drawn"),
    ("drawn", JS, "  ensureResults(view.draw);\n", "", "its results come by themselves"),
    ("drawn", JS, "setMoment($('draw-drawn'), draw.drawn_at);", "", "when it was drawn"),
    ("drawn", JS, "group?.agency !== winner.agency", "!group", "by agency, each with its count"),
    ("drawn", JS, "numberCell.textContent = String(winner.number);", "", "document, name, day of birth"),
    ("drawn", JS, "draw.state === 'drawn' ? 'agencyNever'", "draw.state === 'x' ? 'agencyNever'", "did not wait for"),
    ("drawn", JS, "number(one.winners) : '–'", "'–' : '–'", "winners of each agency"),
    ("drawn", JS, "searchTimer = setTimeout(searchNow, SEARCH_PAUSE_MS);", "searchNow();", "once the typing pauses"),
    ("drawn", JS, "if (isFirst) clearWinners();", "", "what is found is shown"),
    ("drawn", JS, "query.search = $('search').value.trim();", "", "what is found is counted"),
    ("drawn", JS, "Object.entries({ agency, search, after })", "Object.entries({ search, after })", "within an agency"),
    ("drawn", JS, "target.value = target.value.replace(/\\D/g, '');", "void target;", "within an agency"),
    ("drawn", JS, "t(total === 0 ? 'foundNoneMatching'", "t(total === 1 ? 'foundNoneMatching'", "nobody is found"),
    ("drawn", JS, "results?${asked}`", "results?${decodeURIComponent(asked)}`", "sent as it was typed"),
    ("drawn", JS, "if (what.length === 0) return total", "if (what.length === 9) return total", "search: all again"),
    ("drawn", JS, "$('results-failed').hidden = !error;", "", "a failure is shown"),
    ("drawn", JS, "    results.key = null;\n    renderDraw();", "    renderDraw();", "search: tried again"),
    ("limit", JS, "const WINNERS_SHOWN_MAX = 5000;", "const WINNERS_SHOWN_MAX = 4900;", "5,001 winners: 5,000 are shown"),
    ("limit", JS, "} while (after !== null && results", "} while (after !== null || results", "in pages"),
    ("limit", JS, "if (cut) writeCut(winners.length, total);", "", "too many winners: shown"),
    ("limit", JS, "  if (complete) writeGroupCount();", "  writeGroupCount();", "no count of an agency"),
    ("limit", JS, "WINNERS_SHOWN_MAX && !complete;", "WINNERS_SHOWN_MAX;", "no note is shown"),
    ("limit", JS, "  if (complete) writeGroupCount();", "", "every agency is counted"),
    ("limit", CSS, "  .scroll { max-height: none; overflow: visible;", "  .scroll {", "all on paper"),
    ("earlier", JS, "n: winners });\n}\n\n// ── Results", "n: 0 });\n}\n\n// ── Results", "in the list"),
    ("earlier", JS, "$('chooser').addEventListener('change'", "$('chooser').addEventListener('changed'", "chosen by keyboard"),
    ("earlier", JS, "if (key !== results.key) loadResults(key);", "if (!results.key && draw.id > 1) loadResults(key);",
     "with its results"),
    ("earlier", JS, "  while (place) place = dropAgency(place);\n", "", "an earlier draw: with its agencies"),
    ("earlier", JS, "if (id !== undefined) announce(", "if (!id) announce(", "marked as one, and read out"),
    ("earlier", JS, "`${place}#draw-${id}`", "`${place}#draw-0${id}`", "in the address"),
    ("earlier", JS, "timeZone: 'UTC' }", "}", "have no time zone"),
    ("earlier", JS, "return fetched?.draw.id === chosen ? fetched : null;",
     "return fetched?.draw.id === chosen && !$('agency-rows').children[2]?.hidden && status.draw.bets < 60000 ? fetched : status;",
     "stays when news"),
    ("earlier", JS, "  addEventListener('popstate', follow);\n  addEventListener('hashchange', follow);\n", "", "Back button"),
    ("earlier", JS, "chosen = chosenByAddress();\nlisten", "listen", "by its address"),
    ("earlier", JS, "    choose(null);\n", "", "back to the newest"),
    ("earlier", JS, "setNote($('draw-failed'), failed ?? none);", "", "does not exist: shown"),
    ("earlier", JS, "$('draw').hidden = $('agencies-section').hidden = Boolean(failed ?? none);", "", "nothing else is shown"),
    ("earlier", JS, "  status = next;\n", "  status = next;\n  chosen ??= next.draw.id;\n", "the next draw: followed"),
    ("earlier", JS, "else announce(t('announceOpen'", "else if (!now) announce(t('announceOpen'", "the next draw: read out"),
    ("earlier", JS, "id >= 1 && id <= draw.expected", "id <= draw.expected", "an inferred number is marked as one"),
    ("earlier", JS, "named.length < SILENT_NAMED_MAX", "named.length < 2", "an inferred number is marked as one"),
    ("access", JS, "const isForbidden = me.role === 'viewer';", "const isForbidden = false;", "says why there are no winners"),
    ("access", JS, "  $('search-form').hidden = $('results-count').hidden = isForbidden;\n", "", "no list and no search"),
    ("access", JS, "  if (isForbidden) {\n", "  if (isForbidden) {\n    ask(`api/draws/${draw.id}/results`);\n",
     "does not even ask"),
    ("access", JS, "  renderMe();\n", "", "role and button"),
    ("access", JS, "  renderUnprotected();\n", "", "said as it is"),
    ("access", JS, "isKnown ? known[setting] : text", "text", "said in Spanish"),
    ("access", JS, "JSON.stringify([language, lines])", "JSON.stringify(lines)", "said in Spanish"),
    ("access", JS, "if (response.status === 401) location.assign('sign-in');", "", "whose session has ended"),
    ("access", JS, "if (events.readyState === EventSource.CLOSED) askMe();", "", "whose session has ended"),
    ("access", HTML, 'method="post" action="sign-out"', 'action="sign-out"', "signing out leads"),
    ("hostile", JS, "nameCell.firstElementChild.textContent =", "nameCell.firstElementChild.innerHTML =", "shown as they are"),
    ("hostile", JS, "documentCell.textContent =", "documentCell.innerHTML =", "in documents and days"),
    ("hostile", JS, "birthCell.textContent =", "birthCell.innerHTML =", "none became an element"),
    ("hostile", JS, "parts.find((part) => Object.hasOwn(sentences, part))", "parts.find((part) => sentences[part])",
     "with a sentence all the same"),
    ("hostile", JS, "said.textContent = why ?? '';", "said.innerHTML = why ?? '';", "in why it is not ready"),
    ("hostile", JS, "node.textContent = text;", "node.innerHTML = text;", "in what is searched for"),
    ("hostile", JS, "node.textContent = text;", "node.innerHTML = text;", "nothing was tried"),
    ("hostile", CSS, "font-weight: 400; overflow-wrap: anywhere; }\nth:first", "font-weight: 400; }\nth:first", "fits 360 px"),
    ("connection", JS, "  setText($('outage'), text || '');\n", "", "dies: shown, since when"),
    ("connection", JS, "{ lost: 'linkLost',", "{ lost: 'linkLive',", "shown in the bar"),
    ("connection", JS, "    lost = true;\n", "    lost = true;\n    $('content').hidden = true;\n", "what is known stays"),
    ("connection", JS, "outage: 'Sin noticias del servidor desde las {time}", "outage: 'Nada {time}", "shown in Spanish"),
    ("connection", JS, "if (givenUp || dead) connect();", "if (dead && silence < 0) connect();", "found again by itself"),
    ("connection", JS, "if (givenUp || dead) connect();", "if (givenUp) connect();", "a dead connection: replaced"),
    ("connection", JS, "  events?.close();\n", "", "given up, not kept"),
    ("connection", JS, "  announce(t('back'));\n", "", "dies: read out"),
    ("connection", JS, "setText($('news'), time ?? '');", "$('news').textContent ||= time ?? '';", "the time moved on"),
    ("ready", JS, "setText($('unready'), status.ready ? '' : t('unready'));", "", "not ready: shown"),
    ("ready", JS, "answer.parts.filter((part) => !part.ready)", "answer.parts", "which part, and why"),
    ("ready", JS, "    unreadyParts = [];\n    readyAsked", "    readyAsked", "the banner goes"),
    ("ready", JS, "announce(t('readyAgain'));", "announce('');", "ready again: read out"),
    ("languages", JS, "return spoken.find((tag) => Object.hasOwn(TEXT, tag)) ?? 'en';", "return 'en';", "reads es-AR"),
    ("languages", JS, "return spoken.find((tag) => Object.hasOwn(TEXT, tag)) ?? 'en';", "return spoken[0];", "reads fr-FR"),
    ("languages", JS, "return spoken.find((tag) => Object.hasOwn(TEXT, tag)) ?? 'en';",
     "return spoken.includes('en') ? 'en' : 'es';", "reads de-DE"),
    ("languages", JS, "      remember(button.dataset.language);\n", "", "is remembered"),
    ("languages", JS, "document.documentElement.lang = tag;", "", "speaks Spanish"),
    ("languages", JS, "button.setAttribute('aria-pressed'", "button.setAttribute('data-pressed'", "shows which language"),
    ("languages", JS, "    print: 'Imprimir',\n", "    print: 'Print',\n", "no English is left"),
    ("languages", JS, "  render();\n  rewriteResults();\n", "  render();\n", "what was loaded before"),
    ("languages", JS, "birthdate: new Intl.DateTimeFormat(locale,", "birthdate: new Intl.DateTimeFormat('en',", "dates too"),
    ("languages", JS, "    waiting: 'Esperando al servidor…',\n", "", "the same in both languages"),
    ("languages", JS, "'Todavía no llegó nada de la agencia {list}.'", "'Todavía no llegó nada de una agencia.'",
     "the same values"),
    ("languages", HTML, 'data-t="waiting"', 'data-t="wating"', "all that the document names"),
    ("languages", JS, "    bad_wait: 'The time", "    bad_weight: 'The time", "a sentence for each reason"),
    ("looks", HTML, '<input id="search" ', '<input id="search" tabindex="-1" ', "drawn: Tab reaches everything"),
    ("looks", HTML, '<select id="chooser">', '<select id="chooser" tabindex="1">', "open: Tab reaches everything"),
    ("looks", CSS, ":focus-visible { outline: 3px solid", ":focus-visible { outline: 0 solid", "the focus can be seen"),
    ("looks", JS, "    $('main').focus();\n  });\n  $('chooser')", "  });\n  $('chooser')", "the skip link"),
    ("looks", CSS, "    --card: #191f29;", "    --card: #ffffff;", "light text on dark"),
    ("looks", CSS, "  --card: #ffffff;", "  --card: #777777;", "dark text on light"),
    ("looks", CSS, "  --quiet: #51607a;", "  --quiet: #9aa6ba;", "axe finds nothing"),
    ("looks", CSS, "    --quiet: #a4b0c3;", "    --quiet: #4a5568;", "dark, en: axe finds nothing"),
    ("looks", HTML, '<label for="search"', '<label for="sarch"', "axe finds nothing"),
    ("looks", CSS, "  .chooser { flex: 1 1 10rem; min-width: 0; }", "  .chooser { min-width: 25rem; }", "fits 360 px"),
    ("looks", CSS, "#refused-section, .tools,", ".tools,", "nothing else"),
    ("looks", CSS, "  :root { color-scheme: light; }\n", "", "dark ink on white"),
    ("looks", CSS, "@media screen and (prefers-color-scheme: dark)", "@media (prefers-color-scheme: dark)", "dark ink on white"),
    ("looks", CSS, "  .scroll { max-height: none; overflow: visible;", "  .scroll {", "left in a scrolled area"),
    ("looks", JS, "$('print').addEventListener('click', () => print());", "", "the button prints"),
    ("thousand", JS, "if (omitted > 0) parts.push(", "if (omitted < 0) parts.push(", "how many are not listed"),
    ("thousand", JS, "agencies.length - omitted;", "agencies.length;", "how many are still expected"),
    ("thousand", JS, "for (const one of agencies) {", "for (const one of agencies.slice(0, 999)) {", "all are shown"),
    ("thousand", JS, "  if (row) return row;\n", "", "no row is made"),
    ("thousand", JS, "if (row.written === wanted) return;", "if (row.written) return;", "all are updated"),
    ("thousand", JS, "scroller.tabIndex = 0;", "scroller.tabIndex = -1;", "that the keyboard scrolls"),
    ("thousand", CSS, "  .figures dd { font-size: 1.5rem; }", "  .figures dd { font-size: 4rem; width: 5rem; }", "fits 360 px"),
    ("empty", JS, "if (listed === 0) parts.push(t('noAgency'));", "if (listed === 0) parts.push('');", "nothing yet: shown"),
    ("empty", JS, "!status.draw && chosen === null ? t('noDraw')", "chosen === 0 ? t('noDraw')", "no draw: shown"),
]


def plant(bug, folder):
    """Copies the page with the bug in it; returns whether the place of the bug was found."""
    _, name, found, instead, _ = bug
    shutil.copytree(PAGE, folder)
    path = folder / name
    text = path.read_text(encoding="utf-8")
    if found not in text:
        return False
    path.write_text(text.replace(found, instead, 1), encoding="utf-8")
    return True


def caught(bug):
    """The failed checks of the scenario that must catch the bug."""
    scenario, *_ = bug
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "page")
        if not plant(bug, folder):
            return ["the place of the bug is not found"]
        run = subprocess.run([sys.executable, TEST, "--only", scenario, "--assets", folder,
                              "--patience", str(PATIENCE_S)],
                             capture_output=True, text=True, timeout=600, check=False)
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    return failed or [(run.stderr.splitlines() or ["nothing failed"])[-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", action="append", help="only bugs whose check or scenario has this text")
    wanted = parser.parse_args().only or [""]
    missed = 0
    bugs = [bug for bug in BUGS if any(text in bug[0] or text in bug[4] for text in wanted)]
    for bug in bugs:
        scenario, _, found, _, check = bug
        failed = caught(bug)
        good = any(line.startswith("FAILED") and check in line for line in failed)
        missed += not good
        print(f"{'caught' if good else 'MISSED'}  {scenario}: {check}  ({found.strip()[:50]!r})", flush=True)
        if not good:
            print("\n".join(f"        {line[:200]}" for line in failed[:6]), flush=True)
    print(f"{len(bugs) - missed} caught, {missed} missed")
    sys.exit(missed != 0)


if __name__ == "__main__":
    main()
