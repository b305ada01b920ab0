"""A local HTTP server that misbehaves in a chosen way, or serves files as it should."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        with contextlib.suppress(ConnectionError):  # the client may leave at any moment
            getattr(self, f"answer_{self.server.behaviour}")()

    def start(self, length):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    @property
    def body(self):
        return self.server.files[self.path.rpartition("/")[2]]

    def answer_good(self):
        self.start(len(self.body))
        self.wfile.write(self.body)

    def answer_drops(self):
        self.start(len(self.body))
        self.wfile.write(self.body[: len(self.body) // 2])  # and the connection closes

    def answer_hangs(self):
        self.server.released.wait()

    def answer_stalls(self):
        self.start(len(self.body))
        self.wfile.write(self.body[:10])
        self.server.released.wait()

    def answer_dribbles_headers(self):
        for letter in b"HTTP/1.0 200 OK":
            self.wfile.write(bytes([letter]))
            if self.server.released.wait(0.1):
                return

    def answer_forbids(self):
        self.send_error(403)

    def answer_lacks(self):
        self.send_error(404)

    def answer_not_http(self):
        self.wfile.write(b"\x00\x01 what is this\r\n\r\n")

    def answer_wrong(self):
        page = b"<html>Please log in to the hotel network</html>"
        self.start(len(page))
        self.wfile.write(page)

    def answer_truncated(self):
        half = self.body[: len(self.body) // 2]
        self.start(len(half))
        self.wfile.write(half)

    def answer_slow(self):
        self.start(10_000_000)
        while not self.server.released.wait(0.05):
            self.wfile.write(bytes(1000))


@contextlib.contextmanager
def serve(behaviour, files):
    """Serve {file name: bytes} on loopback; yields the server, with its `url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.behaviour, server.files = behaviour, files
    server.released = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
