"""The embedder that asks a server: a loopback server answers, late, wrongly or not at all, as real ones do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank.errors import (
    AuthenticationError,
    BackendError,
    BadRequestError,
    ConfigError,
    DeadlineError,
    RateLimitError,
    ServerError,
    SetupError,
    UnreachableError,
)
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.openai import OpenAIEmbedder, OpenAIEmbedderOptions
from llmrank.retrieval.store import VectorStore
from tests.unit.embedding_server import BAG, Answer, Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port."""
    running = Server()
    yield running
    running.close()


@pytest.fixture
def embedder(server: Server) -> Iterator[OpenAIEmbedder]:
    """An embedder that asks it, three texts a request, without long waits."""
    made = OpenAIEmbedder(options(server))
    yield made
    made.close()
    made.close()


def options(server: Server, **more: Any) -> OpenAIEmbedderOptions:
    """Options for a test."""
    base: dict[str, Any] = {"batch_size": 3, "initial_wait_s": 0.001, "max_attempts": 3, "deadline_s": 5.0, "timeout_s": 5.0}
    return OpenAIEmbedderOptions(model="m", base_url=server.url, **{**base, **more})


def test_texts_come_back_in_order_in_batches(server: Server, embedder: OpenAIEmbedder) -> None:
    """Unit vectors in the order asked, whatever the order answered; empty texts are zeros and never sent."""
    texts = ["alien", "", "heat crime", "toy story", " ", "up", "heat"]
    vectors = embedder.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(BAG.embed(texts), abs=1e-6)
    assert sorted(map(len, (request["input"] for request in server.requests))) == [2, 3]
    assert embedder.dimension == 16
    assert embedder.embed([]).shape == (0, 16)
    assert embedder.embed([""]).tolist() == [[0.0] * 16]
    assert len(server.requests) == 2


def test_the_dimension_is_asked_for_once(server: Server, embedder: OpenAIEmbedder) -> None:
    """Before any answer the server is asked; with `dimensions` it is known, and sent."""
    assert (embedder.dimension, embedder.dimension, len(server.requests)) == (16, 16, 1)
    short = OpenAIEmbedder(options(server, dimensions=4, extra_body={"input_type": "passage"}))
    assert (short.dimension, len(server.requests)) == (4, 1)
    assert short.embed(["alien heat up"]).shape == (1, 4)
    assert server.requests[-1]["dimensions"] == 4
    assert server.requests[-1]["input_type"] == "passage"
    short.close()


def test_what_may_pass_is_tried_again(server: Server, embedder: OpenAIEmbedder) -> None:
    """429, 5xx: by our own retries, not by the SDK's beside them."""
    server.rule = lambda body, number: (
        [(429, {"error": {"message": "slow"}}, {"Retry-After": "0"}), (500, b"oops", {})][number - 1] if number < 3 else None
    )
    assert embedder.embed(["alien"]) == pytest.approx(BAG.embed(["alien"]), abs=1e-6)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error", "calls"),
    [
        ((429, {"error": {"message": "slow"}}, {"Retry-After": "0"}), RateLimitError, 3),
        ((503, b"<html>", {}), ServerError, 3),
        ((429, {"error": {"message": "slow"}}, {"Retry-After": "60"}), DeadlineError, 1),
        ((401, {"error": {"message": "bad key"}}, {}), AuthenticationError, 1),
        ((400, {"error": {"message": "no such thing"}}, {}), BadRequestError, 1),
        ((200, b"<html>", {"Content-Type": "text/html"}), ServerError, 3),
        ((200, b"{", {}), ServerError, 3),
        ((200, {"data": []}, {}), ServerError, 3),
        ((200, {"error": "overloaded"}, {}), ServerError, 3),
        ((200, {"data": [{"index": 0, "embedding": [1.0, None]}]}, {}), ServerError, 3),
        ((200, {"data": [{"index": 0, "embedding": [float("nan")]}]}, {}), ServerError, 3),
        ((200, {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]}, {}), ServerError, 3),
    ],
)
def test_failures_are_errors_of_ours(
    server: Server, embedder: OpenAIEmbedder, answer: Answer, error: type[Exception], calls: int
) -> None:
    """Each is tried as often as its class says, and never taken for vectors."""
    server.rule = lambda body, number: answer
    with pytest.raises(error):
        embedder.embed(["alien"])
    assert len(server.requests) == calls


def test_a_change_of_dimension_is_refused(server: Server, embedder: OpenAIEmbedder) -> None:
    """A server that was restarted with another model must not fill up the same table."""
    embedder.embed(["alien"])
    server.rule = lambda body, number: (200, {"data": [{"index": 0, "embedding": [1.0, 0.0]}]}, {})
    with pytest.raises(ServerError, match="2 numbers instead of 16"):
        embedder.embed(["heat"])


def test_closing_ends_a_wait_and_asks_nothing_more(server: Server) -> None:
    """A thread that waits to ask again ends at once, with an error; so does whoever asks afterwards."""
    server.rule = lambda body, number: (429, {"error": {"message": "slow"}}, {"Retry-After": "60"})
    embedder = OpenAIEmbedder(options(server, deadline_s=600.0))
    raised: list[BackendError] = []

    def work() -> None:
        try:
            embedder.embed(["alien"])
        except BackendError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not server.requests:
        thread.join(0.01)
    embedder.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in str(raised[0])
    with pytest.raises(BackendError, match="closed"):
        embedder.embed(["heat"])
    assert len(server.requests) == 1


def test_half_a_surrogate_pair_is_sent_as_a_sign(server: Server, embedder: OpenAIEmbedder) -> None:
    """UTF-8 cannot hold it, so U+FFFD goes out in its place."""
    embedder.embed(["broken \ud83d"])
    assert server.requests[0]["input"] == ["broken \ufffd"]


def test_after_a_failure_the_other_batches_are_not_paid_for(server: Server) -> None:
    """Of 30 batches only those under way when the first fails are sent."""
    server.rule = lambda body, number: (401, {"error": {"message": "bad key"}}, {})
    embedder = OpenAIEmbedder(options(server, batch_size=1, max_concurrency=2))
    with pytest.raises(AuthenticationError):
        embedder.embed([f"text {number}" for number in range(30)])
    assert len(server.requests) < 30
    embedder.close()


def test_no_server_is_named_by_its_address() -> None:
    """Host and port, and nothing is waited for long."""
    embedder = OpenAIEmbedder(OpenAIEmbedderOptions("m", "http://127.0.0.1:9/v1", max_attempts=2, initial_wait_s=0.001))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        embedder.embed(["alien"])
    embedder.close()


def test_the_key_is_sent_and_never_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the variable named; not in the model's name, the repr, or an error that repeats it."""
    monkeypatch.setenv("MY_KEY", "sk-secret-1234567890")
    server.rule = lambda body, number: (401, {"error": {"message": "Incorrect API key: sk-secret-1234567890"}}, {})
    embedder = OpenAIEmbedder(options(server, api_key_env="MY_KEY"))
    with pytest.raises(AuthenticationError) as caught:
        embedder.embed(["alien"])
    assert server.keys == ["Bearer sk-secret-1234567890"]
    assert "secret" not in f"{caught.value} {embedder!r} {embedder.model}"
    embedder.close()


def test_a_missing_key_and_bad_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked: one line with the remedy."""
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(SetupError, match=r"no API key for api\.example\.com: set the environment variable NO_KEY"):
        OpenAIEmbedder(OpenAIEmbedderOptions("m", "https://api.example.com/v1", api_key_env="NO_KEY"))
    with pytest.raises(ConfigError, match="not an http"):
        OpenAIEmbedder(OpenAIEmbedderOptions("m", "localhost:8000"))
    with pytest.raises(ConfigError, match=r"prefilter\.embedder\.batch_size: must be positive"):
        OpenAIEmbedderOptions("m", batch_size=0)
    with pytest.raises(ConfigError, match=r"prefilter\.embedder\.model: must name a model"):
        OpenAIEmbedderOptions("")


def test_servers_and_settings_are_kept_apart_on_disk(server: Server, tmp_path: Path) -> None:
    """The model's name tells server, length and extra fields; credentials in a URL are no part of it."""
    made = [
        OpenAIEmbedder(options(server)),
        OpenAIEmbedder(options(server, dimensions=4)),
        OpenAIEmbedder(options(server, extra_body={"a": 1})),
        OpenAIEmbedder(OpenAIEmbedderOptions("m", "http://user:hidden@127.0.0.1:9/v1")),
    ]
    names = {embedder.model for embedder in made}
    assert len(names) == 4
    assert "hidden" not in " ".join(names)
    cached = CachedEmbedder(made[0], VectorStore(tmp_path, made[0].model))
    first = cached.embed(["alien", "heat"])
    for embedder in made:
        embedder.close()
    closed = CachedEmbedder(made[0], VectorStore(tmp_path, made[0].model))
    assert np.array_equal(closed.embed(["heat", "alien"]), first[::-1])
    assert len(server.requests) == 1
