#!/usr/bin/env python3
"""Tests the operators' page in a real browser.

Without --server the page of src/ops/page is served by a mock of the operators' HTTP (`page_mock.py`), whose
draws are scripted: open, drawn, earlier ones, a thousand agencies, hostile texts, a server that dies, falls silent
or is replaced by a proxy's error. With --server only the checks that any server must pass run, on that one; they
only read.

    tests/outside/page.py [--server URL] [--screenshots FOLDER] [--only NAME[,NAME]] [--assets FOLDER] [--patience SECONDS]

Installs Chromium, its driver and axe-core where they are missing. Ends with a line `N passed, N failed`.
"""

import argparse
import json
import pathlib
import re
import sys
import urllib.request

from outside import ROOT, Checks
from page_browser import Browser
from page_mock import DRAWN, HEADERS, Draw, Mock, World, agency, until, winner

HOSTILE = "<img src=x onerror=document.title='taken'>"
PHONE, DESK = 360, 1280
SHOWN_MAX = 5000

# Everything a keyboard can reach, in the order of the document.
REACHABLE = """([...document.querySelectorAll('a[href], button, input, select, [tabindex="0"]')]
    .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled))"""
NAME_OF = "((e) => e.id || e.tagName)"
LUMINANCE = """((color) => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255; })"""


def filling():
    """An open draw into which bets arrive, after one that is drawn."""
    return World(earlier(), Draw(2, [agency(1, 12345, "agency"), agency(2, 900), agency(5, 40000, "operator")],
                                 expected=5),
                 per_second=[0, 0, 120034, 98000], refused=[{"reason": "bad_number", "count": 3},
                                                            {"reason": "use_pages", "count": 1}])


def earlier():
    return Draw(1, [agency(1, 40000, "agency"), agency(2, 38697, "agency")],
                [winner(1, 30876370), winner(1, 33656694, "Alma Luis", "Fornerón"),
                 winner(2, 21685223, "Pilar Mateo", "Rivas", "1960-02-29")])


def many_winners(count):
    return [winner(1 + 3 * i // count, 20_000_000 + i, f"Ana {i}") for i in range(count)]


def drawn(count=11):
    agencies = [agency(1, 30000, "agency"), agency(2, 20000, "agency"), agency(3, 28697, "operator"), agency(4, 5)]
    return World(earlier(), Draw(2, agencies, many_winners(count), expected=3),
                 per_second=[5] * 120, refused=[{"reason": "draw_closed", "count": 12}])


# ── Checks that any server must pass ──────────────────────────────────────────────


class Page:
    """A browser with a server's page, and the checks that every server must pass."""

    def __init__(self, check, browser, url, shots):
        self.check, self.browser, self.url, self.shots = check, browser, url, shots

    def load(self, languages="en-GB", fragment="", width=DESK, dark=False):
        """Loads the page with no stored settings; returns whether it shows a draw."""
        self.browser.speak(languages)
        self.browser.look(width, dark=dark)
        self.browser.log()
        # Forget the stored settings; a document without an address has none, and raises.
        self.browser.js("try { localStorage.clear() } catch {}")
        self.browser.go(self.url + fragment)
        self.browser.js("window.loadedOnce = true")
        return self.browser.wait("!document.getElementById('content').hidden") and bool(
            self.browser.text("#draw-heading"))

    def clean(self, where):
        """The page tried nothing that its policy forbids, and logged nothing. To be called before axe is loaded."""
        self.check(f"{where}: no violation of the Content-Security-Policy", self.browser.violations() == [],
                   self.browser.violations())
        log = self.browser.log()
        self.check(f"{where}: nothing in the console", log == [], log)

    def same_document(self, where):
        self.check(f"{where}, without loading again", self.browser.js("return window.loadedOnce === true"))

    def shot(self, name):
        if self.shots:
            self.browser.screenshot(self.shots / f"{name}.png")

    def headers(self):
        for path in ("", "page.js", "api/status"):
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                seen = {name: answer.headers[name] for name in HEADERS}
            self.check(f"the answer to /{path} has the expected headers", seen == HEADERS, seen)

    def status(self):
        with urllib.request.urlopen(self.url + "api/status", timeout=10) as answer:
            return json.load(answer)

    def lives(self):
        """Events arrive and are shown, even if nothing in the lottery changes."""
        news = "document.getElementById('news').dateTime"
        for _ in range(2):
            before = self.browser.js(f"return {news}")
            heard = before and self.browser.wait(f"{news} !== arguments[0]", before)
            self.check("the page gets events of the server", heard, before)
        self.same_document("the page gets events of the server")
        self.check("the page says that it is live", self.browser.text("#link-text") == "Live")

    def shows_status(self):
        """What does not change while bets arrive is on the page as the server reports it."""
        draw = self.status()["draw"]
        heading = self.browser.text("#draw-heading")
        self.check("the newest draw is shown", heading == f"Draw {draw['id']}", heading)
        state = self.browser.text("#draw-state-text")
        self.check("its state is shown", state == {"open": "Open", "drawn": "Drawn"}[draw["state"]], state)
        number = self.browser.text("#draw-number")
        self.check("its winning number is shown", number == str(draw["winning_number"]), number)
        if draw["state"] == "drawn":
            count = self.browser.wait_text("#results-count", "winner")
            self.check("its results are loaded", count, self.browser.text("#results-count"))

    def fits(self, where, width=PHONE):
        """Nothing is wider than the window, and nothing is cut off at its right edge."""
        wide = self.browser.js("""
          const width = innerWidth, wide = [];
          if (document.documentElement.scrollWidth > width) wide.push(`page: ${document.documentElement.scrollWidth}`);
          for (const e of document.querySelectorAll('body *'))
            if (e.checkVisibility() && !e.closest('.unseen, .skip') && e.getBoundingClientRect().right > width + 0.5)
              wide.push(`${e.tagName}#${e.id}.${e.className}`);
          for (const e of document.querySelectorAll('.scroll, dd, dt, p, th, td, button, h1, h2'))
            if (e.checkVisibility() && !e.closest('.unseen') && e.scrollWidth > e.clientWidth + 1)
              wide.push(`too narrow for its text: ${e.tagName}#${e.id}.${e.className}`);
          return [width, wide.slice(0, 5)]""")
        self.check(f"{where}: fits {width} px without scrolling sideways", wide == [width, []], wide)

    def accessible(self, where):
        found = self.browser.accessibility()
        self.check(f"{where}: axe finds nothing serious", found == [], "\n        ".join(found))

    def dark_is_dark(self, where):
        for dark in (False, True):
            self.browser.look(dark=dark)
            ground, text = self.browser.js(f"""
              const style = getComputedStyle(document.querySelector('#draw')), of = {LUMINANCE};
              return [of(style.backgroundColor), of(style.color)]""")
            good = ground < 0.2 and text > 0.7 if dark else ground > 0.9 and text < 0.3
            self.check(f"{where}: {'light text on dark' if dark else 'dark text on light'} as the system asks", good,
                       (ground, text))

    def walk(self, where):
        """Tab reaches everything in the order of the page, and the focus is visible."""
        self.browser.look()
        wanted = self.browser.js(f"document.activeElement.blur(); getSelection().removeAllRanges();"
                                 f"return {REACHABLE}.map({NAME_OF})")
        # From the top: without this, Tab goes on from the last click.
        self.browser.js("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        seen, unmarked = [], []
        for _ in wanted:
            self.browser.press("Tab")
            name, marked = self.browser.js(f"""
              const e = document.activeElement, s = getComputedStyle(e);
              return [{NAME_OF}(e), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]""")
            seen.append(name)
            unmarked += [] if marked else [name]
        self.check(f"{where}: Tab reaches everything in its order", seen == wanted, f"{seen} instead of {wanted}")
        self.check(f"{where}: the focus can be seen everywhere", unmarked == [], unmarked)
        self.check(f"{where}: there is something to walk", len(wanted) >= 5, wanted)

    def skips(self):
        self.browser.js("document.getElementById('skip').focus()")
        seen = self.browser.js("return document.getElementById('skip').getBoundingClientRect().left >= 0")
        self.browser.press("Enter")
        self.check("the skip link shows itself and leads to the draw",
                   seen and self.browser.js("return document.activeElement.id") == "main")

    def switches_language(self):
        """Switches by keyboard to Spanish and back; the language is remembered when the page is loaded again."""
        self.browser.js("document.getElementById('language-es').focus()")
        self.browser.press("Enter")
        heading = self.browser.text("#draw-heading")
        self.check("the switch speaks Spanish", heading and heading.startswith("Sorteo ")
                   and self.browser.js("return document.documentElement.lang") == "es", heading)
        self.check("the switch shows which language is chosen", self.browser.js(
            "return [...document.querySelectorAll('[data-language]')].map((b) => b.ariaPressed)") == ["true", "false"])
        self.browser.go(self.url)
        self.check("the language is remembered", self.browser.wait_text("#draw-heading", "Sorteo "))
        self.browser.js("document.getElementById('language-en').focus(); window.loadedOnce = true")
        self.browser.press("Space")
        self.check("the switch speaks English again", self.browser.wait_text("#draw-heading", "Draw "))


# ── Scenarios on the mock ────────────────────────────────────────────────────


def scenario_filling(page, mock):
    browser, check = page.browser, page.check
    mock.publish(filling())
    check("an open draw: shown after loading", page.load())
    page.headers()
    page.shows_status()
    check("an open draw: its bets", browser.text("#draw-bets") == "53,245", browser.text("#draw-bets"))
    check("an open draw: how many agencies are done", browser.text("#done-text") == "2 of 5 agencies done",
          browser.text("#done-text"))
    check("an open draw: how many are still expected",
          "from 2 more agencies that are expected" in (browser.text("#silent") or ""), browser.text("#silent"))
    check("an open draw: when it was opened", browser.js("return document.getElementById('draw-opened').dateTime")
          == "2026-11-22T07:00:01.000Z" and "2026" in browser.text("#draw-opened"))
    check("an open draw: neither winners nor results", browser.text("#results") is None
          and browser.text("#draw-winners") is None)
    rows = agency_rows(browser)
    check("agencies: their bets as text, and who closed them",
          [row[:3] for row in rows] == [["1", "12,345", "Done"], ["2", "900", "Not done yet"],
                                        ["5", "40,000", "Closed by an operator"]], rows)
    widths = [row[3] for row in rows]
    check("agencies: bars relative to the largest",
          all(abs(w - share) < 0.01 for w, share in zip(widths, (12345 / 40000, 900 / 40000, 1))), widths)
    signs = [row[4] for row in rows]
    check("agencies: a sign beside each state, not only its colour", signs == ["tick", "dots", "lock"], signs)
    check("bets a second: current and highest as text, named by the chart",
          browser.text("#rate-text") == "Now 98,000 a second; at most 120,034 in the last 4 seconds."
          and browser.js("return document.getElementById('rate-chart').getAttribute('aria-labelledby')") == "rate-text",
          browser.text("#rate-text"))
    path = browser.js("return document.getElementById('rate-line').getAttribute('d')")
    check("bets a second: a point for each second, the newest at the right edge", path.count("L") == 3
          and path.rpartition("L")[2].startswith("119 "), path)
    check("connections and queue, as text and as gauges",
          browser.text("#connections-text") == "12 of 10,000" and browser.text("#queue-text") == "0 of 1,024"
          and browser.js("return document.getElementById('connections').value") == 12, browser.text("#connections-text"))
    refused = browser.js("return [...document.querySelectorAll('#refused-rows tr')].map((r) => r.innerText)")
    check("refused: code, count and a sentence", len(refused) == 2 and "bad_number" in refused[0]
          and "3" in refused[0] and "cannot" not in refused[0] and "can be bet on" in refused[0]
          and "must ask for pages" in refused[1], refused)
    only_not_done(page)
    page.shot("open-desktop-light-en")
    fills_live(page, mock)
    page.clean("an open draw")


def agency_rows(browser):
    """For each agency that is shown: number, bets, state, share of its bar, sign."""
    return browser.js("""
      const rows = [...document.querySelectorAll('#agency-rows tr')].filter((r) => r.checkVisibility());
      return rows.map((r) => {
      const width = (s) => r.querySelector(s).getBoundingClientRect().width;
      const sign = [...r.querySelectorAll('.sign path')].filter((p) => getComputedStyle(p).display !== 'none');
      return [r.cells[0].innerText, r.querySelector('.count').innerText, r.querySelector('.state-text').innerText,
              width('.fill') / width('.track'), sign.map((p) => p.className.baseVal).join()]; })""")


def only_not_done(page):
    page.browser.click("only-open")
    rows = [row[0] for row in agency_rows(page.browser)]
    page.check("agencies: only those not done, where asked", rows == ["2"], rows)
    page.browser.click("only-open")
    page.check("agencies: all again", len(agency_rows(page.browser)) == 3)


def fills_live(page, mock):
    """New bets, a new agency and one that is done are shown without loading the page or making its rows again."""
    browser, check = page.browser, page.check
    browser.js("""
      for (const row of document.querySelectorAll('#agency-rows tr')) row.marked = true;
      window.said = [];
      const voice = document.getElementById('announcement');
      new MutationObserver(() => said.push(voice.innerText))
        .observe(voice, {childList: true, characterData: true, subtree: true})""")
    world = filling()
    world.draws[-1].agencies = [agency(1, 12345, "agency"), agency(2, 80000, "agency"), agency(3, 7),
                                agency(5, 40000, "operator")]
    world.per_second, world.refused = [98000, 250], [{"reason": "busy", "count": 9}, *world.refused]
    mock.publish(world)
    check("live: bets arrive", browser.wait_text("#draw-bets", "132,352"), browser.text("#draw-bets"))
    page.same_document("live: bets arrive")
    rows = agency_rows(browser)
    check("live: a new agency is in its order", [row[0] for row in rows] == ["1", "2", "3", "5"], rows)
    check("live: an agency that is done", rows[1][:3] == ["2", "80,000", "Done"] and rows[1][3] > 0.99, rows[1])
    check("live: bars are scaled again", abs(rows[0][3] - 12345 / 80000) < 0.01, rows[0])
    marked = browser.js("return [...document.querySelectorAll('#agency-rows tr')].map((r) => r.marked === true)")
    check("live: rows are updated, not made again", marked == [True, True, False, True], marked)
    check("live: agencies done", browser.text("#done-text") == "3 of 5 agencies done")
    check("live: the title follows", browser.js("return document.title") == "Draw 2 · 3/5 · sorteo")
    check("live: the chart follows", "Now 250 a second" in browser.text("#rate-text"))
    refused = browser.text("#refused-rows") or ""
    check("live: a new reason comes first", refused.startswith("Too much was waiting"), refused)
    check("live: counts are not read out each second", browser.js("return window.said") == [],
          browser.js("return window.said"))


def scenario_drawn(page, mock):
    """The draw happens while the page shows it."""
    browser, check = page.browser, page.check
    mock.publish(filling())
    page.load()
    world = drawn()
    mock.publish(world)
    check("the draw: shown when it is drawn", browser.wait_text("#draw-state-text", "Drawn"))
    check("the draw: read out", browser.wait_text("#announcement", "Draw 2 is made: 11 winners."))
    check("the draw: its results come by themselves", browser.wait_text("#results-count", "11 winners"),
          browser.text("#results-count"))
    page.same_document("the draw")
    check("the draw: when it was drawn", browser.js("return document.getElementById('draw-drawn').dateTime") == DRAWN)
    groups = winner_groups(browser)
    check("results: by agency, each with its count",
          groups == [["Agency 1", "4 winners", 4], ["Agency 2", "4 winners", 4], ["Agency 3", "3 winners", 3]], groups)
    first = browser.js("return [...document.querySelectorAll('#winners tbody tr')[1].cells].map((c) => c.innerText)")
    wanted = ["20000000", "Ana 0 Paz", "31 Jan 1990", "7574"]
    check("results: document, name, day of birth, number", first == wanted, first)
    rows = agency_rows(browser)
    check("results: an agency that the draw did not wait for", rows[3][2] == "Was not done", rows)
    column = browser.js("return [...document.querySelectorAll('#agency-rows .c-winners')].map((c) => c.innerText)")
    check("results: winners of each agency", column == ["4", "4", "3", "0"], column)
    page.shot("drawn-desktop-light-en")
    page.clean("the draw")
    searches(page, mock)


def winner_groups(browser):
    return browser.js("""return [...document.querySelectorAll('#winners tbody')].map((b) => [
      b.querySelector('.group-agency').innerText, b.querySelector('.group-count').innerText, b.rows.length - 1])""")


def searches(page, mock):
    browser, check = page.browser, page.check
    asked = len(mock.asked)
    # All letters at once, so that the speed at which the driver types does not matter.
    browser.js("""const field = document.getElementById('search');
      for (const letter of 'ANA 1') { field.value += letter; field.dispatchEvent(new Event('input')); }""")
    check("search: what is found is counted", browser.wait_text("#results-count", "2 winners match “ANA 1”"),
          browser.text("#results-count"))
    check("search: what is found is shown", winner_groups(browser)
          == [["Agency 1", "1 winner", 1], ["Agency 3", "1 winner", 1]], winner_groups(browser))
    questions = [query.get("search") for query in mock.asked[asked:]]
    check("search: asked of the server, once the typing pauses", questions == ["ANA 1"], questions)
    browser.type("search-agency", "3x")
    check("search: within an agency", browser.wait_text("#results-count", "1 winner matches “ANA 1” and agency 3"),
          browser.text("#results-count"))
    browser.type("search", "nobody & nothing=1")
    check("search: nobody is found", browser.wait_text("#results-count", "No winner matches “nobody & nothing=1”"),
          browser.text("#results-count"))
    check("search: sent as it was typed", mock.asked[-1] == {"agency": "3", "search": "nobody & nothing=1"},
          mock.asked[-1])
    browser.type("search", "")
    browser.type("search-agency", "")
    check("search: all again", browser.wait("document.getElementById('results-count').innerText === '11 winners'"))
    mock.results_fail = True
    browser.type("search", "ana")
    check("search: a failure is shown", browser.wait_text("#results-failed", "the database is busy <b>now</b>"),
          browser.text("#results-failed"))
    mock.results_fail = False
    browser.click("results-again")
    check("search: tried again", browser.wait_text("#results-count", "11 winners match “ana”")
          and browser.text("#results-failed") is None, browser.text("#results-count"))
    browser.log()


def scenario_limit(page, mock):
    """One winner more than the page shows, and exactly as many as it shows."""
    browser, check = page.browser, page.check
    for count in (SHOWN_MAX + 1, SHOWN_MAX):
        mock.publish(drawn(count))
        mock.asked.clear()
        page.load()
        browser.wait("!document.querySelector('#results-scroll').ariaBusy"
                     " && document.querySelector('#winners tbody')", deadline_s=60)
        shown = browser.js("return document.querySelectorAll('#winners tbody tr:not(.group)').length")
        check(f"{count:,} winners: {SHOWN_MAX:,} are shown", shown == SHOWN_MAX, shown)
        check(f"{count:,} winners: in pages", len(mock.asked) == 10, len(mock.asked))
        note = browser.text("#results-more")
        if count > SHOWN_MAX:
            check("too many winners: shown, with the command that writes all", note is not None
                  and "first 5,000 of 5,001" in note and "sorteo export results" in note, note)
            last = winner_groups(browser)[-1]
            check("too many winners: no count of an agency that is cut off", last[1] == "", last)
        else:
            check("as many as are shown: no note is shown", note is None, note)
            check("as many as are shown: every agency is counted", winner_groups(browser)[-1][1] != "")
    paper = pages_of(browser.pdf())
    check("5,000 winners are all on paper", paper > 50, f"{paper} pages")


def pages_of(pdf):
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def scenario_earlier(page, mock):
    browser, check = page.browser, page.check
    mock.publish(filling())
    page.load()
    options = browser.js("return [...document.getElementById('chooser').options].map((o) => o.text)")
    check("earlier draws: in the list", options == ["Draw 2: open", "Draw 1: 22 Nov 2026, 3 winners"], options)
    browser.js("document.getElementById('chooser').focus()")
    browser.press("Down")
    check("an earlier draw: chosen by keyboard", browser.wait_text("#draw-heading", "Draw 1"))
    check("an earlier draw: with its results", browser.wait_text("#results-count", "3 winners")
          and winner_groups(browser) == [["Agency 1", "2 winners", 2], ["Agency 2", "1 winner", 1]],
          winner_groups(browser))
    check("an earlier draw: with its agencies", [row[:2] for row in agency_rows(browser)]
          == [["1", "40,000"], ["2", "38,697"]], agency_rows(browser))
    check("an earlier draw: marked as one, and read out", browser.text("#earlier") is not None
          and browser.text("#announcement") == "Draw 1 is shown.", browser.text("#announcement"))
    check("an earlier draw: in the address", browser.js("return location.hash") == "#draw-1")
    page.same_document("an earlier draw")
    leap_day = browser.js("return [...document.querySelectorAll('#winners .c-birth')].at(-1).innerText")
    check("an earlier draw: days of birth have no time zone", leap_day == "29 Feb 1960", leap_day)
    world = filling()
    world.draws[-1].agencies[1]["bets"] = 77000
    mock.publish(world)
    mock.publish()
    check("an earlier draw: stays when news of the newest come", browser.wait_text("#rate-text", "98,000")
          and browser.text("#draw-bets") == "78,697", browser.text("#draw-bets"))
    browser.js("history.back()")
    check("an earlier draw: the browser's Back button", browser.wait_text("#draw-bets", "129,345"))
    check("the newest draw: without the results of the other", browser.text("#results") is None)
    page.load(fragment="#draw-1")
    check("an earlier draw: by its address", browser.wait_text("#draw-heading", "Draw 1"))
    browser.click("newest")
    check("an earlier draw: back to the newest", browser.wait_text("#draw-heading", "Draw 2")
          and browser.js("return location.hash") == "")
    page.clean("earlier draws")
    page.load(fragment="#draw-7")
    check("a draw that does not exist: shown", browser.wait_text("#draw-failed", "there is no draw 7"),
          browser.text("#draw-failed"))
    check("a draw that does not exist: nothing else is shown for it", browser.text("#draw") is None)
    next_draw(page, mock)


def next_draw(page, mock):
    """Whoever follows the newest draw sees the next one when it opens."""
    browser, check = page.browser, page.check
    mock.publish(drawn())
    page.load()
    browser.wait_text("#results-count", "11 winners")
    world = drawn()
    world.draws.append(Draw(3, [agency(0, 4), agency(2, 6), agency(4294967295, 5)]))
    mock.publish(world)
    check("the next draw: followed", browser.wait_text("#draw-heading", "Draw 3"))
    check("the next draw: read out", browser.text("#announcement") == "Draw 3 is open.", browser.text("#announcement"))
    check("the next draw: its agencies alone", [row[0] for row in agency_rows(browser)] == ["0", "2", "4294967295"],
          agency_rows(browser))
    silent = browser.text("#silent") or ""
    check("the next draw: an inferred number is marked as one", "seen so far" in browser.text("#done-text")
          and silent.startswith("Nothing has come yet from agencies 1, 3, 4, ")
          and "4,294,967,273 more" in silent, (browser.text("#done-text"), silent))
    world.draws[-1] = Draw(3, [agency(0, 4), agency(2, 6)], expected=4, expected_set="1-3,7")
    mock.publish(world)
    browser.wait_text("#done-text", "0 of 4 agencies done")
    silent = browser.text("#silent") or ""
    check("the next draw: the expected agencies that are missing are named", "1, 3" in silent and "7" in silent
          and "0" not in silent and "more" not in silent, silent)
    browser.js("document.getElementById('chooser').value = '2';"
               "document.getElementById('chooser').dispatchEvent(new Event('change'))")
    check("the next draw: the one before can be chosen", browser.wait_text("#draw-heading", "Draw 2")
          and browser.wait_text("#results-count", "11 winners"))


def scenario_hostile(page, mock):
    """Texts from data never become elements."""
    browser, check = page.browser, page.check
    world = drawn(2)
    world.draws[-1].winners += [winner(3, f"9{HOSTILE}", HOSTILE, "</td></table><script>1</script>", HOSTILE)]
    world.refused = [{"reason": HOSTILE, "count": 1}, {"reason": "constructor", "count": 1}]
    world.ready, world.parts = False, [{"part": HOSTILE, "ready": False, "why": HOSTILE}]
    world.draws[-1].whole()
    mock.publish(world)
    page.load()
    name = f"{HOSTILE} </td></table><script>1</script>"
    check("hostile texts: shown as they are", browser.wait_text("#winners", name))
    check("hostile texts: in documents and days", browser.wait_text("#winners .group ~ tr .c-document", "2")
          and f"9{HOSTILE}" in browser.text("#winners") and browser.text("#winners").count(HOSTILE) == 3)
    check("hostile texts: in reasons, with a sentence all the same", browser.text("#refused-rows").count(
        "For a reason that this page does not know.") == 2 and HOSTILE in browser.text("#refused-rows"),
        browser.text("#refused-rows"))
    why = f"{HOSTILE}: not ready. {HOSTILE}"
    check("hostile texts: in why it is not ready", browser.wait_text("#unready-parts", why),
          browser.text("#unready-parts"))
    browser.type("search", HOSTILE)
    check("hostile texts: in what is searched for", browser.wait_text("#results-count", f"matches “{HOSTILE}”"),
          browser.text("#results-count"))
    made = browser.js("const count = (tag) => document.getElementsByTagName(tag).length;"
                      "return [count('img'), count('script'), document.title]")
    check("hostile texts: none became an element", made == [1, 1, "Draw 2 · Drawn · sorteo"], made)
    check("hostile texts: nothing was tried", browser.violations() == [], browser.violations())
    page.browser.look(PHONE)
    page.fits("hostile texts")
    browser.log()


def scenario_connection(page, mock):
    """The server dies, falls silent or answers nonsense, and comes back each time."""
    browser, check = page.browser, page.check
    mock.publish(filling())
    page.load()
    check("connection: live, and no banner", browser.wait_text("#link-text", "Live") and not browser.text("#outage"))
    heard = browser.text("#news")
    for name, harm, heal in (("dies", mock.die, mock.start),
                             ("falls silent", lambda: mock.set_mood("silent"), lambda: mock.set_mood("talk")),
                             ("is nonsense", lambda: mock.set_mood("nonsense"), lambda: mock.set_mood("talk"))):
        harm()
        check(f"a server that {name}: shown, since when", browser.wait_text("#outage", "No news from the server since ")
              and re.search(r"since \d\d:\d\d:\d\d", browser.text("#outage")), browser.text("#outage"))
        check(f"a server that {name}: shown in the bar too", browser.text("#link-text") == "No connection")
        check(f"a server that {name}: what is known stays", browser.text("#draw-bets") == "53,245")
        if name == "dies":
            page.shot("lost-desktop-light-en")
            page.accessible("without a connection")
            browser.click("language-es")
            check("a server that dies: shown in Spanish", browser.wait_text("#outage", "Sin noticias del servidor desde"))
            browser.click("language-en")
        heal()
        check(f"a server that {name}: found again by itself", browser.wait("!document.getElementById('outage')"
              ".innerText && document.getElementById('link-text').innerText === 'Live'", deadline_s=30))
        check(f"a server that {name}: read out", browser.text("#announcement") == "Connected to the server again.")
    page.same_document("a server that comes back")
    check("connection: the time moved on", browser.text("#news") != heard)
    replaced_connection(page, mock)
    browser.log()


def replaced_connection(page, mock):
    """A stream that stays open without data is replaced by a new one."""
    browser, check = page.browser, page.check
    with mock.changed:
        mock.deaf_until = mock.opened
    check("a dead connection: shown", browser.wait_text("#outage", "No news"))
    check("a dead connection: replaced", browser.wait("!document.getElementById('outage').innerText",
                                                      deadline_s=40))
    check("a dead connection: given up, not kept beside the new one",
          until(lambda: mock.listeners == 1, "one listener"), mock.listeners)


def scenario_ready(page, mock):
    browser, check = page.browser, page.check
    world = filling()
    world.ready = False
    world.parts = [{"part": "writer", "ready": True},
                   {"part": "disk", "ready": False, "why": "12345 bytes free, 134217728 wanted"}]
    mock.publish(world)
    page.load()
    check("not ready: shown", browser.wait_text("#unready", "The server is not ready to take bets."))
    check("not ready: which part, and why", browser.wait_text("#unready-parts", "Disk: not ready. 12345 bytes free")
          and "Writer" not in browser.text("#unready-parts"), browser.text("#unready-parts"))
    check("not ready: draws and events go on", browser.text("#link-text") == "Live")
    page.shot("unready-desktop-light-en")
    page.accessible("not ready")
    mock.publish(filling())
    check("ready again: the banner goes", browser.wait("!document.getElementById('unready').innerText"
          " && document.getElementById('unready-parts').hidden"))
    check("ready again: read out", browser.text("#announcement") == "The server is ready again.")
    browser.log()


def scenario_languages(page, mock):
    browser, check = page.browser, page.check
    mock.publish(drawn())
    spanish, english = ["es", "Sorteo 2", "78.702"], ["en", "Draw 2", "78,702"]
    for languages, wanted in (("es-AR,en", spanish), ("fr-FR,es", spanish), ("en-US", english), ("de-DE", english)):
        page.load(languages)
        browser.wait_text("#results-count", "1")
        lang = browser.js("return document.documentElement.lang")
        seen = [lang, browser.text("#draw-heading"), browser.text("#draw-bets")]
        check(f"a browser that reads {languages}: {wanted[0]}", seen == wanted, seen)
    page.load()
    browser.wait_text("#results-count", "11 winners")
    page.switches_language()
    page.load("es")
    check("a browser that reads es: results too", browser.wait_text("#results-count", "11 ganadores"))
    browser.click("language-en")
    groups = winner_groups(browser)
    check("English: what was loaded before too", groups and groups[0][:2] == ["Agency 1", "4 winners"], groups)
    browser.click("language-es")
    left = browser.js("""
      const english = ['Bets', 'Winners', 'Agencies', 'Print', 'State', 'Refused', 'Language'];
      return [...document.querySelectorAll('[data-t]')].map((e) => e.innerText).filter((text) => english.includes(text))""")
    check("Spanish: no English is left", left == [], left)
    check("Spanish: dates too", browser.text("#winners .c-birth + td") is not None
          and "ene" in browser.js("return document.querySelector('#winners td.c-birth').innerText"))
    browser.click("language-en")
    same_keys(page)
    reasons(page)


def same_keys(page):
    """Both languages have the same texts, with the same placeholders in them."""
    source = page_source(page)
    tables = [dict(re.findall(r"^    (\w+): (.+),$", block, re.M)) for block in
              re.findall(r"^  (?:en|es): \{\n(.*?)^  \},$", source, re.M | re.S)]
    page.check("texts: two languages of texts and of reasons", len(tables) == 4 and all(len(t) > 30 for t in tables),
               [len(t) for t in tables])
    for english, spanish in zip(tables[::2], tables[1::2]):
        page.check("texts: the same in both languages", list(english) == list(spanish),
                   set(english) ^ set(spanish))
        values = [key for key in english if sorted(re.findall(r"\{(\w+)\}", english[key]))
                  != sorted(re.findall(r"\{(\w+)\}", spanish.get(key, "")))]
        page.check("texts: the same values in both languages", values == [], values)
    used = set(re.findall(r"data-t=\"(\w+)\"", (page.assets / "index.html").read_text(encoding="utf-8")))
    page.check("texts: all that the document names", used <= set(tables[0]), used - set(tables[0]))


def reasons(page):
    """The page has a sentence for each reason code of the protocol, and for no other."""
    table = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").split("## Reasons")[1].split("\n## ")[0]
    cells = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    codes = {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    # `gap\|next_row` is `gap` with a value; `too_many\|use_pages` is a reason of its own.
    wanted = {"use_pages" if "use_pages" in code else code.split("\\|")[0] for code in codes}
    known = set(re.findall(r"^    (\w+): ", page_source(page).split("const REASONS")[1].split("\n  es: {")[0], re.M))
    page.check("a sentence for each reason of docs/protocol.md", known == wanted and len(wanted) > 25, known ^ wanted)


def page_source(page):
    return (page.assets / "page.js").read_text(encoding="utf-8")


def scenario_looks(page, mock):
    """Both themes, both states, a phone and a desktop, on paper and by keyboard."""
    browser = page.browser
    for name, world in (("open", filling()), ("drawn", drawn(40))):
        mock.publish(world)
        page.load()
        if name == "drawn":
            browser.wait_text("#results-count", "40 winners")
        page.walk(name)
        page.skips()
        page.dark_is_dark(name)
        page.clean(name)
        for language in ("en", "es"):
            browser.click(f"language-{language}")
            for dark in (False, True):
                for width, device in ((PHONE, "phone"), (DESK, "desktop")):
                    browser.look(width, dark=dark)
                    page.shot(f"{name}-{device}-{'dark' if dark else 'light'}-{language}")
                    if device == "phone":
                        page.fits(f"{name}, {language}, {'dark' if dark else 'light'}")
                    if language == "en" or device == "phone":
                        page.accessible(f"{name}, {device}, {'dark' if dark else 'light'}, {language}")
        browser.click("language-en")
    on_paper(page)


def on_paper(page):
    """Only the results with their heading are printed."""
    browser, check = page.browser, page.check
    browser.look(width=780, dark=True, media="print")
    page.shot("drawn-paper-en")
    seen = {name: browser.text(name) is not None for name in (
        "#draw-heading", "#draw-number", "#draw-drawn", "#results-heading", "#results-count", "#winners",
        ".bar", "#search", "#print", "#rate", "#agencies", "#refused", "#chooser", "#language-es")}
    on = {"#draw-heading", "#draw-number", "#draw-drawn", "#results-heading", "#results-count", "#winners"}
    check("paper: the draw's results with their heading, nothing else", {n for n, s in seen.items() if s} == on, seen)
    of = browser.js(f"return {LUMINANCE}(getComputedStyle(document.querySelector('#winners td')).color)")
    scheme = browser.js("return getComputedStyle(document.documentElement).colorScheme")
    check("paper: dark ink on white whatever the screen", of < 0.3 and scheme == "light", (of, scheme))
    cut = browser.js("const e = document.getElementById('results-scroll'); return e.scrollHeight > e.clientHeight + 1")
    check("paper: nothing is left in a scrolled area", not cut)
    browser.look()
    pdf = browser.pdf()
    check("paper: it prints", pdf.startswith(b"%PDF") and pages_of(pdf) >= 1)
    if page.shots:
        (page.shots / "drawn.pdf").write_bytes(pdf)
    browser.js("window.print = () => { window.printed = true }")
    browser.click("print")
    check("paper: the button prints", browser.js("return window.printed === true"))


def scenario_thousand(page, mock):
    """A thousand agencies, all of which change at once."""
    browser, check = page.browser, page.check
    ids = range(1, 1001)
    world = World(Draw(1, [agency(i, 10 * i) for i in ids], expected=1500, omitted=200), per_second=[500] * 120)
    mock.publish(world)
    page.load()
    check("a thousand agencies: all are shown", len(agency_rows(browser)) == 1000)
    check("a thousand agencies: how many are not listed", "200 more agencies" in (browser.text("#agencies-note") or ""),
          browser.text("#agencies-note"))
    check("a thousand agencies: how many are still expected", "300 more agencies" in (browser.text("#silent") or ""),
          browser.text("#silent"))
    browser.js("window.made = 0; new MutationObserver((all) => { made += all.length })"
               ".observe(document.getElementById('agency-rows'), {childList: true})")
    world.draws[0].agencies = [agency(i, 20 * i + 1, "agency" if i % 2 else None) for i in ids]
    mock.publish()
    check("a thousand agencies: all are updated", browser.wait_text("#agency-rows tr:last-child .count", "20,001"))
    check("a thousand agencies: no row is made, moved or removed", browser.js("return window.made") == 0,
          browser.js("return window.made"))
    check("a thousand agencies: in a list that the keyboard scrolls",
          browser.js("return document.getElementById('agencies-scroll').tabIndex") == 0
          and browser.js("return document.documentElement.scrollHeight") < 4000)
    browser.look(PHONE)
    page.fits("a thousand agencies")
    page.shot("thousand-phone-light-en")
    browser.look()
    page.walk("a thousand agencies")
    page.accessible("a thousand agencies")


def scenario_access(page, mock):
    """Who is asking, what a viewer does not see, what is not protected, and signing out and in."""
    browser, check = page.browser, page.check
    line = "tls=off: bets, winners and tokens cross the network unencrypted"
    strange = "other=1: <b>a line that no page knows</b>"
    viewer = {"role": "viewer", "token": "0123456789abcdef", "signed_in": True}
    mock.asked.clear()
    mock.publish(drawn())
    page.load()
    check("without authentication: no role, no button, no banner", [browser.text(s) for s in ("#me", "#unprotected")]
          == [None, None])
    mock.publish(World(*drawn().draws, me=viewer, unprotected=[line, strange]))
    mock.asked.clear()
    page.load()
    check("a viewer: the page says why there are no winners",
          "names or documents" in (browser.text("#results-forbidden") or ""), browser.text("#results"))
    check("a viewer: no list and no search", [browser.text(s) for s in ("#results-scroll", "#search-form")]
          == [None, None])
    check("a viewer: the page does not even ask", mock.asked == [], mock.asked)
    check("a viewer: role and button", browser.text("#role") == "Viewer" and browser.text("#sign-out") == "Sign out")
    banner = browser.text("#unprotected") or ""
    check("what is not protected is said as it is", line in banner and strange in banner, banner)
    page.clean("a viewer")
    for language, width in (("es", PHONE), ("en", DESK)):
        browser.click(f"language-{language}")
        for dark in (False, True):
            browser.look(width, dark=dark)
            page.shot(f"viewer-{width}-{'dark' if dark else 'light'}-{language}")
            page.fits(f"a viewer, {language}", width)
            page.accessible(f"a viewer, {language}, {'dark' if dark else 'light'}")
        if language == "es":
            banner = browser.text("#unprotected") or ""
            check("in Spanish: what is known is said in Spanish, the rest as it is", "no va cifrado" in banner
                  and line not in banner and strange in banner, banner)
            check("in Spanish: the role", browser.text("#role") == "Observador")
    page.walk("a viewer")
    signs_out(page, mock)
    signs_in(page, mock, viewer)


def signs_out(page, mock):
    browser, check = page.browser, page.check
    browser.click("sign-out")
    check("signing out leads to the form", browser.wait("document.getElementById('token')"))
    check("the browser says that the form is ours", mock.posted == [("/sign-out", mock.url.rstrip("/"))], mock.posted)
    for width in (PHONE, DESK):
        for dark in (False, True):
            browser.look(width, dark=dark)
            page.shot(f"sign-in-{width}-{'dark' if dark else 'light'}-en")
            page.fits("the form", width)
            page.accessible(f"the form, {width} px, {'dark' if dark else 'light'}")
    page.clean("the form")


def signs_in(page, mock, viewer):
    browser, check = page.browser, page.check
    browser.go(page.url)
    check("without a session the page leads to the form", browser.wait("document.getElementById('token')"))
    check("the field for the token has the focus", browser.js("return document.activeElement.id") == "token")
    mock.world.me = viewer
    browser.type("token", "sorteo_token")
    browser.press("Enter")
    check("the form leads to the page", browser.wait_text("#draw-heading", "Draw 2"))
    # The session ends while the page is open: the stream ends, and then there is none.
    mock.world.me = None
    mock.set_mood("nonsense")
    until(lambda: mock.listeners == 0, "the stream ends")
    mock.set_mood("talk")
    check("a page whose session has ended leads to the form", browser.wait("document.getElementById('token')"))
    browser.log()


def scenario_empty(page, mock):
    """A server that has just started, and one without any draw."""
    browser, check = page.browser, page.check
    mock.publish(World(Draw(1, [])))
    page.load()
    check("nothing yet: shown", browser.text("#agencies-note") == "No agency has sent anything yet."
          and browser.text("#refused-note") == "Nothing has been refused since the server started."
          and browser.text("#rate-text") == "No second has been measured yet.")
    page.clean("nothing yet")
    page.accessible("nothing yet")
    mock.publish(World())
    page.load()
    check("no draw: shown, and the server is shown", browser.text("#draw-failed") == "There is no draw yet."
          and browser.text("#draw") is None and browser.text("#connections-text") == "12 of 10,000",
          browser.text("#draw-failed"))
    page.clean("no draw")


SCENARIOS = {name.removeprefix("scenario_"): run for name, run in list(globals().items())
             if name.startswith("scenario_")}


def with_mock(check, browser, shots, assets, only):
    mock = Mock(assets, filling())
    page = Page(check, browser, mock.url, shots)
    page.assets = assets
    for name in only or SCENARIOS:
        print(f"-- {name}", flush=True)
        mock.asked.clear()
        SCENARIOS[name](page, mock)
    mock.die()


def with_server(check, browser, url, shots):
    """Runs the checks that any server must pass, whatever its draw does meanwhile."""
    page = Page(check, browser, url.rstrip("/") + "/", shots)
    check("the page shows a draw", page.load())
    page.headers()
    page.shows_status()
    page.lives()
    page.clean("the server's page")
    page.walk("the server's page")
    page.skips()
    page.switches_language()
    page.dark_is_dark("the server's page")
    for dark in (False, True):
        for width in (PHONE, DESK):
            browser.look(width, dark=dark)
            page.shot(f"server-{width}-{'dark' if dark else 'light'}")
            page.fits(f"{width} px, {'dark' if dark else 'light'}", width)
            page.accessible(f"{width} px, {'dark' if dark else 'light'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="URL", help="check this server's page instead of the mock's")
    parser.add_argument("--screenshots", metavar="FOLDER", type=pathlib.Path, help="write PNGs there")
    parser.add_argument("--only", metavar="NAME", help="only these scenarios: " + ", ".join(SCENARIOS))
    parser.add_argument("--assets", metavar="FOLDER", type=pathlib.Path, default=ROOT / "src" / "ops" / "page",
                        help="the page that the mock serves")
    parser.add_argument("--patience", metavar="SECONDS", type=float, default=20, help="how long to wait for the page")
    options = parser.parse_args()
    only = options.only.split(",") if options.only else None
    if set(only or ()) - set(SCENARIOS):
        parser.error("--only takes " + ", ".join(SCENARIOS))
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    check = Checks()
    with Browser(options.patience) as browser:
        if options.server:
            with_server(check, browser, options.server, options.screenshots)
        else:
            with_mock(check, browser, options.screenshots, options.assets, only)
    sys.exit(check.conclude() != 0)


if __name__ == "__main__":
    main()
