"""A mock of the operators' HTTP, whose draws are set by the page's test.

It answers with the same headers as the program, above all the Content-Security-Policy. The test sets `Mock.world`
and calls `publish`; it can also make the server die, fall silent, or answer nonsense.
"""

import http.server
import json
import pathlib
import socketserver
import threading
import time
import urllib.parse

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                               "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
ASSETS = {"/": ("index.html", "text/html; charset=utf-8"), "/page.css": ("page.css", "text/css; charset=utf-8"),
          "/page.js": ("page.js", "text/javascript; charset=utf-8"), "/icon.svg": ("icon.svg", "image/svg+xml")}
PAGE_OF_WINNERS = 500
OPENED, DRAWN = "2026-11-22T07:00:01.000Z", "2026-11-22T09:30:00.000Z"


def agency(number, bets, done=None, at="2026-11-22T07:05:00.000Z", winners=0):
    """An agency; `done` is who closed it, or None."""
    return {"agency": number, "bets": bets, "batches": -(-bets // 99), "done": done is not None, "done_by": done,
            "done_at": at if done else None, "winners": winners}


def winner(number_of_agency, document, first="Ana", last="Paz", born="1990-01-31"):
    return {"agency": number_of_agency, "document": str(document), "first_name": first, "last_name": last,
            "birthdate": born, "number": 7574}


class Draw:
    """A draw with its agencies and, once it is drawn, its winners."""

    def __init__(self, number, agencies, winners=None, expected=None, omitted=0, expected_set=None):
        self.number, self.agencies, self.winners, self.omitted = number, agencies, winners, omitted
        self.expected_set = expected_set
        self.inferred, self.expected = expected is None, expected or max((a["agency"] for a in agencies), default=0)
        for one in agencies if winners is not None else []:
            one["winners"] = sum(w["agency"] == one["agency"] for w in winners)

    @property
    def drawn(self):
        return self.winners is not None

    def brief(self):
        return {"id": self.number, "state": "drawn" if self.drawn else "open",
                "bets": sum(a["bets"] for a in self.agencies), "winners": len(self.winners or []),
                "opened_at": OPENED, "drawn_at": DRAWN if self.drawn else None}

    def whole(self):
        draw = {**self.brief(), "winning_number": 7574, "expected": self.expected,
                "expected_set": self.expected_set, "expected_inferred": self.inferred,
                "done": sum(a["done"] for a in self.agencies)}
        return {"draw": draw, "agencies": self.agencies, "agencies_omitted": self.omitted}


class World:
    """Everything that the mock reports: the draws, oldest first, and the state of the server."""

    def __init__(self, *draws, **rest):
        self.draws = list(draws)
        self.per_second, self.refused = [], []
        self.connections = {"open": 12, "limit": 10000, "refused": 0}
        self.queue = {"waiting": 0, "limit": 1024}
        self.ready, self.parts = True, []
        self.unprotected = []
        # Who the page is taken for; None is nobody, who must sign in.
        self.me = {"role": "operator", "token": None, "signed_in": False}
        self.__dict__.update(rest)

    def status(self):
        newest = self.draws[-1].whole() if self.draws else {"draw": None, "agencies": [], "agencies_omitted": 0}
        return {"version": "0.1.0", "started_at": "2026-11-22T07:00:00.000Z", "now": "2026-11-22T07:10:00.000Z",
                **newest, "bets_per_second": self.per_second, "refused": self.refused,
                "connections": self.connections, "queue": self.queue, "ready": self.ready,
                "draws": [draw.brief() for draw in reversed(self.draws)], "unprotected": self.unprotected}

    def draw(self, number):
        return next((draw for draw in self.draws if draw.number == number), None)


class Mock:
    """Serves the page in a folder, and a world, on a free port of this machine."""

    def __init__(self, assets, world):
        self.assets, self.world = pathlib.Path(assets), world
        self.changed = threading.Condition()
        self.version = 0
        # For the tests: the requests for results, and how many connections listen to events.
        self.asked, self.listeners = [], 0
        # The paths of forms, and the origin that the browser named with each.
        self.posted = []
        # Streams are numbered as they open; those up to this number stay open and send no events.
        self.opened, self.deaf_until = 0, 0
        # "talk"; "silent": the stream is open but has no events; "nonsense": an error of a proxy.
        self.mood = "talk"
        # Requests for results fail while this is set.
        self.results_fail = False
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        """Listens, on the same port as before if there was one."""
        self.alive = True
        self.server = Server(("127.0.0.1", self.port), handler_of(self))
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def die(self):
        """Accepts no more connections, and ends the open streams."""
        self.server.shutdown()
        self.server.server_close()
        with self.changed:
            self.alive = False
            self.changed.notify_all()

    def publish(self, world=None):
        """Sends the world to all streams at once."""
        with self.changed:
            self.world = world or self.world
            self.version += 1
            self.changed.notify_all()

    def set_mood(self, mood):
        """Sets the mood; "nonsense" also ends the open streams."""
        with self.changed:
            self.mood = mood
            self.changed.notify_all()

    def stream(self, write):
        """Writes the events of one connection: one at once, then one a second and one for each change."""
        with self.changed:
            self.listeners, self.opened = self.listeners + 1, self.opened + 1
            place = self.opened
        try:
            while self.alive and self.mood != "nonsense":
                with self.changed:
                    version, mood, status = self.version, self.mood, self.world.status()
                if place <= self.deaf_until:
                    # A comment is no event, but writing it notices that the peer has closed the stream.
                    write(b":\n")
                elif mood == "talk":
                    write(b"event: status\nretry: 2000\ndata: " + json.dumps(status).encode() + b"\n\n")
                with self.changed:
                    self.changed.wait_for(lambda: not self.alive or self.mood != mood or self.version != version, 1)
        finally:
            with self.changed:
                self.listeners -= 1

    def results(self, number, query):
        """The HTTP status, and a page of winners or an error."""
        self.asked.append(query)
        draw = self.world.draw(number)
        if self.results_fail:
            return 503, {"error": "the database is busy <b>now</b>"}
        if draw is None or not draw.drawn:
            return 409, {"error": f"draw {number} is open"}
        wanted, search = query.get("agency"), query.get("search", "").lower()
        found = [w for w in draw.winners if (wanted is None or w["agency"] == int(wanted))
                 and any(search in w[key].lower() for key in ("document", "first_name", "last_name"))]
        start = int(query.get("after", "0"))
        end = start + PAGE_OF_WINNERS
        return 200, {"draw": number, "total": len(found), "winners": found[start:end],
                     "next": str(end) if end < len(found) else None}


def sign_in_page(assets, headers):
    """The form as the program fills it in."""
    spanish = (headers["Accept-Language"] or "").startswith("es")
    texts = {"language": "es" if spanish else "en", "heading": "Iniciar sesión" if spanish else "Sign in",
             "label": "Token", "hint": "An operator's token, as <code>sorteo token add --role</code> prints it.",
             "button": "Iniciar sesión" if spanish else "Sign in", "hidden": "", "failed": "The token is not valid."}
    page = (assets / "sign-in.html").read_text(encoding="utf-8")
    for name, text in texts.items():
        page = page.replace("{{%s}}" % name, text)
    return page.encode()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


def handler_of(mock):
    class Handler(http.server.BaseHTTPRequestHandler):
        # One request for each connection, so that a server that dies leaves none open.
        protocol_version = "HTTP/1.0"

        def log_message(self, *_):
            pass

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            try:
                self.answer(url.path, query)
            except (BrokenPipeError, ConnectionResetError):
                pass

        def answer(self, path, query):
            if path == "/sign-in":
                return self.send(200, "text/html; charset=utf-8", sign_in_page(mock.assets, self.headers))
            if mock.world.me is None and path == "/":
                return self.redirect("sign-in")
            if mock.world.me is None and path.startswith("/api/"):
                return self.json(401, {"error": "sign in"})
            if path == "/api/me":
                return self.json(200, mock.world.me)
            if path in ASSETS:
                name, kind = ASSETS[path]
                return self.send(200, kind, (mock.assets / name).read_bytes())
            if path == "/api/events":
                return self.events()
            if path == "/api/status":
                return self.json(200, mock.world.status())
            if path == "/readyz":
                return self.json(200 if mock.world.ready else 503,
                                 {"ready": mock.world.ready, "parts": mock.world.parts})
            match path.strip("/").split("/"):
                case ["api", "draws", number]:
                    draw = mock.world.draw(int(number))
                    return self.json(200, draw.whole()) if draw else self.json(
                        404, {"error": f"there is no draw {number}"})
                case ["api", "draws", number, "results"]:
                    return self.json(*mock.results(int(number), query))
            return self.json(404, {"error": "there is nothing here"})

        def do_POST(self):
            mock.posted.append((self.path, self.headers["Origin"]))
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.path == "/sign-out":
                mock.world.me = None
            self.redirect("sign-in" if self.path == "/sign-out" else "./")

        def redirect(self, path):
            self.send_response(303)
            self.send_header("Location", path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def events(self):
            if mock.mood == "nonsense":
                return self.send(502, "text/plain", b"a proxy without a server behind it")
            self.head(200, "text/event-stream")

            def write(data):
                self.wfile.write(data)
                self.wfile.flush()
            mock.stream(write)

        def json(self, code, value):
            self.send(code, "application/json", json.dumps(value).encode())

        def send(self, code, kind, body):
            self.head(code, kind, len(body))
            self.wfile.write(body)

        def head(self, code, kind, length=None):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Cache-Control", "no-store")
            for name, value in HEADERS.items():
                self.send_header(name, value)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

    return Handler


def until(condition, what, deadline_s=20):
    """Waits for a condition; returns whether it held before the deadline."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            print(f"        did not happen: {what}")
            return False
        time.sleep(0.03)
    return True
