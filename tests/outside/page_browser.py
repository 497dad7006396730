"""A headless Chromium, driven over WebDriver, for the test of the page.

WebDriver is JSON over HTTP, and the test needs so little of it that no client library is used. Chromium, its driver
and axe-core, which checks accessibility, are installed where they are missing.
"""

import base64
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from outside import file_of_wheel

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVERS = ("chromedriver",)
PACKAGES = ("chromium", "chromium-driver", "fonts-liberation", "python3-pip")
# The wheel contains axe-core 4.12.1 as one file; nothing else in it is used.
AXE_PACKAGE = "axe-playwright-python==0.1.8"
AXE_FILE = "axe_playwright_python/axe.min.js"
AXE_SHA256 = "84494fec757e4710dc751c8d7a636e457f4532f08f85c86dc9070133fbff53bc"
START_S = 60
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": "\ue00d", "Down": "\ue015"}

# Runs before the page's own code, in each document.
WITNESS = """
  window.violations = [];
  addEventListener('securitypolicyviolation', (event) => violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def find(names):
    return next((path for path in map(shutil.which, names) if path), None)


def install():
    """Installs what is missing, in the same way as .ci/run."""
    if find(BROWSERS) and find(DRIVERS) and importlib.util.find_spec("pip"):
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
    subprocess.run([*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], check=True,
                   stdout=subprocess.DEVNULL)


def axe_source():
    """axe-core's script."""
    return file_of_wheel(AXE_PACKAGE, AXE_FILE, AXE_SHA256).read_text(encoding="utf-8")


class Browser:
    """One window of one browser. A context manager, which ends both the browser and its driver."""

    def __init__(self, patience_s=20):
        self.patience_s = patience_s

    def __enter__(self):
        install()
        self.axe = axe_source()
        self.profile = tempfile.mkdtemp(prefix="sorteo-page-")
        self.driver_log = pathlib.Path(self.profile, "driver.log")
        with open(self.driver_log, "w", encoding="utf-8") as out:
            self.driver = subprocess.Popen([find(DRIVERS), "--port=0"], stdout=out, stderr=out)
        try:
            self.base = f"http://127.0.0.1:{self.driver_port()}"
            self.base += "/session/" + self.open_session()
            self.cdp("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)
            # Not UTC, which would hide a forgotten time zone.
            self.cdp("Emulation.setTimezoneOverride", timezoneId="America/Argentina/Buenos_Aires")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            if "/session/" in getattr(self, "base", ""):
                self.request("DELETE", "")
        except (OSError, RuntimeError):
            pass
        self.driver.terminate()
        self.driver.wait(timeout=START_S)
        shutil.rmtree(self.profile, ignore_errors=True)

    def driver_port(self):
        """The port that the driver chose, from its log."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.driver.poll() is None:
            if found := re.search(r"started successfully on port (\d+)", self.driver_log.read_text(encoding="utf-8")):
                return int(found[1])
            time.sleep(0.02)
        sys.exit("chromedriver did not start: " + self.driver_log.read_text(encoding="utf-8"))

    def open_session(self):
        # --no-sandbox: neither root nor a container has one, and the page is our own.
        options = {"binary": find(BROWSERS), "args": [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
            "--force-color-profile=srgb", "--no-first-run", f"--user-data-dir={self.profile}"]}
        answer = self.request("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}, "timeouts": {"script": 60000}}}})
        return answer["sessionId"]

    def request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def cdp(self, command, **params):
        return self.request("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    # ── Actions of a user ──

    def go(self, url):
        """Loads a page from its beginning, even if only the part behind # differs."""
        self.request("POST", "/url", {"url": "about:blank"})
        self.request("POST", "/url", {"url": url})

    def js(self, script, *args):
        return self.request("POST", "/execute/sync", {"script": script, "args": list(args)})

    def press(self, *keys):
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.request("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, element_id):
        self.request("POST", f"/element/{self.element(element_id)}/click", {})

    def type(self, element_id, text):
        """Replaces the text of a field."""
        element = self.element(element_id)
        self.js("arguments[0].select()", {ELEMENT: element})
        self.request("POST", f"/element/{element}/value", {"text": text or "\ue003"})

    def element(self, element_id):
        return self.request("POST", "/element", {"using": "css selector", "value": "#" + element_id})[ELEMENT]

    # ── What a user sees ──

    def text(self, selector):
        """The visible text of an element; None if it is hidden or missing."""
        return self.js("const e = document.querySelector(arguments[0]);"
                       "return e && e.checkVisibility({visibilityProperty: true}) ? e.innerText.trim() : null", selector)

    def wait(self, script, *args, deadline_s=None):
        """Waits until a script returns true; returns whether it did before the deadline."""
        deadline = time.monotonic() + (deadline_s or self.patience_s)
        while not self.js(f"return Boolean({script})", *args):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.03)
        return True

    def wait_text(self, selector, part):
        # Hidden elements have an innerText too.
        seen = """[...document.querySelectorAll(arguments[0])].some(
          (e) => e.checkVisibility() && e.innerText.includes(arguments[1]))"""
        return self.wait(seen, selector, part)

    # ── The window ──

    def look(self, width=1280, height=900, dark=False, media=""):
        # Without media the browser chooses by itself; "screen" would apply to printing too.
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", media=media, features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def speak(self, languages):
        """Sets the languages that the browser asks for, from the next page on."""
        agent = self.cdp("Browser.getVersion")["userAgent"]
        self.cdp("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=languages)

    def screenshot(self, path, whole=True):
        """Writes a PNG of the window, or of the page in its whole length."""
        options = {"format": "png"}
        if whole:
            size = self.js("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
            options |= {"captureBeyondViewport": True,
                        "clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}}
        pathlib.Path(path).write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", **options)["data"]))

    def pdf(self):
        return base64.b64decode(self.cdp("Page.printToPDF", preferCSSPageSize=True)["data"])

    # ── Errors ──

    def log(self):
        """The warnings and errors in the console since the last call."""
        entries = self.request("POST", "/se/log", {"type": "browser"})
        return [(entry["source"], entry["message"]) for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def violations(self):
        return self.js("return window.violations")

    def accessibility(self):
        """The serious and critical findings of axe-core, each a line with its rule and elements."""
        if not self.js("return Boolean(window.axe)"):
            self.js(self.axe)
        found = self.request("POST", "/execute/async", {"args": [], "script": """
            const done = arguments[0];
            axe.run(document, {resultTypes: ['violations']}).then(
              (result) => done(result.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
                .map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target + ' ' + (n.any[0]?.message ?? '')).join('; ')}`)),
              (error) => done([`axe failed: ${error}`]))"""})
        return found
