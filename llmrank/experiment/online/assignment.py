"""A user's id goes in, the variant that they get, and why, comes out: by hashing alone, without I/O, the same everywhere.

::

    forced?  killed?     holdout        layer          traffic        variant
       │        │      hash(user) <   hash(layer,    hash(salt,     hash(salt,
       ▼        ▼       holdout?      user) in part?  user) < t?     user) -> by weights
    a variant control   control        control        control        exposed

The four hashes are independent of each other, so whoever is dealt in by one is like everybody by the next (Kohavi, Tang and Xu
2020, "Trustworthy online controlled experiments"; Tang et al. 2010, "Overlapping experiment infrastructure", for layers).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from llmrank.errors import InputError
from llmrank.experiment.online.hashing import places
from llmrank.experiment.online.options import OnlineOptions, online_of

Reason: TypeAlias = Literal["assigned", "holdout", "other layer", "outside traffic", "disabled", "forced"]
"""Why a user gets what they get.

assigned         they take part: the variant is dealt by the weights
holdout          they belong to the users that are kept out of every experiment
other layer      their place in the layer belongs to another experiment, or to none
outside traffic  the experiment is not open to them (yet)
disabled         the experiment is switched off
forced           they are a tester
"""

_HOLDOUT: Final = places("holdout")
"""The same for every experiment: else there would be nobody whom none has touched."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one user gets.

    Attributes:
        unit: The user's id.
        variant: The name of the variant; the control's for whoever does not take part.
        exposed: True for whoever takes part: only they are logged and read.
        reason: Why.
        experiment: Its name.
    """

    unit: str
    variant: str
    exposed: bool
    reason: Reason
    experiment: str = ""


class Assigner:
    """Assigns users to the variants of one experiment. It never changes, so threads may share it.

    Users stay where they are when `traffic` rises (if it falls, those who leave get the control). The variants have the
    intervals of [0, 1) that their weights give, in the order of their names, whatever their order in a file; when weights
    change, the users between an old and a new end move, and no others. So a weight is best changed before the first user, and
    an experiment begun small by `traffic`.

    Args:
        name: The experiment's.
        variants: Their names.
        control: What whoever does not take part gets.
        options: All else.

    Raises:
        ConfigError: `control`, a weight or a forced variant names no variant, or there are fewer than two.
    """

    def __init__(self, name: str, variants: Collection[str], control: str, options: OnlineOptions | None = None) -> None:
        self.name, self.control = name, control
        self.options = online_of(options, variants, control, name)
        self.shares = shares(self.options.weights or dict.fromkeys(variants, 1.0))
        self.salt = name if self.options.salt is None else self.options.salt
        self._variants = [each for each, share in self.shares.items() if share]
        self._ends = ends([self.shares[each] for each in self._variants])
        self._traffic = places("traffic", self.salt)
        self._variant = places("variant", self.salt)
        layer = self.options.layer
        self._layer: Callable[[str], float] | None = None if layer is None else places("layer", layer.name)
        self._part = (0.0, 1.0) if layer is None else (layer.start, layer.stop)

    def assign(self, unit: str) -> Assignment:
        """What a user gets; some microseconds.

        Args:
            unit: Their id: the same text at every call, and one that stays theirs.

        Raises:
            InputError: it is no text, or an empty one.
        """
        if not isinstance(unit, str) or not unit:
            raise InputError("must be a text", field="unit", value=unit, fix="give the user's id as a text: str(user_id)")
        options = self.options
        if not options.enabled:  # before all else: what is broken is broken for testers, too
            return Assignment(unit, self.control, False, "disabled", self.name)
        if unit in options.force:
            return Assignment(unit, options.force[unit], False, "forced", self.name)
        if options.holdout and _HOLDOUT(unit) < options.holdout:
            return Assignment(unit, self.control, False, "holdout", self.name)
        if self._layer is not None and not self._part[0] <= self._layer(unit) < self._part[1]:
            return Assignment(unit, self.control, False, "other layer", self.name)
        if options.traffic < 1 and not self._traffic(unit) < options.traffic:
            return Assignment(unit, self.control, False, "outside traffic", self.name)
        variant = self._variants[bisect_right(self._ends, self._variant(unit))]
        return Assignment(unit, variant, True, "assigned", self.name)


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Each variant's part of the users who take part, in the order of names, so that the order in a file moves nobody."""
    largest = max(weights.values())
    total = math.fsum(weight / largest for weight in weights.values())  # so divided, no sum overflows
    return {name: weights[name] / largest / total for name in sorted(weights)}


def ends(parts: Collection[float]) -> list[float]:
    """Where in [0, 1) each part ends; the last one at 1, whatever rounding makes of the sum."""
    found = [math.fsum(list(parts)[: number + 1]) for number in range(len(parts))]
    return [*found[:-1], 1.0]
