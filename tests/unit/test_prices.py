"""What a model's tokens cost: units, whose price comes first, and what is refused."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import prices as prices_module
from llmrank.errors import ConfigError
from llmrank.evaluation.records import usage_record
from llmrank.prices import FREE_KINDS, VARIABLE, Price, Prices
from llmrank.types import Usage

OWN = {"house-model": {"input": 2.0, "cached_input": 0.5, "output": 8.0, "batch": 0.5}}
TABLE: dict[str, dict[str, Any]] = json.loads(Path(prices_module.__file__).with_name("prices.json").read_text(encoding="utf-8"))
COUNTS = st.integers(0, 10**9)


@pytest.fixture(autouse=True)
def _no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_million_tokens_cost_the_price() -> None:
    """Prompt, cached and answer tokens each at their own price, in USD a million; cached tokens are a part of the prompt's."""
    prices = Prices.load(OWN)
    assert prices.usd("house-model", Usage(prompt_tokens=1_000_000)) == pytest.approx(2.0)
    assert prices.usd("house-model", Usage(completion_tokens=1_000_000)) == pytest.approx(8.0)
    assert prices.usd("house-model", Usage(prompt_tokens=1_000_000, cached_tokens=1_000_000)) == pytest.approx(0.5)
    # 600 at 2 USD, 400 at 0.5, 50 at 8: 1200 + 200 + 400 = 1800 millionths.
    usage = Usage(prompt_tokens=1_000, cached_tokens=400, completion_tokens=50)
    assert prices.usd("house-model", usage) == pytest.approx(0.0018)
    assert prices.usd("house-model", usage, batch=True) == pytest.approx(0.0009)
    assert prices.usd("house-model", usage_record(usage)) == prices.usd("house-model", usage)


@given(COUNTS, COUNTS, COUNTS)
def test_a_cost_grows_with_every_token_and_a_cache_never_costs_more(prompt: int, cached: int, completion: int) -> None:
    """Whatever a server reports, also more cached tokens than the prompt has: no cost is negative or above the uncached one."""
    price = Price(2.0, 8.0, 0.5)
    cost = price.usd(Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion))
    uncached = price.usd(Usage(prompt_tokens=prompt, completion_tokens=completion))
    assert cost is not None
    assert uncached is not None
    assert 0 <= cost <= uncached
    more = price.usd(Usage(prompt_tokens=prompt + 1, cached_tokens=cached, completion_tokens=completion + 1))
    assert more is not None
    assert more > cost


def test_an_unknown_model_has_no_cost_rather_than_none_to_pay() -> None:
    """None, also for nothing used; a price without a batch part has no batch cost."""
    prices = Prices.load()
    assert prices.find("no-such-model") is None
    assert prices.usd("no-such-model", Usage()) is None
    assert prices.usd("", Usage()) is None
    assert Price(1.0, 1.0).usd(Usage(prompt_tokens=1), batch=True) is None


def test_a_price_without_one_for_cached_tokens_takes_that_of_the_others() -> None:
    """No discount is made up."""
    assert Price(2.0, 8.0).usd(Usage(prompt_tokens=1_000_000, cached_tokens=500_000)) == pytest.approx(2.0)


def test_a_date_behind_a_name_is_left_out_unless_the_table_has_it() -> None:
    """A dated snapshot costs what its model does; one with a price of its own keeps that."""
    prices = Prices.load()
    for dated in ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini-20250414"):
        assert prices.find(dated) == prices.find("gpt-4.1-mini") is not None
    assert prices.find("gpt-4o-2024-08-06") == prices.find("gpt-4o")
    assert prices.find("gpt-4o-2024-05-13") != prices.find("gpt-4o")
    assert prices.find("gpt-4.1-mini-preview") is None
    assert prices.find("gpt-4.1-mini-2025") is None


def test_own_prices_come_before_the_file_and_the_file_before_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each replaces a model's price whole; an earlier table's base name stands before a later one's dated name."""
    file = tmp_path / "prices.yaml"
    file.write_text("gpt-4.1-mini: {input: 3, output: 4}\ngpt-4o: {input: 5, output: 6, as_of: 2026-11-01}\n", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(file))
    prices = Prices.load({"gpt-4.1-mini": {"input": 1, "output": 2}})
    assert prices.find("gpt-4.1-mini-2025-04-14") == Price(1, 2)
    assert prices.find("gpt-4o-2024-05-13") == Price(5, 6, as_of="2026-11-01")
    assert prices.find("gpt-4.1") == Prices.load().find("gpt-4.1") is not None
    assert Prices.load(file).find("gpt-4.1-mini") == Price(3, 4)


def test_backends_of_ones_own_cost_nothing_unless_a_price_is_given() -> None:
    """Local models, vLLM servers and recordings send no bill; a rented machine's price can be given by the model's name."""
    usage = Usage(prompt_tokens=10**6, completion_tokens=10**6)
    for kind in FREE_KINDS:
        price = Prices.load().at_backend(kind, "smol")
        assert price is not None
        assert price.usd(usage) == price.usd(usage, batch=True) == 0.0
    assert Prices.load().at_backend("openai", "smol") is None
    rented = Prices.load({"smol": {"input": 1.0, "output": 1.0}})
    assert rented.at_backend("vllm", "smol") == Price(1.0, 1.0)


def test_the_packaged_table_says_when_and_where_each_price_was_read() -> None:
    """Every entry is whole: positive prices, a cached one that is lower, a date that is past, an address."""
    assert "gpt-4.1-mini" in TABLE
    for model in TABLE:
        price = Prices.load().find(model)
        assert price is not None
        assert 0 < price.input < price.output, model
        assert price.cached_input is None or 0 < price.cached_input < price.input, model
        assert price.batch == 0.5
        assert date(2026, 1, 1) <= date.fromisoformat(price.as_of) <= date(2026, 11, 22)
        assert price.source.startswith("https://")


@pytest.mark.parametrize(
    ("overrides", "field", "message"),
    [
        ({"m": {"input": 1, "outptu": 2}}, "prices.m.outptu", "did you mean 'output'?"),
        ({"m": {"input": 1}}, "prices.m.output", "is missing"),
        ({"m": {"input": "1", "output": 1}}, "prices.m.input", "number"),
        ({"m": {"input": True, "output": 1}}, "prices.m.input", "number"),
        ({"m": {"input": -1, "output": 1}}, "prices.m.input", "USD per 1,000,000 tokens"),
        ({"m": {"input": 1, "output": float("nan")}}, "prices.m.output", "finite"),
        ({"m": {"input": 1, "output": 1, "cached_input": float("inf")}}, "prices.m.cached_input", "finite"),
        ({"m": {"input": 1, "output": 1, "batch": 0}}, "prices.m.batch", "0.5 is half price"),
        ({"m": 0.4}, "prices.m", "mapping of prices"),
        ({4: {"input": 1, "output": 1}}, "prices", "text"),
        (["m"], "prices", "mapping of models"),
    ],
)
def test_a_mistake_is_named_by_model_and_key(overrides: Any, field: str, message: str) -> None:
    """One error that names field and fix."""
    with pytest.raises(ConfigError) as caught:
        Prices.load(overrides)
    assert caught.value.field == field
    assert message in str(caught.value)
    assert caught.value.fix


def test_a_file_that_is_not_there_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the variable and the path; an empty file holds no prices."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=VARIABLE):
        Prices.load()
    (tmp_path / "none.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert Prices.load().find("gpt-4o") is not None
