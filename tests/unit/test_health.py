"""Whether a worker is ready is asked of the worker, whatever proxy the user has."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from ecosystem.clients.health import is_ready


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_proxy_of_the_user_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert is_ready(f"http://127.0.0.1:{server.server_port}")


def test_nobody_there_is_not_ready():
    assert not is_ready("http://127.0.0.1:9")
