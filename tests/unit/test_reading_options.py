"""The section `online.reading`: defaults, and one clear error for what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmrank.errors import ConfigError
from llmrank.experiment.online.reading_options import ReadingOptions, reading_of


def test_a_section_is_read() -> None:
    """The first metric is the primary one, an event is called as its metric, and the level is the experiment's."""
    options = reading_of(
        {
            "planned": 2000,
            "metrics": {
                "purchase": {"kind": "conversion", "window_days": 7},
                "ctr": {"kind": "ratio", "event": "click", "denominator": "view", "better": "lower"},
            },
        },
        alpha=0.1,
    )
    assert options.primary == "purchase"
    assert options.alpha == 0.1
    purchase, ctr = options.metrics
    assert (purchase.outcomes, purchase.window_s, purchase.sign) == ("purchase", 7 * 86400, 1)
    assert (ctr.outcomes, ctr.window_s, ctr.sign) == ("click", math.inf, -1)


def test_the_primary_metric_comes_first() -> None:
    """Also where the file names it last."""
    options = reading_of({"primary": "b", "metrics": {"a": {"kind": "mean"}, "b": {"kind": "mean"}, "c": {"kind": "mean"}}})
    assert [metric.name for metric in options.ordered] == ["b", "a", "c"]


def test_the_level_is_divided() -> None:
    """Looks at any time and the look at the plan share it; without a plan, or without early looks, one has all of it."""
    assert ReadingOptions(alpha=0.05).levels(None) == (0.05, 0.0)
    assert ReadingOptions(alpha=0.05).levels(100) == pytest.approx((0.01, 0.04))
    assert ReadingOptions(alpha=0.05, early=0).levels(100) == (0.0, 0.05)


def test_an_empty_section_is_one() -> None:
    """Nothing has to be there: interleaved lists need no metric."""
    assert reading_of(None) == ReadingOptions()


@pytest.mark.parametrize(
    ("section", "field", "words"),
    [
        ({"metrcs": {}}, "online.reading.metrcs", "did you mean 'metrics'"),
        ({"metrics": [1]}, "online.reading.metrics", "must be a mapping"),
        ({"metrics": {"a": {}}}, "online.reading.metrics.a.kind", "is missing"),
        ({"metrics": {"a": {"kind": "convers"}}}, "online.reading.metrics.a.kind", "conversion"),
        ({"metrics": {"a": {"kind": "mean", "evnt": "x"}}}, "online.reading.metrics.a.evnt", "did you mean 'event'"),
        ({"metrics": {"a": {"kind": "mean", "name": "x"}}}, "online.reading.metrics.a.name", "its key"),
        ({"metrics": {"a": {"kind": "mean", "event": ""}}}, "online.reading.metrics.a.event", "is empty"),
        ({"metrics": {"": {"kind": "mean"}}}, "online.reading.metrics", "is empty"),
        ({"metrics": {"a": {"kind": "ratio"}}}, "online.reading.metrics.a.denominator", "is missing"),
        ({"metrics": {"a": {"kind": "mean", "denominator": "v"}}}, "online.reading.metrics.a.denominator", "has none"),
        ({"metrics": {"a": {"kind": "mean", "window_days": 0}}}, "online.reading.metrics.a.window_days", "above 0"),
        ({"metrics": {"a": {"kind": "mean", "window_days": math.nan}}}, "online.reading.metrics.a.window_days", "above 0"),
        ({"metrics": {"a": {"kind": "mean", "window_days": "7"}}}, "online.reading.metrics.a.window_days", "valid number"),
        ({"metrics": {"a": {"kind": "mean", "better": "more"}}}, "online.reading.metrics.a.better", "higher"),
        ({"primary": "b", "metrics": {"a": {"kind": "mean"}}}, "online.reading.primary", "known: a"),
        ({"planned": 1}, "online.reading.planned", "at least 2"),
        ({"planned": True}, "online.reading.planned", "valid integer"),
        ({"interleaved": 0}, "online.reading.interleaved", "at least 2"),
        ({"alpha": 1.0}, "online.reading.alpha", "between 0 and 1"),
        ({"early": 1.0}, "online.reading.early", "below 1"),
    ],
)
def test_a_wrong_section_gives_one_clear_error(section: dict[str, Any], field: str, words: str) -> None:
    """The field is named in full, as it stands in the file."""
    with pytest.raises(ConfigError, match=words) as caught:
        reading_of(section)
    assert caught.value.field == field
