"""Outcomes of one ranker go in one by one; which part of what is relevant its prefilter let through comes out.

That part bounds every measure of relevance: no order of what is shown brings back what is not.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmrank.evaluation.measures.estimate import Codes, Estimator
from llmrank.evaluation.measures.metrics import recall_at
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.retrieval.prefilter import PrefilterOptions


class PrefilterRecall:
    """The share of a case's relevant items that the model was shown; 0 for a request that was refused before.

    Args:
        keep: How many candidates the prefilter keeps.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._values = array("d")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> PrefilterRecall | None:
        """That of a ranker's configuration; None if it has no prefilter, as baselines have none."""
        section = config.get("prefilter")
        return None if section is None or "baseline" in config else cls(section.get("keep", PrefilterOptions().keep))

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        self._values.append(recall_at(outcome.record.get("shown") or (), outcome.question.relevant))

    def result(self, users: Codes, estimator: Estimator) -> dict[str, Any]:
        """``{"keep", "recall", "ci"}``; None for a recall of no cases.

        Args:
            users: Whose the cases are, shape (cases,).
            estimator: Makes the interval.
        """
        found = estimator.column(np.array(self._values), users, share=True)
        return {"keep": self._keep, "recall": found.mean, "ci": found.ci}
