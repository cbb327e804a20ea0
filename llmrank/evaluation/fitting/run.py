"""A run's folder and one of its rankers go in; a fusion of the parts whose scores its results hold comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError, DatasetError, nearest
from llmrank.evaluation.cases import Case
from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.fitting.fit import Fitted, fit_examples
from llmrank.evaluation.fitting.options import FitOptions
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.outcomes import per_case
from llmrank.evaluation.seal import refuse_sealed


def fit_fusion(run: str | Path | RunFolder, ranker: str, options: FitOptions | None = None) -> Fitted:
    """Fits a fusion on what a ranker of a run has ranked.

    Args:
        run: The run; its users are those that are learned from.
        ranker: Its name in the suite. Its configuration has a `fusion`, whose results hold each part's scores: any weights do.
        options: How; see `FitOptions`.

    Raises:
        ConfigError: there is no such ranker, or there are fewer users than folds.
        DatasetError: there is no run, or its results hold no parts' scores.
        InputError: nothing that is relevant is among the candidates.
        SetupError: the method is ``trees``, and LightGBM is not installed.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    examples, notes = examples_of(folder, ranker)
    source = {"run": folder.path.resolve().name, "ranker": ranker, "protocol": folder.manifest["protocol"]}
    return fit_examples(examples, options, source=source, notes=notes)


def examples_of(folder: RunFolder, ranker: str) -> tuple[list[Example], tuple[str, ...]]:
    """What a ranker's results have to learn from, and what there is to say of them.

    Raises:
        ConfigError: there is no such ranker.
        DatasetError: there is no run, its results hold no parts' scores, or it belongs to an experiment that is not complete.
    """
    refuse_sealed(folder.path)
    if ranker not in folder.ranker_names:
        raise ConfigError(
            "there is no such ranker in this run", field="ranker", value=ranker, fix=nearest(ranker, folder.ranker_names)
        )
    examples = []
    counted: Counter[str] = Counter()
    for outcome in per_case(folder, ranker, ()):
        example = _example(outcome.question, outcome.record)
        counted["without"] += example is None
        if example is not None:
            examples.append(example)
            counted["failed"] += outcome.failed
            counted["missed"] += not any(example.relevant)
    if not examples:
        raise DatasetError(
            "the results hold no parts' scores",
            field="ranker",
            value=ranker,
            fix="give its configuration a `fusion` that names all parts, whatever the weights, and run it",
        )
    said = {
        "without": "have no parts' scores and were left out",
        "failed": "have no readable answer: the model gave nothing to them",
        "missed": "have nothing relevant among their candidates, so that no fusion gains there",
    }
    total = len(examples) + counted["without"]
    return examples, tuple(f"{counted[key]} of {total} rankings {text}" for key, text in said.items() if counted[key])


def _example(case: Case, record: Mapping[str, Any]) -> Example | None:
    """The example of a case; None if its items have no scores of parts, or one that is no number."""
    items = record["items"]
    scores = [item.get("scores") or {} for item in items]
    if not items or not all(scores) or any(value is None for each in scores for value in each.values()):
        return None
    wanted = set(case.relevant)
    return Example(
        case.user_id,
        len(case.history),
        {part: [each[part] for each in scores] for part in scores[0]},
        [item["id"] in wanted for item in items],
        len(wanted) - len(wanted & {item["id"] for item in items}),
    )
