"""A function from request bodies to answers goes in, a real HTTP server with OpenAI's files and batches comes out.

What each batch goes through is a `Fate`, given in the order in which batches are made. ``/chat/completions`` is answered live
by the same function, so that a batch can be compared with a live run.
"""

from __future__ import annotations

import contextlib
import email
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from tests.servers.picky import completion

Answer: TypeAlias = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]
"""The HTTP status and the body that a request's body is answered with."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a batch.

    Attributes:
        refused: The status, headers and body with which its making is refused; then there is no batch.
        silent: The batch is made, and the connection broken off without a word of it.
        looks: How many times it is looked at before it ends.
        ends: Its last status.
        answered: The share of its requests that are answered by then; the others are listed as expired.
        lost: True leaves those others out of all files.
        error: The code and message with which it fails.
        extra: Lines that its output file has beside the answers.
    """

    refused: tuple[int, dict[str, str], dict[str, Any]] | None = None
    silent: bool = False
    looks: int = 1
    ends: str = "completed"
    answered: float = 1.0
    lost: bool = False
    error: tuple[str, str] | None = None
    extra: tuple[str, ...] = ()


@dataclass(slots=True)
class MadeBatch:
    """A batch that was made, and how often it was looked at."""

    document: dict[str, Any]
    fate: Fate
    looks: int = 0


def echo(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answers with an order that hangs on all that was asked, as a deterministic model does."""
    seed = json.dumps([body["messages"], body.get("temperature")], sort_keys=True)
    text = "\n".join(str(message["content"]) for message in body["messages"])
    labels = re.findall(r"^\[(\w+)\] (?!>)", text, re.MULTILINE)
    random.Random(seed).shuffle(labels)  # noqa: S311  # no secret
    return 200, completion(" > ".join(f"[{label}]" for label in labels))


@dataclass
class BatchServer:
    """Files and batches. Use `serving`.

    Attributes:
        answer: What a request is answered with.
        fates: Of the batches to be made; those after the last one go well.
        page: How many batches one page of the list has.
        made: Set when a batch has been made and, if `hold` is set, its maker is not told of it.
        calls: Method and path of every request, in order.
    """

    answer: Answer = echo
    fates: list[Fate] = field(default_factory=list)
    page: int = 2
    hold: bool = False
    made: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, MadeBatch] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    live: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def asked(self) -> list[list[dict[str, Any]]]:
        """The lines of the input file of each batch that was made, in order."""
        return [
            [json.loads(line) for line in self.files[made.document["input_file_id"]].splitlines()]
            for made in self.batches.values()
        ]

    def keep(self, content: bytes) -> dict[str, Any]:
        """Keeps a file."""
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": "in.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def make(self, body: dict[str, Any], fate: Fate) -> dict[str, Any]:
        """Makes a batch."""
        name = f"batch_{len(self.batches) + 1}"
        document = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "validating",
            "created_at": int(time.time()),
            "metadata": body.get("metadata"),
        }
        self.batches[name] = MadeBatch(document, fate)
        return document

    def look(self, name: str) -> dict[str, Any]:
        """A batch, one look further on."""
        made = self.batches[name]
        made.looks += 1
        if made.document["status"] in {"validating", "in_progress"}:
            made.document["status"] = "in_progress"
            if made.looks >= made.fate.looks:
                self._end(made)
        return made.document

    def _end(self, made: MadeBatch) -> None:
        fate = made.fate
        made.document["status"] = fate.ends
        if fate.error:
            data = [{"code": fate.error[0], "message": fate.error[1], "line": None, "param": None}]
            made.document["errors"] = {"object": "list", "data": data}
        if fate.ends == "failed":
            return
        lines = self.files[made.document["input_file_id"]].splitlines()
        good, bad = list(fate.extra), []
        for place, line in enumerate(lines):
            request = json.loads(line)
            document: dict[str, Any] = {"id": f"batch_req_{place}", "custom_id": request["custom_id"], "error": None}
            if place >= fate.answered * len(lines):
                if not fate.lost:
                    said = "This request could not be executed before the completion window expired."
                    bad.append(json.dumps({**document, "response": None, "error": {"code": "batch_expired", "message": said}}))
                continue
            status, body = self.answer(request["body"])
            document["response"] = {"status_code": status, "request_id": f"req-{place}", "body": body}
            (good if status == 200 else bad).append(json.dumps(document))
        random.Random(len(lines)).shuffle(good)  # noqa: S311  # no secret
        for kind, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                made.document[kind] = self.keep("".join(f"{line}\n" for line in found).encode())["id"]


class _Handler(BaseHTTPRequestHandler):
    state: BatchServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/v1")
        with self.state.lock:
            self.state.calls.append(("GET", path))
            if path == "/batches":
                self._send(200, self._page(parse_qs(parts.query)))
            elif path.startswith("/batches/"):
                self._send(200, self.state.look(path.removeprefix("/batches/")))
            elif path.endswith("/content"):
                self._send(200, self.state.files[path.split("/")[2]])
            else:
                self._send(404, {"error": {"message": "Not Found"}})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", "0")))
        path = urlsplit(self.path).path.removeprefix("/v1")
        state = self.state
        with state.lock:
            state.calls.append(("POST", path))
            if path == "/files":
                head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
                form = {
                    part.get_param("name", header="content-disposition"): part
                    for part in email.message_from_bytes(head + raw).walk()
                }
                self._send(200, state.keep(form["file"].get_payload(decode=True)))  # type: ignore[arg-type]  # bytes, as it is no multipart
                return
            if path == "/chat/completions":
                body = json.loads(raw)
                state.live.append(body)
                self._send(*state.answer(body))
                return
            if path != "/batches":
                self._send(404, {"error": {"message": "Not Found"}})
                return
            fate = state.fates.pop(0) if state.fates else Fate()
            if fate.refused:
                status, headers, refusal = fate.refused
                self._send(status, refusal, headers)
                return
            document = state.make(json.loads(raw), fate)
        state.made.set()
        if state.hold:
            state.release.wait(60)
        if fate.silent or state.hold:
            self.close_connection = True
            return
        self._send(200, document)

    def log_message(self, *_: object) -> None:
        """Says nothing on the terminal."""

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        newest = [made.document for made in reversed(self.state.batches.values())]
        ids = [each["id"] for each in newest]
        start = ids.index(query["after"][0]) + 1 if "after" in query else 0
        page = newest[start : start + self.state.page]
        return {"object": "list", "data": page, "has_more": start + self.state.page < len(newest)}

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"content-type": kind, "content-length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client was killed: what it misses is the test's matter
            self.wfile.write(raw)


@contextlib.contextmanager
def serving(answer: Answer = echo, *fates: Fate) -> Iterator[BatchServer]:
    """A server for the length of a ``with`` block."""
    state = BatchServer(answer, list(fates))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="batch-server", daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
