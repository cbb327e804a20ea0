"""A model's name and what it used go in, US dollars come out; None where nobody has said what the model costs.

A price is looked up in the caller's own mapping first (a suite's section `prices`), then in the file that `$LLMRANK_PRICES`
names, then in the table beside this module (`prices.json`). All three have one form: model name -> ``{input, cached_input,
output, batch, as_of, source, note}``. Prices change: each entry of the table says when and where it was looked up, and the page
that counts is the provider's (https://developers.openai.com/api/docs/pricing). Only the names of models are looked at, not the
address at which they are asked. Long prompts that cost more (from 272,000 tokens on, with some models) are not told apart.
"""

from __future__ import annotations

import datetime
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError
from llmrank.sections import load_yaml, make
from llmrank.types import Usage

VARIABLE = "LLMRANK_PRICES"
"""The environment variable that names a file of prices (YAML or JSON)."""

FREE_KINDS = frozenset({"local", "vllm", "vllm-inprocess", "replay"})
"""Backends that nobody sends a bill for: what they cost is the machine's time."""

MILLION = 1_000_000

_TABLE = Path(__file__).with_name("prices.json")
# gpt-4.1-mini-2025-04-14, claude-haiku-4-5-20251001
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in USD per 1,000,000 tokens.

    Attributes:
        input: For prompt tokens.
        output: For answer tokens, hidden reasoning included.
        cached_input: For prompt tokens that the server read from its prefix cache; None for as much as `input`.
        batch: What part of these prices a batch API takes, above 0 and at most 1; None if it is not known.
        as_of: When the price was looked up, an ISO date.
        source: Where.
        note: What these numbers leave out, a sentence.
    """

    input: float
    output: float
    cached_input: float | None = None
    batch: float | None = None
    as_of: str = ""
    source: str = ""
    note: str = ""

    def usd(self, usage: Usage | Mapping[str, Any], *, batch: bool = False) -> float | None:
        """What a usage costs.

        Args:
            usage: A Usage, or a mapping with its fields `prompt_tokens`, `cached_tokens` (a part of them) and
                `completion_tokens`.
            batch: True for the prices of a batch API.

        Returns:
            US dollars; None if the batch price is asked for and not known.
        """
        prompt, cached, completion = _tokens(usage)
        if batch and self.batch is None:
            return None
        cached_price = self.input if self.cached_input is None else self.cached_input
        cost = ((prompt - cached) * self.input + cached * cached_price + completion * self.output) / MILLION
        return cost * self.batch if batch and self.batch is not None else cost


FREE = Price(0.0, 0.0, 0.0, 1.0)
"""What a machine of one's own charges."""


class Prices:
    """Prices by model.

    Args:
        tables: Model name -> Price; an earlier table comes before a later one.
    """

    def __init__(self, tables: Sequence[Mapping[str, Price]]) -> None:
        self._tables = tuple(tables)

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | str | Path | None = None) -> Prices:
        """The prices that are packaged, behind those of `$LLMRANK_PRICES`, behind the caller's own.

        Args:
            overrides: Model name -> ``{input, output, ...}`` (the section `prices` of a suite), or the path of such a file.

        Raises:
            ConfigError: a file cannot be read, a key is unknown, or a price is no number from 0 on; model and key are named.
        """
        tables = []
        if overrides is not None:
            given = load_yaml(overrides, "prices") if isinstance(overrides, str | Path) else overrides
            tables.append(_read(given, "prices"))
        if path := os.environ.get(VARIABLE):
            tables.append(_read(load_yaml(path, VARIABLE), VARIABLE))
        tables.append(_read(load_yaml(_TABLE, _TABLE.name), _TABLE.name))
        return cls(tables)

    def find(self, model: str) -> Price | None:
        """The price of a model; None if no table has it.

        In each table the name itself comes first, then the name without a date behind it: ``gpt-4.1-mini-2025-04-14`` costs
        what ``gpt-4.1-mini`` does unless the table says otherwise.
        """
        names = (model, _DATE.sub("", model))
        return next((table[name] for table in self._tables for name in names if name in table), None)

    def at_backend(self, kind: str, model: str) -> Price | None:
        """The price of a model at a backend of this kind: one that a table names, `FREE` for `FREE_KINDS`, otherwise None.

        So what a machine of your own costs can be given as a price of the model that it serves.
        """
        return self.find(model) or (FREE if kind in FREE_KINDS else None)

    def usd(self, model: str, usage: Usage | Mapping[str, Any], *, batch: bool = False) -> float | None:
        """What a usage of a model costs in US dollars (see `Price.usd`); None if its price is not known."""
        price = self.find(model)
        return None if price is None else price.usd(usage, batch=batch)


def _tokens(usage: Usage | Mapping[str, Any]) -> tuple[int, int, int]:
    """Prompt tokens, those of them that were cached, answer tokens."""
    if not isinstance(usage, Usage):
        usage = Usage(usage["prompt_tokens"], usage["completion_tokens"], usage.get("cached_tokens", 0))
    # A server may round the cached part up to whole blocks.
    return usage.prompt_tokens, min(usage.cached_tokens, usage.prompt_tokens), usage.completion_tokens


def _read(table: object, where: str) -> dict[str, Price]:
    if table is None:  # a YAML file with nothing but comments
        return {}
    if not isinstance(table, Mapping):
        raise ConfigError(
            "must be a mapping of models", field=where, value=table, fix="write {model: {input: 1.0, output: 4.0}}"
        )
    return {_name(model, where): _price(values, f"{where}.{model}") for model, values in table.items()}


def _name(model: object, where: str) -> str:
    if not isinstance(model, str) or not model:
        raise ConfigError("a model's name must be a text", field=where, value=model, fix="put it in quotes")
    return model


def _price(values: object, where: str) -> Price:
    if not isinstance(values, Mapping):
        fix = "write {input: 1.0, output: 4.0}, in USD per 1,000,000 tokens"
        raise ConfigError("must be a mapping of prices", field=where, value=values, fix=fix)
    # YAML reads a date that is not in quotes as one.
    dated = {key: value.isoformat() if isinstance(value, datetime.date) else value for key, value in values.items()}
    price = make(Price, dated, where)
    for key in ("input", "output", "cached_input"):
        value = getattr(price, key)
        if value is not None and not 0 <= value < math.inf:
            fix = "give USD per 1,000,000 tokens"
            raise ConfigError("must be a finite number from 0 on", field=f"{where}.{key}", value=value, fix=fix)
    if price.batch is not None and not 0 < price.batch <= 1:
        raise ConfigError("must be above 0 and at most 1", field=f"{where}.batch", value=price.batch, fix="0.5 is half price")
    return price
