"""The configuration of a ranker or a baseline goes in, something that ranks a stream of requests comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from llmrank.backends.lending import BackendPool
from llmrank.catalog import Catalog
from llmrank.config import build_ranker, load_config
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.running.baselines import Baseline, build_baseline
from llmrank.evaluation.running.learning import trained
from llmrank.evaluation.running.meter import CurrentMeter, Meter, MeteredBackend
from llmrank.prices import Price, Prices
from llmrank.ranker import Ranker
from llmrank.strategy_kinds import build_strategy
from llmrank.template import Template, Templates
from llmrank.types import Ranking, RankRequest, Usage


class Contender(Protocol):
    """What is compared: a Ranker, or a baseline without a model."""

    def rank_many(self, requests: Iterable[RankRequest]) -> Iterator[Ranking]:
        """One Ranking a request, in order."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


def is_baseline(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is a baseline's."""
    return "baseline" in config


def templates_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The fingerprints of the templates that a configuration asks with, by name.

    Raises:
        ConfigError, TemplateError: the configuration or a template is wrong.
    """
    if is_baseline(config):
        return {}
    sections = load_config(config)
    return build_strategy(sections.get("strategy") or {"kind": "listwise"}, sections.get("prompt")).templates


def templates_used(config: Mapping[str, Any]) -> list[Template]:
    """The templates that a configuration asks with, as they are now; errors as for `templates_of`."""
    names = templates_of(config)
    if not names:
        return []
    section = load_config(config).get("prompt") or {}
    templates = Templates(*section.get("directories", ()))
    return [templates.get(name) for name in names]


def build_contender(
    name: str,
    config: Mapping[str, Any],
    folder: RunFolder,
    *,
    seed: int,
    prices: Prices,
    meter: Meter | CurrentMeter | None,
    pool: BackendPool | None = None,
) -> Ranker | Baseline:
    """Builds a contender of a run.

    Args:
        name: Its name in the suite.
        config: Its configuration. A Ranker that names no answer cache gets the run's own; what has to learn from interactions
            and names no model is trained, once a run.
        folder: The run's, with its data.
        seed: The suite's.
        prices: What models cost.
        meter: Where answers that a model computed are noted; None for nowhere.
        pool: Where a Ranker's backend is borrowed; None for one of its own.

    Raises:
        LLMRankError: the configuration is wrong, or this machine lacks what it needs.
    """
    catalog: Catalog = folder.catalog
    config = trained(config, folder, f"rankers.{name}")
    if is_baseline(config):
        return build_baseline(config, catalog=catalog, popularity=folder.popularity, seed=seed, where=f"rankers.{name}")
    cache: Path = folder.path / "answers.sqlite"
    if meter is None:
        return build_ranker(config, catalog=catalog, default_cache=cache, pool=pool)

    def price(model: str, usage: Usage) -> float | None:
        found = price_at(config, model, prices)
        return None if found is None else found.usd(usage)

    return build_ranker(
        config,
        catalog=catalog,
        default_cache=cache,
        around=lambda backend: MeteredBackend(backend, meter, name, price),
        pool=pool,
    )


def price_at(config: Mapping[str, Any], model: str, prices: Prices) -> Price | None:
    """What a model costs with the backend that a configuration names; None if that is not known.

    A gateway may call the model otherwise than it was asked for: a name without a price costs what the configured one does.
    """
    kind, section = backend_kind(config), _asked_backend(config)
    return prices.at_backend(kind, model) or prices.at_backend(kind, str(section.get("model", "")))


def backend_kind(config: Mapping[str, Any]) -> str:
    """The kind of the backend that is asked in the end: of a recording, the one that is recorded. Empty for baselines."""
    return str(_asked_backend(config).get("kind", ""))


def model_of(config: Mapping[str, Any]) -> str | None:
    """The model that a configuration names, or that its backend takes by default; None for baselines."""
    from llmrank.backends.local import LocalOptions

    section = _asked_backend(config)
    found = section.get("model", LocalOptions().model if section.get("kind") == "local" else None)
    return None if found is None else str(found)


def _asked_backend(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section: Mapping[str, Any] = config.get("backend") or {}
    while section.get("record"):
        section = section["record"]
    return section
