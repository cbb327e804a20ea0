"""Calibration: models with a known bent, what is asked to measure it, and what is left when it is taken off."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.driver import advance
from llmrank.errors import AuthenticationError, BackendError, BadRequestError, ConfigError, ContextLengthError
from llmrank.protocols import Flow
from llmrank.ranker import Ranker
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.calibrated import Calibrated, CalibratedOptions
from llmrank.strategy_kinds import build_strategy
from llmrank.template import Templates
from llmrank.types import Capability, Completion, Event, Item, Prompt, Ranking, RankRequest, ResolvedRequest, Wish
from tests.unit.oracle import WIDE
from tests.unit.scripted import ScriptedBackend, shown

Answer = Callable[[Prompt], "Completion | BackendError"]
SINGLE = {"kind": "single-token"}
TEXTS = ("N/A", "MASK", "...")


def calibrated(of: Mapping[str, Any], **options: Any) -> BuiltStrategy:
    return build_strategy({"kind": "calibrated", "of": dict(of), **options})


def catalogue(worths: Sequence[float]) -> tuple[Item, ...]:
    """Items that tell what they are worth."""
    return tuple(Item(f"id{number:03}", f"Film worth {worth:.6f}") for number, worth in enumerate(worths))


def request(items: Sequence[Item], history: int = 2, query: str | None = None) -> ResolvedRequest:
    events = tuple(Event(Item(f"h{number}", f"Seen {number}"), rating=5.0) for number in range(history))
    return ResolvedRequest(events, items, query)


def ask(strategy: BuiltStrategy, wanted: ResolvedRequest, answer: Answer) -> Ranking:
    ranking = advance(strategy.flow(wanted, WIDE), answer)
    assert isinstance(ranking, Ranking)
    assert sorted(ranking.item_ids) == sorted(item.id for item in wanted.candidates)
    return ranking


def asked(strategy: BuiltStrategy, wanted: ResolvedRequest) -> list[Prompt]:
    """The prompts of the first step."""
    flow = strategy.flow(wanted, WIDE)
    step = list(next(flow))
    flow.close()
    return step


def words(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


def bent(bias: Mapping[str, float]) -> Answer:
    """A model that sees what items are worth, and adds what it thinks of each label; items without content are worth 0."""

    def answer(prompt: Prompt) -> Completion:
        texts = shown(prompt)
        if not texts:  # a verdict about one item
            line = words(prompt).partition("<candidates>\n- ")[2].splitlines()[0]
            logits = {label: bias.get(label, 0.0) for label in prompt.labels}
            logits[prompt.labels[0]] += worth(line)
        else:
            logits = {label: worth(texts[label]) + bias.get(label, 0.0) for label in prompt.labels}
        total = math.log(sum(map(math.exp, logits.values())))
        best = max(logits, key=lambda label: logits[label])
        return Completion(best, "stop", label_logprobs={label: value - total for label, value in logits.items()}, model="bent")

    return answer


def worth(text: str) -> float:
    return float(text.rpartition(" ")[2]) if "worth" in text else 0.0


def best_first(items: Sequence[Item]) -> list[str]:
    return [item.id for item in sorted(items, key=lambda item: -worth(item.title))]


KINDS: list[dict[str, Any]] = [
    SINGLE,
    {"kind": "single-token", "window": 6, "step": 3, "passes": 20, "max_windows": None},
    {"kind": "pairwise", "read": "logprobs"},
    {"kind": "setwise", "read": "logprobs"},
    {"kind": "setwise", "read": "logprobs", "method": "bubblesort", "compare": 3},
    {"kind": "top-down", "read": "logprobs", "window": 7},
    {"kind": "self-consistency", "of": {"kind": "single-token"}, "shuffles": 2},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=6, deadline=None)
@given(st.integers(1, 18), st.randoms(use_true_random=False))
def test_a_bent_is_taken_off(kind: dict[str, Any], count: int, dice: random.Random) -> None:
    """A model that adds a fixed bent to each label ranks perfectly without it, in as many prompts as were stated."""
    items = catalogue(dice.sample([number / 10 for number in range(40)], count))
    bias = {chr(ord("A") + number): dice.uniform(-3, 3) for number in range(26)}
    strategy = calibrated(kind)
    ranking = ask(strategy, request(items), bent(bias))
    assert ranking.item_ids == best_first(items)
    assert ranking.status == "ok"
    assert ranking.strategy.startswith(f"calibrated({kind['kind']}")
    calls = strategy.calls(count)
    assert calls.least <= len(ranking.trace) <= calls.most


def test_the_bent_does_mislead_without_calibration() -> None:
    """The same model, asked without it, puts the first label first whatever stands there; half of the weight is not enough."""
    items = catalogue([0.0, 1.0])
    model = bent({"A": 1.5})
    assert ask(build_strategy(SINGLE), request(items), model).item_ids == ["id000", "id001"]
    assert ask(calibrated(SINGLE, weight=0.3), request(items), model).item_ids == ["id000", "id001"]
    assert ask(calibrated(SINGLE, weight=0.5), request(items), model).item_ids == ["id001", "id000"]


def test_verdicts_lose_their_bent() -> None:
    """A model that says yes too easily gives a neutral item one half; without content nothing is known of it."""
    items = catalogue([2.0, 0.0, -1.0])
    ranking = ask(calibrated({"kind": "pointwise"}), request(items), bent({"Yes": 4.0}))
    assert [each.score for each in ranking.items] == pytest.approx([1 / (1 + math.exp(-value)) for value in (2.0, 0.0, -1.0)])
    assert ranking.strategy == "calibrated(pointwise)"


def test_what_measures_a_prior_has_the_form_of_the_question() -> None:
    """The same words around the same labels, with a content-free text for each title, event and wish, and no rating."""
    items = catalogue([1.0, 2.0, 3.0])
    question, *priors = asked(calibrated(SINGLE), request(items, query="a quiet film"))
    assert [prompt.shared for prompt in (question, *priors)] == [False, True, True, True]
    for prompt, text in zip(priors, TEXTS, strict=True):
        assert shown(prompt) == dict.fromkeys("ABC", text)
        assert words(prompt).splitlines().count(f"- {text}") == 2
        assert f"<wish>{text}</wish>" in words(prompt)
        assert "rated" in words(question)
        assert "rated" not in words(prompt)
        assert (prompt.labels, prompt.label_logprobs, prompt.max_tokens) == (question.labels, True, question.max_tokens)
        assert not {*prompt.item_ids} & {item.id for item in items}
        assert len(words(prompt).splitlines()) == len(words(question).splitlines())


def test_a_prior_has_as_many_phrases_of_what_is_wanted_and_what_is_not() -> None:
    """Where a query was read: content-free ones, at the same places, and other numbers of them are another prior."""
    items = catalogue([1.0, 2.0, 3.0])

    def wishing(wishes: int, dislikes: int) -> ResolvedRequest:
        wish = Wish("a quiet film", tuple(f"calm {n}" for n in range(wishes)), (), tuple(f"loud {n}" for n in range(dislikes)))
        return replace(request(items, query="a quiet film"), wish=wish)

    question, *priors = asked(calibrated(SINGLE), wishing(2, 1))
    for prompt, text in zip(priors, TEXTS, strict=True):
        assert words(prompt).count(f"- <wish>{text}</wish>") == 3
        assert "I do not want:" in words(prompt)
        assert not {"calm", "loud"} & set(words(prompt).split())
        assert len(words(prompt).splitlines()) == len(words(question).splitlines())
    strategy = calibrated(SINGLE)
    assert asked(strategy, wishing(2, 1))[1:] == priors
    assert asked(strategy, wishing(1, 1))[1:] != priors
    assert asked(strategy, wishing(2, 0))[1:] != priors


def test_priors_are_the_same_for_other_users() -> None:
    """Another user with as many events and candidates asks the same; without a wish or with another number it differs."""
    first = asked(calibrated(SINGLE), request(catalogue([1.0, 2.0])))[1:]
    others = tuple(replace(item, id=f"x{item.id}", title="Other") for item in catalogue([3.0, 4.0]))
    assert asked(calibrated(SINGLE), request(others))[1:] == first
    assert asked(calibrated(SINGLE), request(others, history=3))[1:] != first
    assert asked(calibrated(SINGLE), request(others, query="x"))[1:] != first
    assert (
        asked(calibrated(SINGLE), request(others, history=40))[1:] == asked(calibrated(SINGLE), request(others, history=20))[1:]
    )


def test_mixed_texts_stand_together_in_another_order_in_each_question() -> None:
    """With `mix` each question shows as many different titles as there are items and events, and the same ones to all users."""
    strategy = calibrated(SINGLE, content_free="calibration/movies", mix=4)
    question, *priors = asked(strategy, request(catalogue([1.0, 2.0, 3.0])))
    titles = str(Templates().get("calibration/movies").render({})).splitlines()
    assert [prompt.shared for prompt in priors] == [True] * 4
    seen = set()
    for prompt in priors:
        candidates = tuple(shown(prompt).values())
        events = tuple(line[2:] for line in words(prompt).splitlines() if line.startswith("- "))
        assert (len(candidates), len(events)) == (3, 2)
        assert len({*candidates, *events}) == 5
        assert {*candidates, *events} <= set(titles)
        assert len(words(prompt).splitlines()) == len(words(question).splitlines())
        seen.add(candidates + events)
    assert len(seen) == 4
    assert (
        asked(calibrated(SINGLE, content_free="calibration/movies", mix=4), request(catalogue([7.0, 8.0, 9.0])))[1:] == priors
    )
    assert asked(strategy, request(catalogue([1.0, 2.0, 3.0]), query="calm"))[1:] != priors


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 60), st.integers(10, 60), st.sampled_from([None, "calm"]))
def test_mixed_questions_do_not_hang_on_how_long_a_history_is(first: int, second: int, query: str | None) -> None:
    """Users with more events than a prompt shows have the same questions, so that they are asked once; also with a wish."""
    strategy = build_strategy(
        {"kind": "calibrated", "of": dict(SINGLE), "content_free": "calibration/games", "mix": 2}, {"history": 10}
    )
    items = catalogue([1.0, 2.0])
    shorter, longer = (asked(strategy, request(items, history=length, query=query))[1:] for length in (first, second))
    assert shorter == longer


def test_fewer_texts_than_are_shown_come_round_again(tmp_path: Path) -> None:
    """Two texts in a list of five stand in turn; one text alone cannot be mixed, and none and a negative number are refused."""
    folder = tmp_path / "calibration"
    folder.mkdir()
    (folder / "two.jinja").write_text("{% block text %}\nOne\nTwo\n{% endblock %}")
    (folder / "one.jinja").write_text("{% block text %}\nOne\n{% endblock %}")

    def mixed(name: str, mix: int) -> BuiltStrategy:
        return build_strategy(
            {"kind": "calibrated", "of": dict(SINGLE), "content_free": f"calibration/{name}", "mix": mix},
            {"directories": [str(tmp_path)]},
        )

    prior = asked(mixed("two", 1), request(catalogue([1.0, 2.0, 3.0, 4.0, 5.0])))[1]
    places = "".join(text[0] for text in shown(prior).values())
    assert places in ("OTOTO", "TOTOT")
    with pytest.raises(ConfigError, match=r"strategy\.mix.*one text alone"):
        mixed("one", 1)
    for number in (-1, 257):
        with pytest.raises(ConfigError, match=r"strategy\.mix.*from 0 to 256"):
            mixed("two", number)


def test_a_bent_that_lists_of_one_text_hide_is_taken_off_by_mixed_ones() -> None:
    """A model that leans to a place only where titles differ is not calibrated by one text everywhere, but by mixed ones."""

    def leaning(prompt: Prompt) -> Completion:
        texts = shown(prompt)
        bias = {"A": 2.0} if len(set(texts.values())) > 1 else {}
        return bent(bias)(prompt)  # type: ignore[return-value]  # `bent` gives no errors

    items = catalogue([0.0, 1.0])
    assert ask(calibrated(SINGLE), request(items), leaning).item_ids == ["id000", "id001"]
    mixed = calibrated(SINGLE, content_free="calibration/movies", mix=3)
    assert ask(mixed, request(items), leaning).item_ids == ["id001", "id000"]
    assert mixed.calls(2).most == 1 + 3


def test_the_users_own_history_may_stand_before_them() -> None:
    """With `history: user` only the candidates are content-free, and the prompts are this user's."""
    question, *priors = asked(calibrated(SINGLE, history="user"), request(catalogue([1.0, 2.0]), query="a quiet film"))
    for prompt in priors:
        assert words(prompt).partition("<candidates>")[0] == words(question).partition("<candidates>")[0]
        assert not prompt.shared


def test_a_prior_is_measured_once_a_ranking_and_form() -> None:
    """Windows of one size need one prior, whatever their number; each form of a strategy has its own."""
    items = catalogue([float(number) for number in range(20)])
    windows = ask(calibrated({"kind": "single-token", "window": 6, "step": 3}), request(items), bent({}))
    assert sum(exchange.prompt.shared for exchange in windows.trace) == 3
    sets = ask(calibrated({"kind": "setwise", "read": "logprobs"}), request(items), bent({}))
    sizes = {len(exchange.prompt.labels) for exchange in sets.trace}
    assert sum(exchange.prompt.shared for exchange in sets.trace) == 3 * len(sizes) > 3


def failing(when: Callable[[Prompt], bool], fault: Completion | BackendError, model: Answer) -> Answer:
    return lambda prompt: fault if when(prompt) else model(prompt)


@pytest.mark.parametrize("fault", [BadRequestError("refused"), AuthenticationError("refused"), ContextLengthError("refused")])
def test_without_a_prior_nothing_is_taken_off(fault: BackendError) -> None:
    """If all content-free questions fail, the model's own order stays, and a repair tells why."""
    items = catalogue([0.0, 1.0])
    ranking = ask(calibrated(SINGLE), request(items), failing(lambda prompt: prompt.shared, fault, bent({"A": 9.0})))
    assert ranking.item_ids == ["id000", "id001"]
    assert (ranking.status, ranking.repairs) == ("repaired", ("the prior is not taken off: refused",))


def test_a_server_without_probabilities_has_no_prior() -> None:
    """Where content-free answers hold none, nothing is taken off, and a repair tells."""
    plain = Completion("A", "stop")
    ranking = ask(calibrated(SINGLE), request(catalogue([0.0, 1.0])), failing(lambda prompt: prompt.shared, plain, bent({})))
    assert "the prior is not taken off: no log-probabilities came" in ranking.repairs


def test_the_texts_that_got_an_answer_measure_the_prior() -> None:
    """One failure among three is said, and the others count."""
    items = catalogue([0.0, 1.0])
    model = failing(lambda prompt: "MASK" in words(prompt), BadRequestError("refused"), bent({"A": 9.0}))
    ranking = ask(calibrated(SINGLE), request(items), model)
    assert ranking.item_ids == ["id001", "id000"]
    assert (ranking.status, len(ranking.repairs)) == ("repaired", 1)
    assert "2 of 3 content-free questions" in ranking.repairs[0]


def test_labels_that_a_content_free_answer_lacks_count_as_its_least() -> None:
    """A server reports the likeliest tokens only; the prior of the others is not taken for 0."""
    items = catalogue([0.0, 1.0, 2.0])

    def short(prompt: Prompt) -> Completion:
        answer = bent({"A": 5.0})(prompt)
        assert isinstance(answer, Completion)
        logprobs = dict(answer.label_logprobs or {})
        if prompt.shared:
            del logprobs["C"]
        return replace(answer, label_logprobs=logprobs)

    ranking = ask(calibrated(SINGLE), request(items), short)
    assert ranking.item_ids == best_first(items)
    assert ranking.status == "repaired"
    assert "lacks labels" in ranking.repairs[0]


@pytest.mark.parametrize(("logit", "told"), [(-20.0, True), (-10.0, False)])
def test_a_label_that_is_never_chosen_is_named(logit: float, told: bool) -> None:
    """Where a label's prior is next to nothing, what is divided by it may come first for that alone, and a note says so."""
    ranking = ask(calibrated(SINGLE), request(catalogue([0.0, 1.0, 2.0])), bent({"B": logit}))
    assert [note for note in ranking.notes if "prior of B is below" in note] == list(ranking.notes)
    assert bool(ranking.notes) == told
    assert ranking.status == "ok"


def test_once_a_prior_fails_none_is_measured_any_more() -> None:
    """A later form without a prior ends the calibration, as a repair says: no further content-free question is asked."""
    items = catalogue([float(number) for number in range(12)])
    largest = 4

    def small_fail(prompt: Prompt) -> bool:
        return prompt.shared and len(prompt.labels) < largest

    ranking = ask(
        calibrated({"kind": "setwise", "read": "logprobs"}),
        request(items),
        failing(small_fail, BadRequestError("no"), bent({})),
    )
    assert ranking.item_ids == best_first(items)  # this model has no bent
    assert (ranking.status, ranking.repairs) == ("repaired", ("the prior is not taken off from here on: no",))
    assert len({len(each.prompt.labels) for each in ranking.trace if small_fail(each.prompt)}) == 1


def test_a_failed_question_is_the_inner_strategys_matter() -> None:
    """An error of a question about real candidates goes through as it is."""
    items = catalogue([0.0, 1.0])
    ranking = ask(
        calibrated(SINGLE), request(items), failing(lambda prompt: not prompt.shared, BadRequestError("no"), bent({}))
    )
    assert (ranking.status, ranking.item_ids, str(ranking.error)) == ("error", ["id000", "id001"], "no")
    assert ranking.strategy == "calibrated(single-token)"


def test_self_consistency_wraps_calibration() -> None:
    """The other way round works too: each shuffle is calibrated, and the prompts lie within what was stated."""
    strategy = build_strategy({"kind": "self-consistency", "of": {"kind": "calibrated", "of": SINGLE}, "shuffles": 2})
    items = catalogue([1.0, 3.0, 2.0])
    ranking = ask(strategy, request(items), bent({"A": 5.0}))
    assert ranking.strategy == "self-consistency(calibrated(single-token))"
    assert strategy.calls(3).least <= len(ranking.trace) <= strategy.calls(3).most
    assert ranking.item_ids == best_first(items)


@pytest.mark.parametrize(
    "of", [{"kind": "setwise", "read": "logprobs"}, {"kind": "pairwise", "read": "logprobs", "max_calls": 100}, SINGLE], ids=str
)
def test_the_stated_cost_holds_for_the_first_places_too(of: dict[str, Any]) -> None:
    """What measures a prior stops at the places wanted, as the ranking itself does, and is refused no sooner."""
    strategy = calibrated(of)
    wanted = replace(request(catalogue([number / 10 for number in range(20)])), top_k=3)
    ranking = ask(strategy, wanted, bent({}))
    assert strategy.calls(20, 3).least <= len(ranking.trace) <= strategy.calls(20, 3).most


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_no_failure_loses_a_candidate(seed: int, count: int) -> None:
    """Whatever fails, each candidate comes out once, and the status is not ok."""
    dice = random.Random(seed)  # noqa: S311 - failures, no secrets
    faults: list[Completion | BackendError] = [
        BadRequestError("no"),
        AuthenticationError("no"),
        Completion("Hm."),
        Completion(None),
    ]
    failed = []

    def answer(prompt: Prompt) -> Completion | BackendError:
        if dice.random() < 0.3:
            failed.append(prompt)
            return dice.choice(faults)
        return bent({"A": 1.0})(prompt)

    kind = dice.choice(KINDS)
    ranking = ask(calibrated(kind), request(catalogue([dice.random() for _ in range(count)])), answer)
    assert (ranking.status == "ok") <= (not failed)


async def test_a_second_user_finds_the_priors_measured() -> None:
    """Without any answer cache a Ranker measures a prior once; later rankings pay for their own question alone."""

    class Server(ScriptedBackend):
        @property
        def capabilities(self) -> frozenset[Capability]:
            return frozenset({"generate", "label_logprobs"})

    server = Server(bent({"A": 5.0}))
    async with Ranker(server, calibrated(SINGLE)) as ranker:
        requests = [RankRequest([Item("h", title)], catalogue([1.0, 2.0])) for title in ("Heat", "Jaws", "Alien")]
        rankings = [each async for each in ranker.arank_many(requests)]
    assert len(server.prompts) == 3 + 3
    assert sum(each.usage.cache_hits for each in rankings) == 6


class Odd:
    """A strategy that asks only about its two best after an order, and nothing of the kind at first."""

    name = "odd"
    needs: frozenset[Capability] = frozenset({"generate", "label_logprobs"})
    templates: Mapping[str, str] = {}

    def calls(self, count: int, top_k: int | None = None) -> Any:
        raise NotImplementedError

    def flow(self, request: ResolvedRequest, budget: Any) -> Flow:
        yield [Prompt()]
        ids = tuple(item.id for item in request.candidates)
        (answer,) = yield [Prompt(labels=("A", "B"), item_ids=ids, label_logprobs=True)]
        assert isinstance(answer, Completion)
        return Ranking((), notes=(str(answer.label_logprobs),))


def test_a_form_that_cannot_be_asked_of_content_free_items_is_said() -> None:
    """A strategy of one's own may never ask such a question first; then its answers go through unchanged."""
    strategy = Calibrated(Odd(), Templates().get("calibration/content-free"))
    answer = Completion("A", label_logprobs={"A": -1.0, "B": -2.0})
    ranking = advance(strategy.flow(request(catalogue([1.0, 2.0])), WIDE), lambda prompt: answer)
    assert isinstance(ranking, Ranking)
    assert ranking.notes == (str(answer.label_logprobs),)
    assert "no such question" in ranking.repairs[0]


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"of": {"kind": "likelihood"}}, "strategy.of"),
        ({"of": {"kind": "self-consistency", "of": {"kind": "likelihood"}}}, "strategy.of"),
        ({"of": {"kind": "listwise"}}, "strategy.of"),
        ({"of": {"kind": "setwise"}}, "strategy.of"),
        ({"of": {"kind": "self-consistency", "of": {"kind": "top-down"}}}, "strategy.of"),
        ({"of": {"kind": "calibrated", "of": SINGLE}}, "strategy.of"),
        ({"of": {"kind": "self-consistency", "of": {"kind": "calibrated", "of": SINGLE}}}, "strategy.of"),
        ({"of": SINGLE, "weight": 1.5}, "strategy.weight"),
        ({"of": SINGLE, "history": "none"}, "strategy.history"),
        ({"of": SINGLE, "content_free": "listwise/recency"}, "strategy.content_free"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(section: dict[str, Any], field: str) -> None:
    """Likelihoods have a calibration of their own, texts tell no prior, one calibration is enough; wrong values are named."""
    with pytest.raises(ConfigError, match=field):
        build_strategy({"kind": "calibrated", **section})


def test_options_of_ones_own() -> None:
    """It is built from objects too, tells its templates, and needs what the inner strategy needs."""
    inner = build_strategy(SINGLE)
    strategy = Calibrated(inner, Templates().get("calibration/content-free"), CalibratedOptions(weight=0.0))
    assert {"single-token/sequential", "calibration/content-free"} == strategy.templates.keys()
    assert strategy.needs == inner.needs
    items = catalogue([0.0, 1.0])
    assert ask(strategy, request(items), bent({"A": 9.0})).item_ids == ["id000", "id001"]
