"""`Experiment`: the right ranker for each user, logged once; switched off at once; interleaved; built from a file."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmrank import Catalog, Item, Ranker
from llmrank.errors import CapabilityError, ClosedError, ConfigError, InputError, SetupError, UnknownItemError
from llmrank.experiment import EventLog, Experiment, OnlineOptions
from llmrank.experiment.online.interleaving import credit
from llmrank.experiment.online.options import LayerOptions
from llmrank.strategies.listwise import Listwise
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend

CATALOG = Catalog([Item(each, f"Title {each}") for each in "abcdef"])
USERS = [f"user {number}" for number in range(200)]
LOCAL = {"backend": {"kind": "local"}, "prompt": {"template": "listwise/sequential"}}
REMOTE = {"backend": {"kind": "vllm", "model": "m"}}


def ranker(backwards: bool = False) -> Ranker:
    """One whose model leaves the candidates as they are, or turns them round."""
    step = -1 if backwards else 1
    backend = ScriptedBackend(lambda prompt: " > ".join(f"[{label}]" for label in prompt.labels[::step]))
    return Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG)


@pytest.fixture(name="rankers")
def _rankers() -> Iterator[dict[str, Ranker]]:
    """Two rankers of opposite minds."""
    with ranker() as plain, ranker(backwards=True) as turned:
        yield {"plain": plain, "turned": turned}


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "events.sqlite") as log:
        yield log


def test_a_user_gets_the_ranker_of_their_variant_and_is_logged_once(rankers: dict[str, Ranker], log: EventLog) -> None:
    """At each of several requests; about half of the users get each."""
    experiment = Experiment("turn", rankers, log=log)
    for _ in range(2):
        for user in USERS:
            assert experiment.ranker_for(user) is rankers[experiment.assign(user).variant]
    found = {event.unit: event.variant for event in log.read(["exposure"])}
    assert found == {user: experiment.variant_for(user) for user in USERS}
    assert len(list(log.read())) == 200
    assert 70 < list(found.values()).count("plain") < 130


def test_looking_is_no_exposure(rankers: dict[str, Ranker], log: EventLog) -> None:
    """`assign` logs nothing, nor does whoever does not take part."""
    experiment = Experiment("turn", rankers, OnlineOptions(holdout=1.0, force={"me": "turned"}), log=log)
    assert experiment.assign("user 1").reason == "holdout"
    assert experiment.ranker_for("user 1") is rankers["plain"]
    assert experiment.ranker_for("me") is rankers["turned"]
    assert list(log.read()) == []


def test_the_kill_switch(rankers: dict[str, Ranker], log: EventLog) -> None:
    """From then on everybody gets the control and nobody is exposed; outcomes of those who were still count."""
    experiment = Experiment("turn", rankers, control="turned", log=log)
    experiment.ranker_for(USERS[0])
    experiment.kill()
    assert {experiment.ranker_for(user) for user in USERS} == {rankers["turned"]}
    assert not experiment.options.enabled
    experiment.outcome(USERS[0], "click")
    assert [event.kind for event in log.read()] == ["exposure", "outcome"]


def test_options_are_replaced_at_once(rankers: dict[str, Ranker]) -> None:
    """Traffic rises and nobody moves; a mistake leaves the old options in place."""
    experiment = Experiment("turn", rankers, OnlineOptions(traffic=0.2, layer=LayerOptions("l", 0, 0.9)))
    before = {user: found for user in USERS if (found := experiment.assign(user)).exposed}
    experiment.update(replace(experiment.options, traffic=0.6))
    assert 0 < len(before) < sum(experiment.assign(user).exposed for user in USERS)
    assert all(experiment.assign(user) == found for user, found in before.items())
    for changes, words in (
        ({"salt": "new"}, "online.salt: would deal all users anew"),
        ({"layer": LayerOptions("m")}, "online.layer.name: would move users"),
        ({"weights": {"plain": 1, "x": 1}}, "online.weights.x: no such variant"),
    ):
        with pytest.raises(ConfigError, match=words):
            experiment.update(replace(experiment.options, **changes))
    assert experiment.options.traffic == 0.6


def test_threads_see_the_old_options_or_the_new(rankers: dict[str, Ranker]) -> None:
    """While options change all the time, an assignment is one of the two that they give."""
    options = OnlineOptions(weights={"plain": 1, "turned": 0}), OnlineOptions(weights={"plain": 0, "turned": 1}, traffic=0.0)
    experiment = Experiment("turn", rankers, options[0])
    seen: set[tuple[str, str]] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            found = experiment.assign("user 1")
            seen.add((found.variant, found.reason))

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        experiment.update(options[number % 2])
    over.set()
    for thread in threads:
        thread.join()
    assert seen <= {("plain", "assigned"), ("plain", "outside traffic")}


def test_an_outcome_with_an_id_counts_once(rankers: dict[str, Ranker], log: EventLog) -> None:
    """It carries the experiment's name, and the same id may be sent again."""
    experiment = Experiment("turn", rankers, log=log)
    for _ in range(2):
        experiment.outcome("user 1", "purchase", 12.5, id="order 3")
    (event,) = log.read()
    assert (event.unit, event.name, event.value, event.experiment) == ("user 1", "purchase", 12.5, "turn")
    with pytest.raises(InputError, match="another event that says something else has this id"):
        experiment.outcome("user 1", "purchase", 13, id="order 3")


class Broken(EventLog):
    """A log on a disk that is full."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def _write(self, records: Any) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    def _read(self, told: Any) -> Iterator[Any]:
        return iter(())

    def _reopen(self) -> None:
        pass

    def _close(self) -> None:
        pass


def test_a_log_that_fails_is_never_passed_over(rankers: dict[str, Ranker], caplog: pytest.LogCaptureFixture) -> None:
    """By default the error is raised; with ``warn`` users are served, each loss is told and counted."""
    with pytest.raises(sqlite3.OperationalError, match="full"):
        Experiment("turn", rankers, log=Broken()).ranker_for("user 1")
    experiment = Experiment("turn", rankers, log=Broken(), on_log_error="warn")
    with caplog.at_level(logging.WARNING, "llmrank.experiment"):
        assert experiment.ranker_for("user 1") in rankers.values()
        experiment.outcome("user 1", "click")
        shown = experiment.interleave("user 1", candidates=["a", "b"])
        experiment.click(shown, "a")
    assert experiment.unlogged == 4
    assert caplog.messages[0] == "the exposure of user 'user 1' could not be logged: database or disk is full"
    assert len(caplog.messages) == 4


def test_both_rank_and_the_user_sees_a_draft(rankers: dict[str, Ranker], log: EventLog) -> None:
    """The same impression is the same list; what is logged is what was shown; clicks are logged once."""
    experiment = Experiment("turn", rankers, log=log)
    shown = experiment.interleave("user 1", candidates=list("abcdef"), top_k=4, impression="page 1")
    again = experiment.interleave("user 1", candidates=list("abcdef"), top_k=4, impression="page 1")
    assert shown.items == again.items
    assert shown.items in {tuple("afbe"), tuple("faeb"), tuple("afeb"), tuple("fabe")}
    assert [each.rank for each in shown.ranked_items] == [1, 2, 3, 4]
    assert [each.title for each in shown.ranked_items] == [f"Title {item}" for item in shown.items]
    assert shown.variants == ("plain", "turned")
    for _ in range(2):
        experiment.click(shown, "f")
    impression, click = log.read()
    assert impression.data == {"a": "plain", "b": "turned", "items": list(shown.items), "teams": list(shown.interleaved.teams)}
    assert (click.name, click.data) == ("page 1", {"item": "f"})
    assert credit(shown.interleaved, ["f"]) == (0, 1)


async def test_both_rank_at_once(rankers: dict[str, Ranker], log: EventLog) -> None:
    """`ainterleave` shows what `interleave` shows."""
    experiment = Experiment("turn", rankers, log=log)
    shown = await experiment.ainterleave("user 1", candidates=list("abcdef"), impression="page 1")
    assert shown.items == experiment.interleave("user 1", candidates=list("abcdef"), impression="page 1").items
    assert len(list(log.read())) == 1
    assert experiment.interleave("user 1", candidates=["a"]).id != experiment.interleave("user 1", candidates=["a"]).id


def test_who_does_not_take_part_sees_one_ranking(rankers: dict[str, Ranker], log: EventLog) -> None:
    """The control's, or a tester's own; only that one is asked, and nothing is logged."""
    experiment = Experiment("turn", rankers, OnlineOptions(traffic=0.0, force={"me": "turned"}), log=log)
    shown = experiment.interleave("user 1", candidates=list("abc"), top_k=2)
    assert (shown.items, shown.interleaved.teams, set(shown.rankings)) == (("a", "b"), (None, None), {"plain"})
    tester = experiment.interleave("me", candidates=list("abc"))
    assert (tester.items, set(tester.rankings)) == (("c", "b", "a"), {"turned"})
    experiment.click(tester, "c")
    assert list(log.read()) == []


def test_which_variant_is_interleaved_has_to_be_said(rankers: dict[str, Ranker]) -> None:
    """Where there are several beside the control; and it is one of those."""
    experiment = Experiment("turn", {**rankers, "third": rankers["turned"]})
    with pytest.raises(InputError, match="variant: is missing; say which: turned, third"):
        experiment.interleave("user 1", candidates=["a"])
    with pytest.raises(InputError, match="variant: is no variant beside the control .*; use one of: turned, third"):
        experiment.interleave("user 1", candidates=["a"], variant="plain")
    assert experiment.interleave("user 1", candidates=["a"], variant="third").variants == ("plain", "third")


def test_what_is_wrong_with_a_request_is_raised(rankers: dict[str, Ranker], log: EventLog) -> None:
    """Of either ranker, and nothing is logged then."""
    experiment = Experiment("turn", rankers, log=log)
    with pytest.raises(UnknownItemError):
        experiment.interleave("user 1", candidates=["z"])
    with pytest.raises(InputError, match="item: was not shown"):
        experiment.click(experiment.interleave("user 1", candidates=["a"]), "b")
    with pytest.raises(InputError, match="unit: must be a text"):
        experiment.ranker_for(17)  # type: ignore[arg-type]  # what is refused
    assert [event.kind for event in log.read()] == ["impression"]


def test_without_a_log_nothing_can_be_logged(rankers: dict[str, Ranker]) -> None:
    """Users are served; an outcome has nowhere to go."""
    experiment = Experiment("turn", rankers)
    assert experiment.ranker_for("user 1") in rankers.values()
    with pytest.raises(ConfigError, match='log: is missing; give the experiment one: log="events.sqlite"'):
        experiment.outcome("user 1", "click")


def test_a_wrong_argument_is_named(rankers: dict[str, Ranker]) -> None:
    """What to do on errors, the control, a lone ranker."""
    with pytest.raises(ConfigError, match="on_log_error: unknown"):
        Experiment("turn", rankers, on_log_error="pass")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigError, match="control: no such variant"):
        Experiment("turn", rankers, control="turnd")
    with pytest.raises(ConfigError, match="variants: must be two or more"):
        Experiment("turn", {"plain": rankers["plain"]})


def test_an_experiment_is_built_from_a_file(tmp_path: Path) -> None:
    """Each variant's configuration may be a file beside it; offline keys are left alone; closing closes rankers and log."""
    (tmp_path / "remote.yaml").write_text("backend: {kind: vllm, model: m}\n", encoding="utf-8")
    (tmp_path / "experiment.yaml").write_text(
        "name: recency\ndataset: ml-100k\nvariants:\n  plain: {backend: {kind: vllm, model: n}}\n  other: remote.yaml\n"
        "metrics: [ndcg@10]\nonline: {traffic: 0.5}\n",
        encoding="utf-8",
    )
    with Experiment.from_config(tmp_path / "experiment.yaml", catalog=CATALOG, log=tmp_path / "log.jsonl") as experiment:
        assert (experiment.name, experiment.control, experiment.options.traffic) == ("recency", "plain", 0.5)
        assert {name: each.backend.model for name, each in experiment.rankers.items()} == {"plain": "n", "other": "m"}
        assert experiment.rankers["plain"].catalog is CATALOG
        plain = experiment.ranker_for("user 1")
    with pytest.raises(ClosedError):
        experiment.ranker_for("user 1")
    with pytest.raises(ClosedError):
        plain.rank([], ["a", "b"])
    with pytest.raises(ClosedError):
        experiment.outcome("user 1", "click")


async def test_a_lazy_experiment_builds_what_is_asked_for(tmp_path: Path) -> None:
    """Each ranker once, at its first use; after closing none is built."""
    config = {"name": "x", "variants": {"plain": REMOTE, "other": REMOTE}, "online": {"force": {"me": "other"}}}
    async with Experiment.from_config(config, lazy=True) as experiment:
        assert experiment.rankers.built == []  # type: ignore[attr-defined]  # rankers that are built lazily say which
        assert experiment.ranker_for("me") is experiment.rankers["other"]
        assert len(experiment.rankers.built) == 1  # type: ignore[attr-defined]  # as above
    with pytest.raises(ClosedError):
        experiment.rankers["plain"]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        (
            {"other": {"backend": {"kind": "vlm"}}},
            ConfigError,
            "variants.other.backend.kind: unknown kind .*did you mean 'vllm'",
        ),
        ({"other": {"backnd": {}}}, ConfigError, "variants.other.backnd: unknown key"),
        ({"other": {"baseline": "popularity"}}, ConfigError, "variants.other.baseline: unknown key"),
        ({"other": 7}, ConfigError, "variants.other: must be a ranker's configuration"),
        ({"other": "missing.yaml"}, ConfigError, "variants.other: cannot be read"),
        (
            {"other": {**REMOTE, "backend": {"kind": "openai", "model": "m"}, "strategy": {"kind": "likelihood"}}},
            CapabilityError,
            "variants.other: strategy .*",
        ),
        ({}, ConfigError, "variants: must be two or more"),
        ([], ConfigError, "variants: must be rankers by name"),
    ],
)
def test_a_mistake_in_any_variant_is_found_at_start(lazy: bool, config: Any, kind: type[Exception], words: str) -> None:
    """Whether rankers are built at once or when they are used; the variant is named."""
    variants = {"plain": REMOTE, **config} if isinstance(config, dict) else config
    with pytest.raises(kind, match=words):
        Experiment.from_config({"name": "x", "variants": variants}, lazy=lazy)


def test_what_only_building_shows_is_found_at_start_unless_lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key stops an eager experiment; a lazy one meets it at the first use."""
    monkeypatch.delenv("LLMRANK_TEST_NO_SUCH_KEY", raising=False)
    keyless = {
        "kind": "openai",
        "model": "m",
        "base_url": "https://llm.example.com/v1",
        "api_key_env": "LLMRANK_TEST_NO_SUCH_KEY",
    }
    config = {"name": "x", "variants": {"plain": REMOTE, "other": {"backend": keyless}}}
    with pytest.raises(SetupError, match="variants.other: .*LLMRANK_TEST_NO_SUCH_KEY"):
        Experiment.from_config(config)
    with Experiment.from_config(config, lazy=True) as experiment, pytest.raises(SetupError, match="variants.other"):
        experiment.rankers["other"]


@pytest.mark.parametrize(
    ("config", "words"),
    [(7, "experiment: must be a mapping"), ({"variants": {"a": REMOTE, "b": REMOTE}}, "name: must be a text")],
)
def test_a_configuration_has_a_name(config: Any, words: str) -> None:
    """And is a mapping."""
    with pytest.raises(ConfigError, match=words):
        Experiment.from_config(config)


def test_assigning_needs_nothing_heavy() -> None:
    """Who assigns users by the classes alone loads neither NumPy nor an SDK, nor pydantic."""
    code = (
        "import sys, llmrank.experiment\n"
        "from llmrank.experiment import Assigner\n"
        "Assigner('x', ('a', 'b'), 'a').assign('u')\n"
        "print([name for name in ('numpy', 'pydantic', 'openai', 'jinja2', 'sqlite3') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
