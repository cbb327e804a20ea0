"""Evaluation runs whose prompts are answered by the files of a batch API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmrank.errors import ConfigError
from llmrank.evaluation.run import RunOptions, evaluate
from tests.servers.batch import serving
from tests.servers.picky import Request
from tests.unit.small_suite import USD, answer, server, suite, write_data

pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files."""
    write_data(tmp_path / "data")
    return tmp_path / "data"


def backwards(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the live server of the small suite answers."""
    reply = answer(Request("POST", "/v1/chat/completions", {}, body))
    assert reply is not None
    assert isinstance(reply.body, dict)
    return 200, reply.body


def batch(**others: Any) -> RunOptions:
    """The engine, in a hurry."""
    return RunOptions(engine="openai-batch", poll_s=0.01, report=False, **others)


def half_price(folder: Path, url: str) -> dict[str, Any]:
    """The small suite, with windows and with a price for batches."""
    asked = suite(folder, url, prices={"picky-1": {"input": 10.0, "output": 100.0, "batch": 0.5}})
    asked["rankers"]["model"]["strategy"] |= {"window": 4, "step": 2}
    return asked


def essence(records: Any) -> list[tuple[Any, ...]]:
    """What must be the same however prompts are asked."""
    return [
        (each["case"], each["user_id"], each["status"], [item["id"] for item in each["items"]], each["usage"]["prompt_tokens"])
        for each in records
    ]


def test_a_batch_gives_what_asking_gives_at_its_own_price(tmp_path: Path, data: Path) -> None:
    """The same orders as a live run, wave after wave; calls are counted alike, money at the batch's price."""
    with server() as live:
        asked = evaluate(half_price(data, live.url), tmp_path / "live", RunOptions(report=False))
        calls = len(live.bodies)
    with serving(backwards) as files:
        done = evaluate(half_price(data, files.url), tmp_path / "batch", batch())
    assert done.stopped is None
    assert calls == 24
    assert essence(done.folder.results("model")) == essence(asked.folder.results("model"))
    assert sum(map(len, files.asked)) == calls
    assert done.usd == pytest.approx(0.5 * calls * USD)
    assert done.summary is not None
    assert done.summary["rankers"]["model"]["usage"]["usd"] == pytest.approx(0.5 * calls * USD)
    assert done.summary["rankers"]["model"]["usage"]["calls"] == calls
    assert done.forecasts["model"].calls == calls


def test_files_that_others_answer(tmp_path: Path, data: Path) -> None:
    """With `via: files` the run stops and names the file; answered, the same run goes on to the end."""
    asked = suite(data, "http://127.0.0.1:9/v1")
    done = evaluate(asked, tmp_path / "run", batch(via="files"))
    assert done.stopped is not None
    assert done.summary is not None
    assert done.summary["rankers"]["popularity"]["cases"] == 12
    (waiting,) = (tmp_path / "run" / "batch" / "model").rglob("in-*.jsonl")
    assert str(waiting) in done.stopped
    lines = []
    for line in waiting.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        status, body = backwards(request["body"])
        response = {"status_code": status, "request_id": "r", "body": body}
        lines.append(json.dumps({"id": "b", "custom_id": request["custom_id"], "response": response, "error": None}))
    (waiting.parent / waiting.name.replace("in-", "out-")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    again = evaluate(asked, tmp_path / "run", batch(via="files"))
    assert again.stopped is None
    assert again.summary is not None
    assert again.summary["rankers"]["model"]["status"]["ok"] == 12


def test_a_batch_above_the_budget_is_refused(tmp_path: Path, data: Path) -> None:
    """Files are submitted whole, so a budget that the forecast exceeds is refused before anything is."""
    with serving(backwards) as files:
        with pytest.raises(ConfigError, match="budget_usd: is less than"):
            evaluate(half_price(data, files.url), tmp_path / "run", batch(budget_usd=1e-6))
        assert not files.asked
