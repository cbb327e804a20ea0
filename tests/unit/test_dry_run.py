"""`llmrank rank --dry-run`: what it prints, that it asks nothing, and what it refuses; and the bill of a real run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from llmrank import cli
from llmrank.evaluation.cases import read_requests
from llmrank.forecast import money
from tests.unit.small_suite import KEY, KEY_ENV, USD, server, write_data

HOSTED = "backend: {kind: openai, model: picky-1, context_window: 4000}\n"
PRICES = '{"picky-1": {"input": 10.0, "output": 100.0}}'


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with items and cases is the working directory; no key and no prices are in the environment."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LLMRANK_PRICES", KEY_ENV):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    Path("ranker.yaml").write_text(HOSTED)
    Path("prices.json").write_text(PRICES)


def run(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The status, standard output and standard error of ``llmrank rank --items items.jsonl <arguments>``."""
    monkeypatch.setattr(sys, "argv", ["llmrank", "rank", "--items", "items.jsonl", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    return left.value.code if isinstance(left.value.code, int) else 0, out, err


def test_one_request_is_forecast_without_a_key(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, tokens, money and each assumption, for a hosted model whose key is not set; status 0."""
    status, out, err = run(
        "-c ranker.yaml --history i1 --candidates i2,i3,i4 --dry-run --prices prices.json", capsys, monkeypatch
    )
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["1 requests, forecast from 1", "1 calls"]
    assert re.search(r"^\d+ prompt tokens, \d+ answer tokens$", out, re.MULTILINE)
    assert re.search(r"^0\.00\d+ USD$", out, re.MULTILINE)
    assert "assumed: tokens are counted by" in out


def test_json_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` prints the same as numbers; a price that nobody knows is null."""
    status, out, _ = run("-c ranker.yaml --cases cases.jsonl --dry-run --json", capsys, monkeypatch)
    found = json.loads(out)
    assert status == 0
    assert (found["requests"], found["sampled"], found["calls"], found["rounds"]) == (12, 12, 12, 1.0)
    assert (found["calls_least"], found["calls_most"], found["usd"]) == (12, 12, None)
    assert found["prompt_tokens"] > 12 * 50


@pytest.mark.parametrize(
    "backend",
    [
        "{kind: local}",
        "{kind: vllm, base_url: 'http://127.0.0.1:9/v1', model: m}",
        "{kind: vllm-inprocess, model: nobody/nothing}",
        "{kind: replay, path: answers.jsonl, record: {kind: openai, model: gpt-4.1-mini}}",
    ],
)
def test_no_backend_is_reached_or_loaded(
    backend: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights, no server, no package of an engine; a recording records nothing."""
    Path("other.yaml").write_text(f"backend: {backend}\n")
    monkeypatch.setenv("LLMRANK_CACHE", "nowhere")
    status, out, err = run("-c other.yaml --cases cases.jsonl --dry-run", capsys, monkeypatch)
    assert (status, err) == (0, "")
    assert "12 calls" in out
    assert not Path("answers.jsonl").exists()
    assert not Path("nowhere").exists()


def test_a_whole_catalogue_is_cut_to_what_the_prefilter_keeps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates that are left out are the catalogue; the prefilter's embedding server is not asked, nor its key looked for."""
    Path("filtered.yaml").write_text(
        f"{HOSTED}prefilter: {{keep: 5, embedder: {{kind: openai, model: e}}}}\n"
        "strategy: {kind: listwise, window: 2, step: 1}\n"
    )
    status, out, _ = run("-c filtered.yaml --history i1 --dry-run", capsys, monkeypatch)
    assert status == 0
    assert "4 calls, in 4 steps" in out
    assert "the prefilter keeps the first 5 candidates" in out


def test_shards_are_forecast_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of Parquet files gives what the same cases give as JSONL."""
    pytest.importorskip("pyarrow")
    from llmrank.scale.split import split_requests

    split_requests(read_requests("cases.jsonl"), Path("shards"), 5)
    _, lines, _ = run("-c ranker.yaml --cases cases.jsonl --dry-run --json", capsys, monkeypatch)
    status, out, _ = run("-c ranker.yaml --cases shards --dry-run --json", capsys, monkeypatch)
    assert status == 0
    assert json.loads(out) == json.loads(lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--cases cases.jsonl --out x.jsonl", "--out: a dry run ranks nothing"),
        ("--cases cases.jsonl --out x --engine local", "--engine: "),
        ("--cases cases.jsonl --retry-errors", "--retry-errors: "),
        ("--candidates i2,i3 --show-prompt", "--show-prompt: a dry run ranks nothing; leave it out"),
        ("--candidates i2,nothing", "candidates[1]: not in the catalogue"),
        ("--cases empty.jsonl", "--cases"),
        ("--cases empty", "holds no Parquet file"),
        ("--candidates i2,i3 --prices nowhere.yaml", "prices"),
    ],
)
def test_what_a_dry_run_cannot_do_is_refused(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line on stderr that names the option, nothing on stdout, status 2."""
    Path("empty.jsonl").touch()
    Path("empty").mkdir()
    status, out, err = run(f"-c ranker.yaml --dry-run {arguments}", capsys, monkeypatch)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_mistake_in_the_configuration_is_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped option of the backend is refused as in a run, though no backend is built."""
    Path("typo.yaml").write_text("backend: {kind: openai, modle: m}\n")
    status, _, err = run("-c typo.yaml --candidates i2,i3 --dry-run", capsys, monkeypatch)
    assert status == 2
    assert "did you mean 'model'" in err


def test_a_run_says_what_it_cost(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One ranking and a file of cases end with calls, tokens and USD, to be compared with the forecast."""
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("COLUMNS", "200")
    with server() as running:
        Path("real.yaml").write_text(
            f"backend: {{kind: openai, model: picky-1, base_url: '{running.url}', api_key_env: {KEY_ENV}}}\n"
        )
        status, out, _ = run("-c real.yaml --history i1 --candidates i2,i3,i4 --prices prices.json", capsys, monkeypatch)
        assert status == 0
        assert "1 calls, 0 cached; 110 prompt + 20 answer tokens" in out
        assert f"; {money(USD)} USD" in out
        status, _, err = run("-c real.yaml --cases cases.jsonl --prices prices.json", capsys, monkeypatch)
        assert status == 0
        assert f"12 calls, 0 cached; 1,320 prompt + 240 answer tokens; {money(12 * USD)} USD" in err
        _, out, _ = run("-c real.yaml --history i1 --candidates i2,i3,i4", capsys, monkeypatch)
        assert "USD" not in out
