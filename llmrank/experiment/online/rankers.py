"""Configurations of rankers by name go in, Rankers by name come out: all of them now, or each when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrank.catalog import Catalog
from llmrank.config import build_ranker
from llmrank.errors import CapabilityError, ClosedError, ConfigError, InputError, SetupError
from llmrank.ranker import Ranker
from llmrank.sections import load_yaml


class Rankers(Mapping[str, Ranker]):
    """Rankers by name, each built when it is first looked up; `close` closes those that were."""

    def __init__(self, configs: Mapping[str, Mapping[str, Any]], catalog: Catalog | None) -> None:
        self._configs, self._catalog = configs, catalog
        self._lock = threading.Lock()
        self._built: dict[str, Ranker] = {}
        self._closed = False

    def __getitem__(self, name: str) -> Ranker:
        if (found := self._built.get(name)) is not None:
            return found
        with self._lock:
            if self._closed:
                raise ClosedError("these Rankers have been closed; make the Experiment anew")
            if name not in self._built:
                with named(name):
                    self._built[name] = build_ranker(self._configs[name], catalog=self._catalog)
            return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._configs)

    def __len__(self) -> int:
        return len(self._configs)

    @property
    def built(self) -> list[Ranker]:
        """Those that were built."""
        with self._lock:
            return list(self._built.values())

    def close(self) -> None:
        """Closes those that were built; none is built from now on. May be called twice."""
        with self._lock:
            self._closed = True
            for ranker in self._built.values():
                ranker.close()


def build_rankers(
    variants: Mapping[str, Any], *, folder: Path, catalog: Catalog | str | Path | None = None, lazy: bool = False
) -> Rankers:
    """Builds rankers from their configurations, or, if `lazy`, checks the configurations and builds nothing yet.

    Args:
        variants: A configuration, or the path of its file, by name.
        folder: What paths are relative to.
        catalog: For all of them; None for the one that each configuration names.
        lazy: True leaves building to the first use.

    Raises:
        ConfigError: a key is unknown or a value is wrong; the variant is named.
        SetupError, CapabilityError: a ranker cannot be built; the variant is named.
    """
    configs = {}
    for name, config in variants.items():
        found = load_yaml(folder / config, f"variants.{name}") if isinstance(config, str) else config
        if not isinstance(found, Mapping):
            fix = "write {backend: ..., prompt: ...}, or the path of such a file"
            raise ConfigError("must be a ranker's configuration", field=f"variants.{name}", value=found, fix=fix)
        configs[name] = found
    rankers = Rankers(configs, catalog if isinstance(catalog, Catalog) or catalog is None else Catalog.load(catalog))
    for name, config in configs.items():  # all of them before any model is loaded
        with named(name):
            build_ranker(config, catalog=rankers._catalog, unasked=True).close()
    if not lazy:
        try:
            for name in configs:
                rankers[name]
        except BaseException:
            rankers.close()
            raise
    return rankers


@contextmanager
def named(variant: str) -> Iterator[None]:
    """Puts a variant's name before the errors that its configuration gives."""
    try:
        yield
    except InputError as error:
        field = f"variants.{variant}.{error.field}" if error.field else f"variants.{variant}"
        raise ConfigError(error.message, field=field, value=error.value, fix=error.fix) from error
    except (SetupError, CapabilityError) as error:
        raise type(error)(f"variants.{variant}: {error}") from error
