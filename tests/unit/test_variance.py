"""Variance components: against the analysis of variance, against parts that are known, and what a design cannot tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llmrank.errors import InputError
from llmrank.experiment.statistics.variance import Variation, components


def design(users: int, variants: int, orders: int, samples: int, sds: tuple[float, ...], seed: int = 1) -> dict[str, Any]:
    """Measurements of a complete design, made of parts with these deviations: as `parts` gives them."""
    normal = np.random.default_rng(seed).normal
    shape = (users, variants, orders, samples)
    parts = (
        (users, 1, 1, 1),
        (1, variants, 1, 1),
        (users, variants, 1, 1),
        (users, 1, orders, 1),
        (users, variants, orders, 1),
        shape,
    )
    values = sum(sd * normal(size=part) for sd, part in zip(sds, parts, strict=True)) + np.zeros(shape)
    labels = np.indices(shape).reshape(4, -1)
    return dict(zip(("users", "variants", "orders", "samples"), labels, strict=True)) | {"values": values.ravel()}


def parts(found: Variation) -> list[float | None]:
    return [found.user, found.prompt, found.user_prompt, found.order, found.order_prompt, found.sampling]


def analysis_of_variance(data: dict[str, Any], users: int, variants: int, orders: int, samples: int) -> list[float]:
    """The textbook's estimates: mean squares of the complete design and their expectations, solved."""
    y = data["values"].reshape(users, variants, orders, samples)
    grand = y.mean()
    u, v, uv = (y.mean(axis=axis, keepdims=True) for axis in ((1, 2, 3), (0, 2, 3), (2, 3)))
    uo, uvo = y.mean(axis=(1, 3), keepdims=True), y.mean(axis=3, keepdims=True)
    ms_u = variants * orders * samples * ((u - grand) ** 2).sum() / (users - 1)
    ms_v = users * orders * samples * ((v - grand) ** 2).sum() / (variants - 1)
    ms_uv = orders * samples * ((uv - u - v + grand) ** 2).sum() / ((users - 1) * (variants - 1))
    ms_o = variants * samples * ((uo - u) ** 2).sum() / (users * (orders - 1))
    ms_vo = samples * ((uvo - uv - uo + u) ** 2).sum() / (users * (orders - 1) * (variants - 1))
    ms_e = ((y - uvo) ** 2).sum() / (users * variants * orders * (samples - 1))
    return [
        (ms_u - ms_uv - ms_o + ms_vo) / (variants * orders * samples),
        (ms_v - ms_uv) / (users * orders * samples),
        (ms_uv - ms_vo) / (orders * samples),
        (ms_o - ms_vo) / (variants * samples),
        (ms_vo - ms_e) / samples,
        ms_e,
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_complete_design_is_an_analysis_of_variance(seed: int) -> None:
    """Every part is that of the mean squares; one below 0 is 0."""
    size = (12, 3, 2, 3)
    data = design(*size, (1.0, 0.3, 0.5, 0.7, 0.2, 0.6), seed)
    expected = analysis_of_variance(data, *size)
    found = components(**data)
    assert parts(found) == pytest.approx([max(0.0, part) for part in expected], abs=1e-12)
    assert found.total == pytest.approx(sum(expected))
    assert (found.measurements, found.users, found.variants, found.notes, found.rest) == (216, 12, 3, (), None)


def test_known_parts_are_found() -> None:
    """With many users, each part is near what it was made with; also where a fifth of the measurements is missing."""
    sds = (1.0, 0.0, 0.5, 0.7, 0.4, 0.6)
    data = design(3000, 4, 2, 2, sds)
    gaps = data | {"values": np.where(np.random.default_rng(2).random(48_000) < 0.2, math.nan, data["values"])}
    for found in (components(**data), components(**gaps)):
        assert parts(found) == pytest.approx([sd**2 for sd in sds], abs=0.06)
        assert found.total == pytest.approx(sum(sd**2 for sd in sds), abs=0.08)


@pytest.mark.parametrize(
    ("size", "told", "rest"),
    [
        ((4000, 3, 2, 1), (1.0, 0.0, 0.25, 0.49, None, None), 0.52),
        ((4000, 3, 1, 2), (1.49, 0.0, None, None, None, 0.36), 0.41),
        ((4000, 3, 1, 1), (1.49, 0.0, None, None, None, None), 0.77),
        ((4000, 1, 2, 2), (1.25, None, None, 0.65, None, 0.36), None),
        ((4000, 1, 2, 1), (1.25, None, None, None, None, None), 1.01),
        ((4000, 1, 1, 2), (1.9, None, None, None, None, 0.36), None),
        ((4000, 1, 1, 1), (None, None, None, None, None, None), 2.26),
    ],
)
def test_what_a_design_cannot_tell(size: tuple[int, int, int, int], told: tuple[float | None, ...], rest: float | None) -> None:
    """Without repeats of a kind their part is None, never 0, and stands in the user's or in the rest, as the notes say."""
    found = components(**design(*size, (1.0, 0.0, 0.5, 0.7, 0.4, 0.6)))
    for part, expected in zip((*parts(found), found.rest), (*told, rest), strict=True):
        assert part is None if expected is None else part == pytest.approx(expected, abs=0.15)
    _, variants, orders, samples = size
    assert len(found.notes) == (variants == 1) + (orders == 1) + (samples == 1)
    known = [part for part in (*parts(found), found.rest) if part is not None]
    assert sum(known) == pytest.approx(found.total, abs=0.02)
    assert (found.difference_sd() is None) == (variants == 1 or orders == 1 or samples == 1)


def test_the_deviation_of_a_paired_difference() -> None:
    """What users and orders have in common cancels, repeats divide the rest; so simulated differences vary, too."""
    sds = (1.0, 0.3, 0.5, 0.7, 0.4, 0.6)
    found = components(**design(4000, 2, 3, 2, sds))
    made = design(4000, 2, 3, 2, sds, seed=9)["values"].reshape(4000, 2, 6).mean(axis=2)
    assert found.difference_sd(orders=3, samples=2) == pytest.approx(np.std(made[:, 0] - made[:, 1]), rel=0.05)
    assert found.difference_sd() == pytest.approx(math.sqrt(2 * (0.25 + 0.16 + 0.36)), rel=0.05)


def test_one_user() -> None:
    """Repeats can be told of one user, users cannot."""
    found = components(**design(1, 4, 30, 3, (1.0, 0.3, 0.5, 0.7, 0.4, 0.6)))
    assert found.sampling == pytest.approx(0.36, abs=0.1)
    assert (found.user, found.prompt, found.user_prompt) == (None, None, None)
    assert "one user" in found.notes[0]


def test_equal_measurements_vary_in_nothing() -> None:
    """All parts are 0 where nothing ever varies, and nothing is known of nothing."""
    data = design(3, 2, 2, 2, (0.0,) * 6)
    assert parts(components(**data)) == [0.0] * 6
    nothing = components([], [], [], [], [])
    assert (nothing.user, nothing.sampling, nothing.measurements) == (None, None, 0)


def test_measurements_are_told_apart() -> None:
    """The same sample twice is a mistake in the labels; shapes must fit, and values be finite."""
    data = design(2, 2, 2, 2, (1.0,) * 6)
    with pytest.raises(InputError, match="samples"):
        components(**data | {"samples": np.zeros(16)})
    with pytest.raises(InputError, match="orders"):
        components(**data | {"orders": [1]})
    with pytest.raises(InputError, match="values"):
        components(**data | {"values": np.full(16, math.inf)})
