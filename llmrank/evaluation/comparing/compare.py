"""Run folders go in, a Comparison comes out: every ranker against one of them, on the cases that all of them have ranked.

Cases are matched by what they ask (user, history, candidates, query) and by what is relevant, so that runs of different suites
can be compared as long as they asked the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError, DatasetError, nearest
from llmrank.evaluation.cases import Case
from llmrank.evaluation.comparing.comparison import Comparison, Row
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.measures.outcomes import measures_of, per_case
from llmrank.evaluation.measures.statistics import Difference, holm, minimum_detectable_effect, paired_differences
from llmrank.evaluation.report.numbers import joined
from llmrank.evaluation.seal import refuse_sealed

Keys: TypeAlias = NDArray[np.bytes_]

KEY_BYTES = 16
"""The length of what stands for a case or a user here: two different ones never meet by chance."""

KNOWLEDGE = {"items.jsonl": "items", "popularity.json": "interactions to learn from"}
"""Files of a run that measures beyond relevance depend on, and their names for people."""


def compare(
    folders: Sequence[RunFolder],
    *,
    baseline: str | None = None,
    rankers: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Comparison:
    """Compares the rankers of one run or of several.

    Only cases that every ranker has a result for count; how many that is, and of how many, is said. How failures count, the
    confidence, the resamples and the seed are the first run's. Rankers with the same configuration, the same templates and the
    same values (one that two runs share, say) are one: a copy would count as one more hypothesis.

    Args:
        folders: The runs.
        baseline: The ranker that the others are compared with: ``ranker``, or ``run/ranker`` with several runs, where a run is
            called after its folder. None: the first.
        rankers: What is compared, named alike; the baseline is always there, too. A ranker's own name chooses it in every run.
            None: all.
        metrics: The measures to compare; None: all that every run has, if they have a value for each case.

    Raises:
        DatasetError: the runs cannot be compared (other protocol, other treatment of failures, no common case), or one belongs
            to an experiment that is not complete; it says why.
        ConfigError: there is no such ranker or measure, or fewer than two rankers.
    """
    for folder in folders:
        refuse_sealed(folder.path)
    runs = _named(folders)
    notes = _check_alike(runs)
    measures, left_out = _measures(runs, metrics)
    contenders = _contenders(runs)
    chosen = _chosen(contenders, rankers)
    name = _baseline(chosen if baseline is None else contenders, baseline)
    contenders = [each for each in contenders if each in chosen or each.name == name]
    found = {}
    for each in contenders:
        read = _read(each, runs[each.run], measures)
        if len(read.rows):
            found[each.name] = read
        else:
            left_out.append(f"{each.name} has no results yet and is left out.")
    if name not in found:
        fix = "go on with the run first, or name another baseline"
        raise DatasetError("has no results yet", field="baseline", value=name, fix=fix)
    if len(found) < 2:
        fix = f"only {name} has results: name another run, or go on with this one"
        raise ConfigError("takes two rankers at least", field="compare", value=list(found), fix=fix)
    aligned = _aligned(found, runs)
    notes += _cases_note(len(aligned.users), found, runs)
    aligned, folded = _folded(aligned, [each for each in contenders if each.name in found], name)
    notes += folded
    first = next(iter(runs.values())).folder.manifest
    options = _Options(float(first.get("confidence", 0.95)), int(first.get("resamples", 2000)), int(first.get("seed", 0)))
    primary = first["primary"] if first["primary"] in [each.name for each in measures] else measures[0].name
    if primary != first["primary"]:
        notes.append(f"{first['primary']}, the primary measure of the run, is not compared; {primary} takes its place.")
    return Comparison(
        protocol=str(first["protocol"]),
        baseline=name,
        measures=measures,
        primary=primary,
        failures=str(first["failures"]),
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        cases=len(aligned.users),
        users=len(np.unique(aligned.users)),
        rows=_rows(aligned, name, measures, primary, options),
        notes=tuple(dict.fromkeys([*notes, *left_out])),
        runs=tuple((each, str(run.folder.manifest.get("created", ""))) for each, run in runs.items()),
    )


@dataclass(frozen=True, slots=True)
class _Contender:
    """A ranker of a run; `made` is what makes it: its configuration and its templates, or None if that is not known."""

    name: str
    run: str
    ranker: str
    made: str | None


@dataclass(frozen=True, slots=True)
class _Options:
    confidence: float
    resamples: int
    seed: int


@dataclass(slots=True)
class _Run:
    """A run with what its cases are known by, in their order: `keys` of the cases, `users` of whose they are."""

    folder: RunFolder
    keys: Keys = field(init=False)
    users: Keys = field(init=False)

    def __post_init__(self) -> None:
        count = int(self.folder.manifest["cases"])
        self.keys, self.users = (np.zeros(count, dtype=f"S{KEY_BYTES}") for _ in range(2))
        number = -1
        for number, case in enumerate(self.folder.cases()):
            if number < count:
                self.keys[number], self.users[number] = _key(case), _digest(case.user_id)
        if number + 1 != count:
            problem = f"data/cases.jsonl has {number + 1} cases, the manifest says {count}"
            raise DatasetError(problem, field="run", value=str(self.folder.path), fix="run it anew")
        _tell_apart(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What a ranker has results for: `rows` (numbers of cases) and their values, shape (rows, measures)."""

    run: str
    rows: NDArray[np.intp]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Aligned:
    """The common cases, in one order: `users` (whose), and each ranker's values, shape (cases, measures)."""

    users: Keys
    values: Mapping[str, NDArray[np.float64]]


def _named(folders: Sequence[RunFolder]) -> dict[str, _Run]:
    """The runs by name: the folder's, or the whole path where two are called alike."""
    if not folders:
        raise ConfigError("names no run", field="compare", fix="name at least one folder of an evaluation run")
    paths = [folder.path.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        value = [str(folder.path) for folder in folders]
        raise ConfigError("the same run stands twice", field="compare", value=value, fix="name each folder once")
    short = [path.name for path in paths]
    names = [each if short.count(each) == 1 else str(path) for each, path in zip(short, paths, strict=True)]
    return {name: _Run(folder) for name, folder in zip(names, folders, strict=True)}


def _check_alike(runs: Mapping[str, _Run]) -> list[str]:
    """Refuses runs whose numbers cannot stand in one table; gives what readers of the table have to know."""
    (first_name, first), *others = runs.items()
    manifest = first.folder.manifest
    notes = list(manifest.get("notes", ()))
    for name, run in others:
        other = run.folder.manifest
        if manifest["failures"] != other["failures"]:
            fix = "set `failures` alike in both suites and run them again: no model is asked anew"
            problem = f"{first_name} counts them as {manifest['failures']!r}, {name} as {other['failures']!r}"
            raise DatasetError(problem, field="failures", fix=fix)
        differing = list(_differing(_protocol(manifest), _protocol(other)))
        if differing:
            told = "; ".join(f"{key} is {mine!r} in {first_name} and {its!r} in {name}" for key, mine, its in differing)
            raise DatasetError(f"the runs differ: {told}", field="protocol", fix="compare runs of one protocol")
        if manifest["protocol"] != other["protocol"]:
            notes.append(f"The protocol of {name}: {other['protocol']}")
        notes += [f"{name}: {note}" for note in other.get("notes", ()) if note not in notes]
        mine, its = manifest.get("frozen", {}), other.get("frozen", {})
        for file, what in KNOWLEDGE.items():
            if mine.get(file) != its.get(file):
                notes.append(
                    f"{first_name} and {name} have different {what}: only measures of relevance mean the same in both."
                )
    return notes


def _protocol(manifest: Mapping[str, Any]) -> Any:
    """How cases were made, without how many: which cases are common is looked at case by case."""
    protocol = manifest.get("suite", {}).get("protocol") or {}
    return {key: value for key, value in protocol.items() if key != "users"}


def _differing(mine: Any, its: Any, key: str = "protocol") -> Iterator[tuple[str, Any, Any]]:
    """The dotted keys of two mappings whose values differ, with both values."""
    if isinstance(mine, Mapping) and isinstance(its, Mapping):
        for name in dict.fromkeys([*mine, *its]):
            yield from _differing(mine.get(name), its.get(name), f"{key}.{name}")
    elif mine != its:
        yield key, mine, its


def _measures(runs: Mapping[str, _Run], wanted: Sequence[str] | None) -> tuple[tuple[Measure, ...], list[str]]:
    """What is compared, in the first run's order or in that asked for, and a note on what is not."""
    of_runs = {name: [each for each in measures_of(run.folder) if each.per_case] for name, run in runs.items()}
    first = next(iter(of_runs.values()))
    shared = [each for each in first if all(each in others for others in of_runs.values())]
    if wanted is not None:
        chosen = tuple(dict.fromkeys(map(parse_measure, wanted)))
        for each in chosen:
            if each not in shared:
                fix = f"every run has {', '.join(one.name for one in shared)}" if shared else "add it to the suites' metrics"
                raise ConfigError("has no value for each case in every run", field="metrics", value=each.name, fix=fix)
        if not chosen:
            raise ConfigError("names no measure", field="metrics", fix="for instance ndcg@10")
        return chosen, []
    if not shared:
        fix = "add one to the suites' `metrics` and run them again: no model is asked anew"
        raise DatasetError("the runs have no measure of cases in common", field="metrics", fix=fix)
    asked = dict.fromkeys(name for run in runs.values() for name in run.folder.manifest["metrics"])
    left_out = [name for name in asked if parse_measure(name) not in shared]
    notes = []
    if left_out:
        reason = "of the whole run, in need of an embedder, or not in every run"
        notes.append(f"Not compared ({reason}): {', '.join(left_out)}.")
    return tuple(shared), notes


def _contenders(runs: Mapping[str, _Run]) -> list[_Contender]:
    several = len(runs) > 1
    return [
        _Contender(f"{name}/{ranker}" if several else ranker, name, ranker, _made(asked))
        for name, run in runs.items()
        for ranker, asked in run.folder.manifest["rankers"].items()
    ]


def _made(asked: Mapping[str, Any]) -> str | None:
    """Two rankers that are made alike have the same text."""
    if "config" not in asked:
        return None
    return json.dumps([asked["config"], asked.get("templates") or {}], sort_keys=True)


def _chosen(contenders: Sequence[_Contender], wanted: Sequence[str] | None) -> list[_Contender]:
    """The contenders of these names, in the runs' order."""
    if wanted is None:
        return list(contenders)
    for name in wanted:
        if all(name not in (each.name, each.ranker) for each in contenders):
            known = [known for each in contenders for known in (each.name, each.ranker)]
            raise ConfigError("no such ranker", field="rankers", value=name, fix=nearest(name, dict.fromkeys(known)))
    if not wanted:
        raise ConfigError("names no ranker", field="rankers", fix="name two at least, or leave it out for all")
    return [each for each in contenders if each.name in wanted or each.ranker in wanted]


def _baseline(contenders: Sequence[_Contender], wanted: str | None) -> str:
    """The baseline's full name; a ranker's own will do where only one has it."""
    if wanted is None:
        return contenders[0].name
    names = [each.name for each in contenders]
    if wanted in names:
        return wanted
    called = [each.name for each in contenders if each.ranker == wanted]
    if len(called) == 1:
        return called[0]
    fix = f"name one of {', '.join(called)}" if called else nearest(wanted, names)
    problem = "several rankers are called so" if called else "no such ranker"
    raise ConfigError(problem, field="baseline", value=wanted, fix=fix)


def _read(contender: _Contender, run: _Run, measures: Sequence[Measure]) -> _Read:
    """A ranker's values, streamed into arrays."""
    values = np.full((len(run.keys), len(measures)), math.nan)
    there = np.zeros(len(run.keys), dtype=np.bool_)
    for outcome in per_case(run.folder, contender.ranker, measures):
        values[outcome.case] = [outcome.values[each.name] for each in measures]
        there[outcome.case] = True
    rows = np.flatnonzero(there)
    return _Read(contender.run, rows, values[rows])


def _aligned(found: Mapping[str, _Read], runs: Mapping[str, _Run]) -> _Aligned:
    """The cases that all have ranked, in the order of their keys, so that the order of the runs changes no draw."""
    keys = {name: runs[read.run].keys[read.rows] for name, read in found.items()}
    common: Keys = reduce(np.intersect1d, keys.values())
    if not len(common):
        raise DatasetError(_why_apart(runs, found), field="cases", fix="compare runs over the same cases and the same seed")
    values, users = {}, np.empty(0, dtype=f"S{KEY_BYTES}")
    for name, read in found.items():
        order = np.argsort(keys[name])
        at = order[np.searchsorted(keys[name], common, sorter=order)]
        values[name] = read.values[at]
        users = runs[read.run].users[read.rows[at]]
    return _Aligned(users, values)


def _folded(aligned: _Aligned, contenders: Sequence[_Contender], baseline: str) -> tuple[_Aligned, list[str]]:
    """Makes one of those that are made alike and have the same values, with a note for each; the baseline stays.

    If only one would be left, all stay: whoever compares a ranker with itself is told that there is no difference.
    """
    kept: dict[str, list[_Contender]] = {}
    for each in sorted(contenders, key=lambda each: each.name != baseline):
        same = (
            name
            for name, (first, *_) in kept.items()
            if each.made is not None
            and each.made == first.made
            and np.array_equal(aligned.values[name], aligned.values[each.name], equal_nan=True)
        )
        kept.setdefault(next(same, each.name), []).append(each)
    if len(kept) < 2:
        return aligned, []
    notes = [
        f"{joined([each.name for each in alike])} are the same ranker with the same values: they count once, as {name}."
        for name, alike in kept.items()
        if len(alike) > 1
    ]
    values = {name: values for name, values in aligned.values.items() if name in kept}
    return _Aligned(aligned.users, values), notes


def _cases_note(common: int, found: Mapping[str, _Read], runs: Mapping[str, _Run]) -> list[str]:
    """Says so where not every case of every run is compared."""
    if all(common == len(run.keys) for run in runs.values()):
        return []
    told = [f"{name} has ranked {len(read.rows):,} of {len(runs[read.run].keys):,}" for name, read in found.items()]
    return [f"Only the {common:,} cases that all have ranked are compared: {', '.join(told)}."]


def _why_apart(runs: Mapping[str, _Run], found: Mapping[str, _Read]) -> str:
    """Says of rankers without a common case what differs."""
    shared: Keys = reduce(np.intersect1d, (run.keys for run in runs.values()))
    if len(shared):
        counts = ", ".join(f"{name} has ranked {len(read.rows):,}" for name, read in found.items())
        return f"the runs share {len(shared):,} cases, but the rankers have no results for a common one ({counts})"
    seeds = {name: run.folder.manifest.get("seed") for name, run in runs.items()}
    told = ", ".join(f"{name} has seed {seed}" for name, seed in seeds.items())
    users = len(reduce(np.intersect1d, (run.users for run in runs.values())))
    if users:
        return f"the runs have {users:,} users in common, but no case: history, candidates or relevant items differ ({told})"
    return f"the runs have no user in common ({told})"


def _rows(aligned: _Aligned, baseline: str, measures: Sequence[Measure], primary: str, options: _Options) -> tuple[Row, ...]:
    """All measures of all rankers: the baseline first, then by the primary measure's difference, largest first."""
    base = aligned.values[baseline]
    differences: dict[str, list[Difference]] = {}
    for name, values in aligned.values.items():
        if name != baseline:
            differences[name] = paired_differences(
                values,
                base,
                aligned.users,
                confidence=options.confidence,
                resamples=options.resamples,
                seed=options.seed,
            )
    at = next(place for place, each in enumerate(measures) if each.name == primary)
    adjusted = dict(zip(differences, holm([each[at].p for each in differences.values()]), strict=True))
    order = sorted(differences, key=lambda name: -_or(differences[name][at].mean, -math.inf))
    rows = []
    for place, measure in enumerate(measures):
        rows.append(_row(measure, baseline, base[:, place]))
        for name in order:
            difference = differences[name][place]
            row = _row(measure, name, aligned.values[name][:, place], difference, 1 - options.confidence)
            rows.append(row if place != at else row.with_adjusted(adjusted[name]))
    return tuple(rows)


def _row(
    measure: Measure, name: str, values: NDArray[np.float64], difference: Difference | None = None, alpha: float = 0.05
) -> Row:
    defined = values[~np.isnan(values)]
    mean = float(defined.mean()) if len(defined) else math.nan
    detectable = math.nan
    if difference is not None and difference.sd > 0:  # neither unknown nor, for want of any difference, 0
        detectable = minimum_detectable_effect(difference.sd, difference.clusters, alpha=alpha)
    return Row(measure, name, mean, len(defined), difference, math.nan, detectable)


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def _key(case: Case) -> bytes:
    """What stands for a case: all that is asked, and what is relevant."""
    parts: list[Any] = [case.user_id, case.history, case.candidates, sorted(case.relevant), case.query]
    if case.constraints:
        parts.append([each.record() for each in case.constraints])
    return _digest(json.dumps(parts))


def _digest(text: str) -> bytes:
    # NumPy's byte strings end at their last byte that is not NUL: two digests stay as different as they are.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def _tell_apart(keys: Keys) -> None:
    """Gives the second, third ... case with one key a key of its own: the second of one run is the second of another."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    places = np.arange(len(keys))
    same = np.append(False, in_order[1:] == in_order[:-1])[: len(keys)]
    earlier = places - np.maximum.accumulate(np.where(same, 0, places))
    for place in np.flatnonzero(same):
        keys[order[place]] = _digest(f"{in_order[place].hex()} {earlier[place]}")
