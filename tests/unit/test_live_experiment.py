"""An experiment on live users: each gets one variant's Ranker, and the log says what each was shown."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmrank.experiment as experiments
from llmrank import Catalog, Item, Ranker
from llmrank.errors import CapabilityError, ClosedError, ConfigError, InputError, QuotaError, RequestError, TemplateError
from llmrank.experiment.online import live
from llmrank.experiment.online.assignment import OnlineOptions
from llmrank.experiment.online.events import Event, EventLog
from llmrank.experiment.online.interleaving import Interleaved, credit, team_draft
from llmrank.experiment.online.live import Experiment
from llmrank.strategies.listwise import Listwise
from llmrank.types import Prompt
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend

CATALOG = Catalog([Item(each, f"Title {each}") for each in "0123456789"])
USERS = [f"user-{number}" for number in range(200)]
CANDIDATES = ["1", "2", "3", "4"]


def ranker(*, backwards: bool = False, fails: bool = False) -> Ranker:
    """A Ranker that keeps the order of the candidates, or turns it round, or fails."""

    def answer(prompt: Prompt) -> str:
        if fails:
            raise QuotaError("has no credit")
        return " > ".join(f"[{label}]" for label in (reversed(prompt.labels) if backwards else prompt.labels))

    return Ranker(ScriptedBackend(answer), Listwise(PromptWriter(PromptOptions())), catalog=CATALOG)


@pytest.fixture
def rankers() -> Iterator[dict[str, Ranker]]:
    made = {"plain": ranker(), "recency": ranker(backwards=True)}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.open(tmp_path / "events.jsonl") as opened:
        yield opened


class BrokenLog(EventLog):
    """A log on a disk that is full."""

    def __init__(self) -> None:
        super().__init__(Path("events.jsonl"))
        self.tried = 0

    def _append(self, events: Any, sync: bool) -> None:
        self.tried += 1
        raise OSError(28, "No space left on device")

    def _close(self) -> None:
        pass


def kinds(log: EventLog) -> list[str]:
    return [event.kind for event in log.events()]


def test_each_user_gets_the_ranker_of_one_variant(rankers: dict[str, Ranker]) -> None:
    """The same Ranker at each call, also of another process's Experiment, and both variants have users."""
    one, other = Experiment("recency", rankers), Experiment("recency", rankers)
    found = {user: one.ranker_for(user) for user in USERS}
    assert found == {user: other.ranker_for(user) for user in USERS}
    assert set(found.values()) == set(rankers.values())
    assert all(rankers[one.variant_for(user)] is found[user] for user in USERS)
    assert one.options == OnlineOptions({"plain": 1, "recency": 1}, "plain", "recency")


def test_an_exposure_is_logged_once(rankers: dict[str, Ranker], log: EventLog) -> None:
    """However often the Ranker is asked for, here or by another process, there is one event a user, with its variant."""
    with EventLog.open(log.path) as its_own:
        one, other = Experiment("recency", rankers, log=log), Experiment("recency", rankers, log=its_own)
        for _ in range(3):
            for experiment in (one, other):
                for user in USERS[:20]:
                    experiment.ranker_for(user)
    events = list(log.events())
    assert [(each.unit, each.variant) for each in events] == [(user, one.variant_for(user)) for user in USERS[:20]]
    assert {(each.experiment, each.kind) for each in events} == {("recency", "exposure")}


def test_to_look_up_a_variant_exposes_nobody(rankers: dict[str, Ranker], log: EventLog) -> None:
    """`assign` and `variant_for` log nothing; `expose` does, and gives the assignment."""
    experiment = Experiment("recency", rankers, log=log)
    found = experiment.assign("user-1")
    assert (experiment.variant_for("user-1"), found.exposed) == (found.variant, True)
    assert kinds(log) == []
    assert experiment.expose("user-1") == found
    assert kinds(log) == ["exposure"]


@pytest.mark.parametrize(
    "section", [{"traffic": 0}, {"holdout": 1}, {"enabled": False}, {"force": dict.fromkeys(USERS, "plain")}]
)
def test_who_does_not_take_part_is_not_logged(section: dict[str, Any], rankers: dict[str, Ranker], log: EventLog) -> None:
    """They get the control (or what is forced), and the log stays empty."""
    experiment = Experiment("recency", rankers, section, log=log)
    assert {experiment.ranker_for(user) for user in USERS} == {rankers["plain"]}
    assert kinds(log) == []


def test_what_a_process_remembers_is_bounded(
    rankers: dict[str, Ranker], log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's exposure is written once; beyond the bound the oldest user is forgotten, and it is written again."""
    monkeypatch.setattr(live, "REMEMBERED", 2)
    written: list[str] = []
    monkeypatch.setattr(log, "write", lambda event: written.append(event.unit))
    experiment = Experiment("recency", rankers, log=log)
    for user in ("a", "b", "c", "c", "b", "a"):
        experiment.ranker_for(user)
    assert written == ["a", "b", "c", "a"]


def test_the_kill_switch_works_at_once(rankers: dict[str, Ranker], log: EventLog) -> None:
    """After `kill` everybody gets the control, and nobody else is exposed."""
    experiment = Experiment("recency", rankers, log=log)
    treated = next(user for user in USERS if experiment.variant_for(user) == "recency")
    assert experiment.ranker_for(treated) is rankers["recency"]
    experiment.kill()
    assert {experiment.ranker_for(user) for user in USERS} == {rankers["plain"]}
    assert experiment.assign(treated).reason == "disabled"
    assert len(kinds(log)) == 1


def test_options_change_while_threads_assign(rankers: dict[str, Ranker]) -> None:
    """Every call sees the old options or the new ones: with all weight on either variant, no other answer ever comes."""
    both = [
        OnlineOptions({"plain": 1, "recency": 0}, "plain", "s", traffic=1),
        OnlineOptions({"plain": 0, "recency": 1}, "plain", "s", traffic=0),
    ]
    experiment = Experiment("recency", rankers, both[0])
    seen: set[tuple[str, str]] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = experiment.assign("user-1")
            seen.add((found.variant, found.reason))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        experiment.update(both[number % 2])
    stop.set()
    for thread in threads:
        thread.join()
    # With the new weights and the old traffic it would be `recency`.
    assert seen <= {("plain", "assigned"), ("plain", "outside traffic")}
    assert seen


def test_wrong_new_options_leave_the_old_ones(rankers: dict[str, Ranker]) -> None:
    """An update that is refused changes nothing; one that is made keeps the control."""
    experiment = Experiment("recency", rankers, control="recency")
    before = experiment.options
    with pytest.raises(ConfigError, match=r"online\.traffic: must be from 0 to 1"):
        experiment.update({"traffic": 2})
    assert experiment.options is before
    experiment.update({"traffic": 0})
    assert experiment.variant_for("user-1") == "recency"


def test_an_update_never_deals_users_anew(rankers: dict[str, Ranker]) -> None:
    """Another salt or another layer in the middle of an experiment is refused; the same ones are not."""
    experiment = Experiment("recency", rankers, {"layer": {"name": "ranking", "from": 0.0, "to": 0.5}})
    for change in ({"salt": "another"}, {"layer": {"name": "another"}}, {}):
        with pytest.raises(ConfigError, match="anew"):
            experiment.update(change)
    experiment.update({"traffic": 0.5, "layer": {"name": "ranking", "from": 0.0, "to": 0.7}})
    assert experiment.options.traffic == 0.5


def test_the_order_of_the_variants_moves_nobody(rankers: dict[str, Ranker]) -> None:
    """A tool that sorts the keys of a file changes no user's variant."""
    turned = dict(reversed(rankers.items()))
    one, other = (Experiment("recency", each, control="plain") for each in (rankers, turned))
    assert [one.variant_for(user) for user in USERS] == [other.variant_for(user) for user in USERS]


def test_a_closed_experiment_exposes_nobody(rankers: dict[str, Ranker], log: EventLog) -> None:
    """After `close` there is no Ranker to give, and nothing is logged."""
    experiment = Experiment("recency", rankers, log=log)
    experiment.close()
    with pytest.raises(ClosedError, match="closed"):
        experiment.ranker_for("user-1")
    assert list(log.events()) == []


def test_a_user_who_changes_variants_is_logged_with_both(rankers: dict[str, Ranker], log: EventLog) -> None:
    """So that the analysis can see it: the variants of one user differ after the weights were changed."""
    experiment = Experiment("recency", rankers, {"weights": {"plain": 1, "recency": 0}}, log=log)
    experiment.ranker_for("user-1")
    experiment.update({"weights": {"plain": 0, "recency": 1}})
    experiment.ranker_for("user-1")
    assert [event.variant for event in log.events()] == ["plain", "recency"]


def test_outcomes_and_clicks_are_logged(rankers: dict[str, Ranker], log: EventLog) -> None:
    """With what they are worth and, for outcomes, the caller's id; the same id again is no second event."""
    experiment = Experiment("recency", rankers, log=log)
    for _ in range(2):
        experiment.outcome("user-1", "purchase", 9.5, event_id="order 7")
        experiment.click("user-1", "impression 1", "4")
    bought, clicked = log.events()
    assert bought == Event("order 7", bought.time, "recency", "user-1", "outcome", name="purchase", value=9.5)
    assert (clicked.kind, clicked.about) == ("click", {"impression": "impression 1", "item": "4"})
    with pytest.raises(InputError, match="value: must be finite"):
        experiment.outcome("user-1", "purchase", float("nan"), event_id="order 8")


def test_a_log_that_fails_costs_no_ranking(rankers: dict[str, Ranker], caplog: pytest.LogCaptureFixture) -> None:
    """The user gets the Ranker, a warning is logged, the event counts in `unlogged`, and the next call tries again."""
    broken = BrokenLog()
    experiment = Experiment("recency", rankers, log=broken)
    with caplog.at_level(logging.WARNING):
        assert experiment.ranker_for("user-1") in rankers.values()
    assert "experiment recency: an event (exposure) could not be logged: [Errno 28] No space left on device" in caplog.text
    experiment.ranker_for("user-1")
    assert (experiment.unlogged, broken.tried) == (2, 2)


def test_a_log_that_fails_may_raise(rankers: dict[str, Ranker]) -> None:
    """With `on_log_error="raise"` the log's own error comes out."""
    experiment = Experiment("recency", rankers, log=BrokenLog(), on_log_error="raise")
    with pytest.raises(OSError, match="No space left"):
        experiment.ranker_for("user-1")
    assert experiment.variant_for("user-1") in rankers


def test_two_variants_draft_one_list(rankers: dict[str, Ranker], log: EventLog) -> None:
    """The control is team `a`; each team's items are in its ranking's order, and the impression in the log says the same."""
    shown = Experiment("recency", rankers, log=log).interleave("user-1", "7", history=["0"], candidates=CANDIDATES)
    assert sorted(shown.item_ids) == CANDIDATES
    assert shown.items == tuple(CATALOG.get(each) for each in shown.item_ids)
    assert shown.variants == {"a": "plain", "b": "recency"}
    assert {name: each.item_ids for name, each in shown.rankings.items()} == {"plain": CANDIDATES, "recency": CANDIDATES[::-1]}
    by_team = {team: [i for i, t in zip(shown.item_ids, shown.teams, strict=True) if t == team] for team in "ab"}
    assert by_team == {"a": ["1", "2"], "b": ["4", "3"]}
    (event,) = log.events()
    assert event.kind == "impression"
    assert event.about == {
        "impression": "7",
        "items": shown.item_ids,
        "teams": list(shown.teams),
        "variants": {"a": "plain", "b": "recency"},
    }
    assert credit(Interleaved(tuple(event.about["items"]), tuple(event.about["teams"])), ["1", "4", "2"]) == (2, 1)


async def test_it_drafts_the_same_in_an_event_loop(rankers: dict[str, Ranker]) -> None:
    """`ainterleave` gives the list that `interleave` gives: it hangs on salt, user and impression alone."""
    experiment = Experiment("recency", rankers)
    first: set[str] = set()
    for number in range(12):
        one = experiment.interleave("user-1", str(number), history=["0"], candidates=CANDIDATES, top_k=3)
        other = await experiment.ainterleave("user-1", str(number), history=["0"], candidates=CANDIDATES, top_k=3)
        assert (one.item_ids, one.teams) == (other.item_ids, other.teams)
        assert len(one.items) == 3
        first.add(one.item_ids[0])
    assert first == {"1", "4"}


async def test_who_does_not_take_part_sees_one_variant(rankers: dict[str, Ranker], log: EventLog) -> None:
    """The control's own ranking, one model asked, no teams, and nothing in the log; a forced user sees what is forced."""
    experiment = Experiment("recency", rankers, {"traffic": 0, "force": {"tester": "recency"}}, log=log)
    one = experiment.interleave("user-1", "7", candidates=CANDIDATES)
    assert (one.item_ids, one.teams, one.variants, list(one.rankings)) == (CANDIDATES, (None,) * 4, None, ["plain"])
    forced = await experiment.ainterleave("tester", "7", candidates=CANDIDATES)
    assert forced.item_ids == CANDIDATES[::-1]
    assert kinds(log) == []


async def test_a_ranking_that_fails_is_raised(log: EventLog) -> None:
    """Neither call hides it, and no impression is logged."""
    made = {"plain": ranker(), "recency": ranker(fails=True)}
    with Experiment("recency", made, log=log) as experiment:
        with pytest.raises(QuotaError, match="has no credit"):
            await experiment.ainterleave("user-1", "7", candidates=CANDIDATES)
        with pytest.raises(QuotaError, match="has no credit"):
            experiment.interleave("user-1", "7", candidates=CANDIDATES)
    assert kinds(log) == []


def test_one_of_several_variants_meets_the_control(rankers: dict[str, Ranker]) -> None:
    """With three variants it must be said which; the control is none, nor is a name that does not exist."""
    with ranker() as third:
        experiment = Experiment("recency", {**rankers, "third": third})
        shown = experiment.interleave("user-1", "7", against="third", candidates=CANDIDATES)
        assert shown.variants == {"a": "plain", "b": "third"}
        with pytest.raises(RequestError, match="against: say which variant meets the control; one of recency, third"):
            experiment.interleave("user-1", "7", candidates=CANDIDATES)
        for wrong in ("plain", "thrid"):
            with pytest.raises(RequestError, match="against: is no variant beside the control"):
                experiment.interleave("user-1", "7", against=wrong, candidates=CANDIDATES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rankers": {}}, "rankers: names no variant"),
        ({"control": "plian"}, "control: is none of the variants.*did you mean 'plain'"),
        ({"on_log_error": "ignore"}, "on_log_error: unknown.*use warn or raise"),
        ({"options": {"weights": {"plain": 1}}}, "online.weights.recency: is missing"),
        ({"options": OnlineOptions({"plain": 1}, "plain", "s")}, "online.weights.recency: is missing"),
        (
            {"options": OnlineOptions({"plain": 1, "recency": 1, "more": 1}, "plain", "s")},
            "online.weights.more: there is no Ranker of this name",
        ),
        (
            {"options": OnlineOptions({"plain": 1, "recency": 1}, "plain", "s"), "control": "recency"},
            "control: the options have another one",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str, rankers: dict[str, Ranker]) -> None:
    """One error that names the field and what to do."""
    with pytest.raises(ConfigError, match=message):
        Experiment("recency", **{"rankers": rankers, **arguments})


def configured(template: str = "listwise/sequential", **others: Any) -> dict[str, Any]:
    """A configuration that builds without any server: nothing is asked."""
    backend = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}
    return {"backend": backend, "prompt": {"template": template}, **others}


def spec(**others: Any) -> dict[str, Any]:
    return {"name": "recency", "variants": {"plain": configured(), "recency": configured("listwise/recency")}, **others}


def test_an_experiment_file_is_built_whole(tmp_path: Path) -> None:
    """All variants' Rankers share the catalogue; what is for offline experiments is ignored; closing closes Rankers and log."""
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "name: recency\n"
        "dataset: ml-100k\n"
        "metrics: [ndcg@10]\n"
        "control: recency\n"
        "variants:\n"
        "  plain: {backend: {kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1'}}\n"
        "  recency: {backend: {kind: openai, model: n, base_url: 'http://127.0.0.1:9/v1'}}\n"
        "online: {weights: {plain: 3, recency: 1}, salt: s}\n",
        encoding="utf-8",
    )
    with Experiment.from_config(path, catalog=CATALOG, log=tmp_path / "events.jsonl") as experiment:
        assert experiment.options == OnlineOptions({"plain": 3, "recency": 1}, "recency", "s")
        assert [each.catalog for each in experiment.rankers.values()] == [CATALOG, CATALOG]
        chosen = experiment.ranker_for("user-1")
        assert experiment.log is not None
    with pytest.raises(ClosedError):
        chosen.rank(["0"], ["1", "2"])
    with pytest.raises(ClosedError, match="the event log has been closed"):
        experiment.log.write(Event("1", 0.0, None, "user-1", "outcome", name="purchase"))
    experiment.close()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"prompt": {"template": "listwise/recensy"}}, TemplateError, "variants.recency.*recensy"),
        ({"bakend": {}}, ConfigError, r"variants\.recency\.bakend: unknown key; did you mean 'backend'"),
        (
            {"prompt": {}, "strategy": {"kind": "likelihood"}},
            CapabilityError,
            r"variants\.recency: strategy 'likelihood' needs score",
        ),
    ],
)
def test_a_mistake_in_any_variant_is_found_at_the_start(changed: dict[str, Any], kind: type[Exception], message: str) -> None:
    """Before any user is served, under the variant's name."""
    variants = {"plain": configured(), "recency": {**configured("listwise/recency"), **changed}}
    with pytest.raises(kind, match=message):
        Experiment.from_config(spec(variants=variants))


def test_what_was_built_is_closed_when_a_later_variant_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first variant's Ranker and the log do not stay open behind the error."""
    closed: list[str] = []

    def noted(cls: type[Any]) -> None:
        really = cls.close

        def close(self: Any) -> None:
            closed.append(cls.__name__)
            really(self)

        monkeypatch.setattr(cls, "close", close)

    noted(Ranker)
    noted(EventLog)
    with pytest.raises(ConfigError, match="unknown key"):
        Experiment.from_config(
            spec(variants={"plain": configured(), "recency": configured(typo={})}), log=tmp_path / "events.jsonl"
        )
    assert closed == ["Ranker", "EventLog"]


def test_a_baseline_is_no_live_variant() -> None:
    """Popularity ranks in evaluations only; the error says which variant it is."""
    with pytest.raises(ConfigError, match=r"variants\.recency: baselines rank in evaluations only \(got 'popularity'\)"):
        Experiment.from_config(spec(variants={"plain": configured(), "recency": {"baseline": "popularity"}}))


def test_a_wrong_online_section_is_found_at_the_start() -> None:
    """By its key, before any Ranker is built; also what the log will be read for, which nobody needs before."""
    with pytest.raises(ConfigError, match=r"online\.traffic: must be from 0 to 1"):
        Experiment.from_config(spec(online={"traffic": 20}))
    with pytest.raises(ConfigError, match=r"online\.reading\.planed: unknown key; did you mean 'planned'"):
        Experiment.from_config(spec(online={"reading": {"planed": 2000}}))
    with Experiment.from_config(spec(online={"reading": {"metrics": {"buy": {"kind": "mean"}}}})) as experiment:
        assert experiment.assign("user-1").exposed


def test_the_package_names_what_services_need() -> None:
    """`llmrank.experiment` has the names, and loads them when they are used."""
    assert experiments.Experiment is Experiment
    assert experiments.EventLog is EventLog
    assert experiments.team_draft is team_draft
    assert {"Experiment", "EventLog", "team_draft"} <= set(experiments.__all__)
