"""Numbers of cases without a result go in, records of their rankings come out, asked on a Ray cluster shard by shard.

`shards` says which cases a shard has. What shards cost is noted once, also if the session that paid for them was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.running.asking import Answered
from llmrank.types import Usage

if TYPE_CHECKING:
    from llmrank.scale.shard import ShardReport


def ask_on_ray(
    folder: RunFolder,
    name: str,
    config: Mapping[str, Any],
    wanted: set[int],
    *,
    rows: int,
    workers: int,
    address: str | None,
    trace: bool,
    spend: Callable[[str, Usage], None],
) -> Answered:
    """Asks on a Ray cluster, shard by shard, in whatever order they are done.

    Args:
        folder: The run's; on a cluster of several machines, one that all of them see.
        name: The ranker's name.
        config: The ranker's configuration.
        wanted: The numbers of the cases without a result; no other is asked for.
        rows: Cases in a shard that is begun now.
        workers: Shards at once, at most.
        address: The cluster's; None for one on this machine.
        trace: Keeps prompts and raw answers.
        spend: Told of each shard's model and usage.

    Raises:
        LLMRankError: what no other shard would be spared, or a shard that failed again and again. The shards that are whole,
            and the answers that were kept, stay.
    """
    from llmrank.evaluation.running.shards import RankerShards
    from llmrank.scale.engines import RayOptions, rank_shards
    from llmrank.scale.schema import read_records

    shards = RankerShards(folder.path / "shards" / name)
    taken = shards.plan(wanted, folder.cases(), rows)
    # A cache of the user's own says not what this run paid for; the answers kept beside a shard were all paid for by it.
    own_answers = not (config.get("cache") or {}).get("path")
    begun_before = {shard for shard in taken if own_answers and shards.begun(shard)}
    reports = rank_shards(
        taken,
        shards.ranked,
        config=config,
        catalog=folder.path / "data" / "items.jsonl",
        engine="ray",
        ray=RayOptions(workers=workers, address=address),
        keep="trace" if trace else "record",
    )
    by_name = {shard.name: shard for shard in taken}
    with closing(reports):  # type: ignore[type-var]  # it is a generator
        for report in reports:
            if report.error is not None:
                raise report.error
            shard = by_name[report.source.name]
            resumed = own_answers and (shard in begun_before or report.attempts > 1)
            spend(shards.model(shard), _unnoted(report, resumed=resumed, noted=shards.is_noted(shard)))
            shards.note(shard)  # after it: a kill in between counts the money twice rather than never
            for record in read_records(report.target):
                case = int(record.pop("case"))
                if case in taken[shard]:
                    yield case, record


def _unnoted(report: ShardReport, *, resumed: bool, noted: bool) -> Usage:
    """What was paid for a shard and is noted nowhere yet.

    `spent` is what it took now. `cost` has beside it what earlier sessions or attempts paid that were killed before they could
    note it; it counts what rows share (equal prompts) with each of them, and so is taken only then.
    """
    return report.cost if resumed and not noted else report.spent
