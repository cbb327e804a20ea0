"""How long a ranking took that failed: as long as it was waited for, in records, summaries, tables and guardrails."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from llmrank import Catalog, Item, Limits, Ranker
from llmrank.errors import BackendError, RequestError, UnreachableError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.evaluation.measures.totals import Counts
from llmrank.evaluation.records import full_record, latency_of, usage_record
from llmrank.evaluation.running.session import RunOptions
from llmrank.experiment import analyse, run_experiment
from llmrank.experiment.guarding import guardrails
from llmrank.experiment.measured import measured
from llmrank.experiment.showing import costs
from llmrank.protocols import ModelInfo
from llmrank.strategies.listwise import Listwise
from llmrank.types import Exchange, Prompt, Ranking, RankRequest, Usage
from llmrank.writer import PromptOptions, PromptWriter
from tests.servers.picky import Reply, Request
from tests.unit.scripted import ScriptedBackend
from tests.unit.small_experiment import asks, experiment, forwards_for, variant
from tests.unit.small_suite import KEY, KEY_ENV, server, write_data

CATALOG = Catalog([Item(each, f"Title {each}") for each in "123"])
DEADLINE = 2.0  # the first request on a busy machine takes a second


def test_a_failure_took_as_long_as_was_waited() -> None:
    """What was asked has a latency, also 0 as in a batch; what could not be asked has none."""
    asked = Ranking((), status="error", error=BackendError("no"), trace=(Exchange(Prompt(), BackendError("no")),))
    assert latency_of(asked) == 0.0
    waited = Ranking((), status="error", error=BackendError("no"), latency=2.5)
    assert full_record(waited, trace=False)["latency"] == 2.5
    mistake = Ranking((), status="error", error=RequestError("no candidates"))
    assert full_record(mistake, trace=False)["latency"] is None
    assert latency_of(Ranking((), latency=0.0)) == 0.0


def test_a_server_that_does_not_tell_its_window_was_waited_for() -> None:
    """The question about the model is the first one: a server that is gone fails there, after all attempts."""

    class Gone(ScriptedBackend):
        async def info(self) -> ModelInfo:
            raise UnreachableError("no connection")

    limits = Limits(max_attempts=2, initial_wait_s=0.1, jitter=False)
    with Ranker(Gone(), Listwise(PromptWriter(PromptOptions())), catalog=CATALOG, limits=limits) as ranker:
        (ranking,) = ranker.rank_many([RankRequest(candidates=["1", "2"])])
    assert ranking.status == "error"
    assert ranking.usage.retries == 1
    found = latency_of(ranking)
    assert found is not None
    assert found >= 0.1


def record(seconds: float | None, *, calls: int, status: str) -> Outcome:
    usage = usage_record(Usage(calls=calls))
    found = {"status": status, "error": None, "model": "m", "strategy": "", "fingerprint": "", "usage": usage}
    return Outcome(0, Case("u", (), None, ()), found | {"latency": seconds}, [], {})


def test_a_summary_counts_failures() -> None:
    """Half of the cases fail after 60 s: the median lies between, and one of which all fail was slow, too."""
    counts = Counts()
    for seconds, calls, status in ((1.0, 1, "ok"), (1.0, 1, "ok"), (60.0, 0, "error"), (60.0, 0, "error"), (None, 0, "error")):
        counts.add(record(seconds, calls=calls, status=status))
    assert (counts.latency() or {})["p50"] == 30.5
    failing = Counts()
    failing.add(record(60.0, calls=0, status="error"))
    assert (failing.latency() or {})["p50"] == 60.0
    baseline = Counts()
    baseline.add(record(0.0, calls=0, status="ok"))
    assert baseline.latency() is None


def test_cut_off_requests_do_not_make_a_variant_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a variant every third request would take long and is cut off: its p95 is the deadline, and its guardrail not kept."""
    monkeypatch.setenv(KEY_ENV, KEY)
    data = tmp_path / "data"
    write_data(data, cases=24)
    turns = itertools.count()

    def slow(request: Request) -> Reply | None:
        return Reply(b"", delay_s=2 * DEADLINE) if asks(request, "bold") and next(turns) % 3 == 2 else None

    with server(slow, forwards_for("bold")) as running:
        variants = {name: variant(running.url, name) for name in ("plain", "bold")}
        for each in variants.values():
            each["limits"] = {"max_attempts": 1, "deadline_s": DEADLINE}
        spec = experiment(data, running.url, variants=variants, guardrails={"latency_p95": DEADLINE / 4})
        done = run_experiment(spec, tmp_path / "ab", RunOptions(report=False))
    assert done.failures >= 4
    table = measured(done.folder, "confirmation", ("plain", "bold"))
    failed = table.variants["bold"].failed
    assert (table.variants["bold"].seconds[failed] >= DEADLINE).all()
    findings = analyse(done.folder)
    (guard,) = findings.guardrails
    assert guard.result.n == 24
    assert guard.result.value >= 0.99 * DEADLINE
    assert guard.result.verdict != "kept"
    assert (costs(table)[1].latency_p95 or 0.0) >= DEADLINE
    # As it was: without them, what is left looks fast.
    table.variants["bold"].seconds[failed] = np.nan
    (blind,) = guardrails(done.folder.spec, table, 10)
    assert blind.result.value < DEADLINE
    assert blind.result.n < 24
