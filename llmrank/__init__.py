"""llmrank: prompt-driven ranking. A history or a sentence and a candidate set go in, an order comes out.

Importing this package is cheap: whatever needs a template engine, numpy or an SDK is loaded when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from llmrank.errors import BackendError, ConfigError, InputError, LLMRankError
from llmrank.types import Completion, Constraint, Cut, Event, Item, Prompt, RankedItem, Ranking, RankRequest, Usage, Wish

if TYPE_CHECKING:
    from llmrank.backends.guard import Limits
    from llmrank.catalog import Catalog
    from llmrank.fusion import Fusion
    from llmrank.ranker import Ranker

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Catalog",
    "Completion",
    "ConfigError",
    "Constraint",
    "Cut",
    "Event",
    "Fusion",
    "InputError",
    "Item",
    "LLMRankError",
    "Limits",
    "Prompt",
    "RankRequest",
    "RankedItem",
    "Ranker",
    "Ranking",
    "Usage",
    "Wish",
    "__version__",
]

_LAZY = {
    "Catalog": "llmrank.catalog",
    "Fusion": "llmrank.fusion",
    "Limits": "llmrank.backends.guard",
    "Ranker": "llmrank.ranker",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
