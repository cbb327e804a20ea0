"""The sections `strategy` and `prompt` in, a strategy out: what each kind refuses, and what reaches its prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import ConfigError
from llmrank.strategy_kinds import KINDS, build_strategy
from llmrank.types import Event, Item, Ranking, ResolvedRequest
from tests.unit.oracle import Oracle

FILMS = tuple(Item(f"c{number}", f"Film {number}") for number in range(4))
REQUEST = ResolvedRequest((Event(Item("h", "Heat")),), FILMS, "tense")
WIDE = Budget(100_000, EstimateCounter())

OWN = {
    "listwise": "listwise/recency",
    "tourrank": "listwise/recency",
    "top-down": "listwise/recency",
    "single-token": "single-token/sequential",
    "likelihood": "likelihood/next-line",
    "query-likelihood": "query-likelihood/item-first",
    "pointwise": "pointwise/yes-no",
    "pairwise": "pairwise/next",
    "setwise": "setwise/next",
}
"""A template of the folder that each kind takes its own from."""
BY_TOKEN = {"read": "logprobs"}


def run(section: dict[str, Any], prompt: dict[str, Any] | None = None) -> Ranking:
    ranking = advance(build_strategy(section, prompt).flow(REQUEST, WIDE), Oracle([item.id for item in REQUEST.candidates]))
    assert isinstance(ranking, Ranking)
    return ranking


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("template", sorted({*OWN.values(), "probe/title", "calibration/content-free"}))
def test_a_template_of_another_kind_is_refused(kind: str, template: str) -> None:
    """What asks for another form of answer would contradict what is read; the remedy names the folder of this kind."""
    folder = OWN[kind].partition("/")[0]
    if template.startswith(f"{folder}/"):
        assert template in build_strategy({"kind": kind}, {"template": template}).templates
        return
    with pytest.raises(ConfigError, match=rf"^prompt\.template: .* under {folder}/$"):
        build_strategy({"kind": kind}, {"template": template})


@pytest.mark.parametrize("kind", ["tourrank", "top-down"])
def test_lists_that_are_read_by_one_token_take_its_templates(kind: str) -> None:
    """By text a list is asked for as in `listwise`, by probabilities as in `single-token`."""
    assert "single-token/sequential" in build_strategy({"kind": kind, **BY_TOKEN}, {"template": OWN["single-token"]}).templates
    with pytest.raises(ConfigError, match="under single-token/"):
        build_strategy({"kind": kind, **BY_TOKEN}, {"template": "listwise/recency"})


def test_templates_of_wrapped_kinds_are_looked_at_too() -> None:
    """The section `prompt` is for the strategy inside, and its template is called by the same name."""
    section = {"kind": "self-consistency", "of": {"kind": "setwise"}}
    with pytest.raises(ConfigError, match=r"^prompt\.template: .*under setwise/"):
        build_strategy(section, {"template": "listwise/recency"})


def test_folders_of_ones_own_are_free(tmp_path: Path) -> None:
    """What a template outside of the known folders asks for is not known, so any kind may use it."""
    (tmp_path / "mine").mkdir()
    for name in ("mine/one", "two"):
        (tmp_path / f"{name}.jinja").write_text('{% extends "setwise/next.jinja" %}', encoding="utf-8")
        for kind in ("setwise", "pairwise", "single-token", "listwise"):
            built = build_strategy({"kind": kind}, {"template": name, "directories": [str(tmp_path)]})
            assert list(built.templates) == [name]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"of": {"kind": "listwise", "windw": 4}}, r"^strategy\.of\.windw: unknown key; did you mean 'window'"),
        ({"of": {"kind": "listwise", "window": 1}}, r"^strategy\.of\.window: must be at least 2 \(got 1\)"),
        ({"of": {"kind": "listwise", "window": "4"}}, r"^strategy\.of\.window: .*got '4'"),
        ({"of": {"kind": "listwize"}}, r"^strategy\.of\.kind: unknown kind .*did you mean 'listwise'"),
        ({"of": {"window": 4}}, r"^strategy\.of\.kind: is missing"),
        ({"of": {"kind": "calibrated", "of": {"kind": "single-token", "windw": 1}}}, r"^strategy\.of\.of\.windw: unknown key"),
        ({"off": {"kind": "listwise"}}, r"^strategy\.off: unknown key; did you mean 'of'"),
        ({"of": "listwise"}, r"^strategy\.of: must be a mapping"),
        ({}, r"^strategy\.of: is missing"),
        ({"of": {"kind": "listwise"}, "shufles": 3}, r"^strategy\.shufles: unknown key; did you mean 'shuffles'"),
    ],
)
def test_a_mistake_inside_a_wrapper_is_named_where_it_stands(section: dict[str, Any], said: str) -> None:
    """Keys of the strategy inside are named under `strategy.of`, however deep; keys of the wrapper are not."""
    with pytest.raises(ConfigError, match=said):
        build_strategy({"kind": "self-consistency", **section})


@pytest.mark.parametrize("kind", ["tourrank", "top-down"])
@pytest.mark.parametrize("read", ["text", "logprobs"])
def test_lists_are_asked_as_the_options_say(kind: str, read: str) -> None:
    """Temperature, seed and the most tokens reach each prompt, whether a text or one token is read."""
    ranking = run({"kind": kind, "read": read, "temperature": 0.5, "seed": 7, "max_tokens": 9})
    asked = {(each.prompt.temperature, each.prompt.seed, each.prompt.max_tokens) for each in ranking.trace}
    assert asked == {(0.5, 7, 9)}


@pytest.mark.parametrize("kind", ["tourrank", "top-down"])
def test_one_token_cannot_be_asked_for_again(kind: str) -> None:
    """There is nothing to complete, so `repair` would do nothing."""
    with pytest.raises(ConfigError, match=r"^strategy\.repair: .*read: text"):
        build_strategy({"kind": kind, **BY_TOKEN, "repair": True})


@pytest.mark.parametrize("kind", ["listwise", "tourrank", "top-down"])
def test_the_second_try_has_a_template_of_its_own(kind: str) -> None:
    """`repair` asks again by the template of repairs, also where another one is named for the first try."""
    strategy = build_strategy({"kind": kind, "repair": True}, {"template": "listwise/recency"})
    assert set(strategy.templates) == {"listwise/recency", "listwise/repair"}


def test_every_kind_is_looked_at_here() -> None:
    """All but the wrappers have a template."""
    assert set(OWN) == set(KINDS) - {"self-consistency", "calibrated"}
