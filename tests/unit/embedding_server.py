"""A loopback server of `/v1/embeddings`, that remembers what it was asked, and with which key."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.unit.bag_embedder import BagEmbedder

BAG = BagEmbedder(dimension=16)

Answer = tuple[int, Any, dict[str, str]]
Rule = Callable[[dict[str, Any], int], Answer | None]


class Server:
    """A server of /v1/embeddings. `rule` may answer instead of it: (status, body, headers); None lets it answer rightly."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.rule: Rule = lambda body, number: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.keys.append(self.headers["Authorization"])
                status, answer, headers = outer.rule(body, len(outer.requests)) or (200, right(body), {})
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def right(body: dict[str, Any]) -> dict[str, Any]:
    """What a server answers: base64 if asked for it, here in another order than asked, with vectors of any length."""
    dimension = body.get("dimensions", 16)
    data = []
    for index, text in enumerate(body["input"]):
        vector = (BAG.embed([text])[0] * (index + 2))[:dimension]
        encoded = base64.b64encode(vector.tobytes()).decode() if body.get("encoding_format") == "base64" else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": encoded})
    return {"object": "list", "data": data[::-1], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
