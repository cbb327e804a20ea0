"""Measures what an evaluation run takes besides the model, in time and memory, for several numbers of cases.

Each number of cases is run in a process of its own, so that the memory printed is that run's: the baselines, and a ranker that
asks a server on the loopback, which answers at once. What a case takes should not grow with their number, nor should memory,
but for the few numbers that are kept of each case to be summarised.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from llmrank.evaluation.run import RunOptions, evaluate

ITEMS, HISTORY, CANDIDATES = 5000, 10, 20
LABEL = re.compile(r"^\[(\w+)\] ", re.MULTILINE)


def main() -> None:
    """Prints one line a number of cases."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", default="1000,100000", help="numbers of cases for the baselines, with commas")
    arguments.add_argument("--model-cases", default="1000,10000", help="numbers of cases for the ranker with a server")
    options = arguments.parse_args()
    for kind, numbers in (("baselines", options.cases), ("model", options.model_cases)):
        for cases in map(int, filter(None, numbers.split(","))):
            process = multiprocessing.get_context("spawn").Process(target=run, args=(kind, cases))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"the run with {cases} cases failed")


def run(kind: str, cases: int) -> None:
    """One run, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, serving() as url:
        suite = write_suite(Path(folder), cases)
        os.environ["LLMRANK_BENCH_KEY"] = "none"
        backend = {"kind": "openai", "model": "none", "base_url": url, "api_key_env": "LLMRANK_BENCH_KEY"}
        if kind == "model":
            suite["rankers"] = {"model": {"backend": backend, "prompt": {"template": "listwise/recency"}}}
        begin = time.perf_counter()
        done = evaluate(suite, Path(folder, "run"), RunOptions(report=False))
        seconds = time.perf_counter() - begin
        rankers = (done.summary or {})["rankers"]
        if any(ranker["status"]["ok"] != cases for ranker in rankers.values()):
            raise SystemExit("not all were ranked")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        each = 1000 * seconds / (cases * len(rankers))
        print(f"{', '.join(rankers)}: {cases:,} cases, {seconds:.1f} s, {each:.2f} ms a ranking, peak memory {peak:.0f} MB")


def write_suite(folder: Path, cases: int) -> dict[str, Any]:
    """A suite with made-up titles, and its files."""
    draw = random.Random(0)  # noqa: S311  # made-up data, no secrets
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(number), "title": f"Title number {number}"}) + "\n" for number in range(ITEMS))
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as file:
        for user in range(cases):
            drawn = [str(each) for each in draw.sample(range(ITEMS), HISTORY + CANDIDATES)]
            case = {"user_id": str(user), "history": drawn[:HISTORY], "candidates": drawn[HISTORY:], "relevant": [drawn[-1]]}
            file.write(json.dumps(case) + "\n")
    with (folder / "interactions.jsonl").open("w", encoding="utf-8") as file:
        for user in range(1000):
            drawn = [str(each) for each in draw.sample(range(ITEMS), HISTORY)]
            file.write(json.dumps({"user_id": f"other {user}", "history": drawn}) + "\n")
    return {
        "items": str(folder / "items.jsonl"),
        "cases": str(folder / "cases.jsonl"),
        "interactions": str(folder / "interactions.jsonl"),
        "rankers": {"random": {"baseline": "random"}, "popularity": {"baseline": "popularity"}},
        "metrics": ["ndcg@10", "hit@1", "coverage@10", "novelty@10"],
    }


class Handler(BaseHTTPRequestHandler):
    """Answers every chat with the labels in the order shown."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """A chat completion."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        order = " > ".join(f"[{label}]" for label in LABEL.findall(body["messages"][-1]["content"]))
        usage = {"prompt_tokens": 600, "completion_tokens": 60, "total_tokens": 660}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": order}}
        self._send({"id": "1", "object": "chat.completion", "created": 1, "model": "none", "choices": [choice], "usage": usage})

    def do_GET(self) -> None:
        """The list of models."""
        self._send({"object": "list", "data": [{"id": "none", "object": "model"}]})

    def _send(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Says nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """The server, in threads of this process: what its memory adds does not grow."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


if __name__ == "__main__":
    main()
