"""Servers that misbehave."""

import socket

PATIENCE_S = 180


class SilentServer:
    """Accepts connections and requests, and never answers."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"

    def wait_for_request(self, start=b""):
        """Waits for a request that begins so. Returns its connection, which is to be kept open."""
        while True:
            connection, _ = self._listener.accept()
            connection.settimeout(PATIENCE_S)
            if connection.recv(1000).startswith(start):
                return connection

    def waiting(self):
        """Whether a further connection is there."""
        self._listener.settimeout(0)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._listener.close()
