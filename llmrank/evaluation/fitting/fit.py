"""Examples go in, a fusion comes out, with what it is worth for users that it was not fitted on.

How well a fusion ranks the examples that it was fitted on says little, for it was made to. So the same is done once for each
fold of the users, on the others, and those users are measured by that: what a fusion fitted like this one is worth for new
users (Stone 1974, "Cross-validatory choice and assessment of statistical predictions"). The one that comes out is fitted on
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmrank.errors import ConfigError
from llmrank.evaluation.fitting.bands import Bounds, band_of, folds_of, labels_of, usable
from llmrank.evaluation.fitting.example import Example, parts_of
from llmrank.evaluation.fitting.gain import Floats, Lists, padded
from llmrank.evaluation.fitting.linear import fit_linear
from llmrank.evaluation.fitting.options import NORMALISED, FitOptions
from llmrank.evaluation.fitting.provenance import user_key
from llmrank.evaluation.fitting.search import coordinate_search
from llmrank.evaluation.fitting.trees import fit_trees
from llmrank.evaluation.measures.estimate import Codes, Estimate, Estimator
from llmrank.fusion import Band, Combination, Fusion, WeightedSum
from llmrank.fusion.file import FusionFile, write_fusion
from llmrank.fusion.normalise import ranks
from llmrank.fusion.weighted import NORMALISE

CROSS_VALIDATED, IN_SAMPLE, EQUAL = "cross-validated", "in sample", "equal weights"


@dataclass(frozen=True, slots=True)
class Slice:
    """What was measured for the users of one band, or for all.

    Attributes:
        label: The lengths of histories: ``0``, ``1–5``, ``6+``; or ``all``.
        users: How many.
        cases: How many lists.
        values: The metric's mean by what ordered: `CROSS_VALIDATED`, `IN_SAMPLE`, `EQUAL`, and each part alone by its name.
    """

    label: str
    users: int
    cases: int
    values: Mapping[str, Estimate] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fusion and what is known of it.

    Attributes:
        fusion: Fitted on all examples.
        options: How.
        slices: What it is worth: for all users first, then by band.
        users: Digests of those whom it was fitted on (`provenance.user_key`), each once.
        source: Where the examples are from, as JSON values (``run``, ``ranker``, ``protocol``).
        notes: What could not be done as asked, a sentence each.
    """

    fusion: Fusion
    options: FitOptions
    slices: tuple[Slice, ...]
    users: tuple[str, ...]
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Writes the file that `fusion.path` of a configuration names."""
        write_fusion(path, FusionFile(self.fusion.combination, self.record()))

    def record(self) -> dict[str, Any]:
        """What it was fitted on and how well it did, as JSON values."""
        return {
            **self.source,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.options).items()},
            "slices": [
                {
                    "history": each.label,
                    "users": each.users,
                    "cases": each.cases,
                    self.options.metric: {name: {"mean": found.mean, "ci": found.ci} for name, found in each.values.items()},
                }
                for each in self.slices
            ],
            "notes": list(self.notes),
            "users": list(self.users),
        }


def fit_examples(
    examples: Sequence[Example],
    options: FitOptions | None = None,
    *,
    source: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Fitted:
    """Fits a fusion of the examples' parts.

    Args:
        examples: Lists of validation users, never of those that the fusion is to be tested on.
        options: How; see `FitOptions`.
        source: Where they are from; stands in the file.
        notes: What there is to say of them.

    Raises:
        InputError: there are no examples, they have different parts, or nothing in them is relevant.
        ConfigError: there are fewer users than folds.
        SetupError: the method is ``trees``, and LightGBM is not installed.
    """
    options = options or FitOptions()
    parts = parts_of(examples)
    users = {example.user_id for example in examples}
    if len(users) < options.folds:
        fix = f"rank more users, or take at most {len(users)} folds"
        raise ConfigError(f"there are {len(users)} users only", field="folds", value=options.folds, fix=fix)
    bounds, merged = usable(examples, options.bands, options.least_users)
    learn = _learner(parts, bounds, options)
    everything = learn(examples)
    folds = folds_of(examples, options.folds, options.seed)
    lists = Lists(examples, options.k)
    values = {CROSS_VALIDATED: np.zeros(len(examples))}
    for fold in range(options.folds):
        fitted = learn([example for example, its in zip(examples, folds, strict=True) if its != fold])
        held = [example for example, its in zip(examples, folds, strict=True) if its == fold]
        values[CROSS_VALIDATED][np.array(folds) == fold] = Lists(held, options.k).ndcg(_sums(fitted, held))
    values[IN_SAMPLE] = lists.ndcg(_sums(everything, examples))
    values[EQUAL] = lists.ndcg(_sums(_equal(parts, options), examples))
    # By ranks: scores may be so small or large that rounding is of their size.
    values |= {part: lists.ndcg(-padded([ranks(example.scores[part]) for example in examples], lists.shape)) for part in parts}
    return Fitted(
        Fusion.of(everything),
        options,
        _slices(examples, bounds, values, options),
        tuple(sorted(map(user_key, users))),
        dict(source or {}),
        (*notes, *merged),
    )


def _learner(parts: Sequence[str], bounds: Bounds, options: FitOptions) -> Callable[[Sequence[Example]], Combination]:
    """What makes a combination of examples."""

    def learn(examples: Sequence[Example]) -> Combination:
        if not _tell(examples):  # of a fold's others, where little is relevant: then nothing speaks for any part
            return _equal(parts, options)
        if options.method == "linear":
            return fit_linear(examples, parts, options.l2)
        if options.method == "trees":
            return fit_trees(examples, parts, options.k, options.rounds, options.seed)
        return _fit_weights(examples, parts, bounds, options)

    return learn


def _tell(examples: Sequence[Example]) -> bool:
    """Whether there is anything to learn from examples."""
    return any(any(example.relevant) for example in examples)


def _equal(parts: Sequence[str], options: FitOptions) -> WeightedSum:
    return WeightedSum((Band(dict.fromkeys(parts, 1.0)),), NORMALISED[options.method])


def _fit_weights(examples: Sequence[Example], parts: Sequence[str], bounds: Bounds, options: FitOptions) -> WeightedSum:
    method = NORMALISED[options.method]
    bands = []
    for place, bound in enumerate(bounds):
        within: Sequence[Example] = [each for each in examples if band_of(each.history_length, bounds) == place]
        if not _tell(within):
            within = examples
        lists = Lists(within, options.k)
        table = np.stack(
            [padded([NORMALISE[method](each.scores[part]) for each in within], lists.shape) for part in parts], axis=2
        )
        weights = coordinate_search(table, lists)
        bands.append(Band(dict(zip(parts, weights.tolist(), strict=True)), bound))
    return WeightedSum(tuple(bands), method)


def _sums(combination: Combination, examples: Sequence[Example]) -> Floats:
    """The score of each candidate, shape (lists, candidates), by what a Ranker would order with."""
    rows = []
    for example in examples:
        given = combination.contributions(example.scores, example.history_length)
        rows.append([math.fsum(values) for values in zip(*given.values(), strict=True)])
    return padded(rows, (len(examples), max(len(row) for row in rows)))


def _slices(
    examples: Sequence[Example], bounds: Bounds, values: Mapping[str, Floats], options: FitOptions
) -> tuple[Slice, ...]:
    bands = np.array([band_of(example.history_length, bounds) for example in examples])
    who: Codes = np.unique([example.user_id for example in examples], return_inverse=True)[1].astype(np.int64)
    within = [("all", np.full(len(examples), True))]
    if len(bounds) > 1:
        within += [(label, bands == place) for place, label in enumerate(labels_of(bounds))]
    table = np.column_stack(list(values.values()))
    estimator = Estimator(options.confidence, options.resamples, options.seed)
    return tuple(
        Slice(
            label,
            len(np.unique(who[chosen])),
            int(chosen.sum()),
            dict(zip(values, estimator.columns(table[chosen], who[chosen], shares=range(len(values))), strict=True)),
        )
        for label, chosen in within
    )
