"""Users go in; what a shard costs besides the model (rows a second, bytes a row, Ray's share), and a plan for many, come out.

Run it from the root of the repository (it needs the extras `data` and, for Ray, `ray`)::

    python eval/bench_shards.py [--users 2000] [--no-ray] [--local 4] [--base-url http://127.0.0.1:8000/v1 --ask 200]
    python eval/bench_shards.py --plan 10000000

Users are those of MovieLens 100K (20 films of history, 20 candidates each), over and over with other candidates. A scripted
model answers at once, first into a recording, so that what is measured is everything but a model; its prompt tokens are
counted with tiktoken. `--local` ranks some users with the embedded model, `--base-url` with a vLLM server. `--plan` measures
what this machine can and calculates the rest; what it assumes is marked, and each such number is an option.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrank import Ranker, RankRequest
from llmrank.backends.base import BackendBase
from llmrank.backends.replay import RecordingBackend
from llmrank.budget import tiktoken_counter
from llmrank.evaluation.data import movielens
from llmrank.prices import Prices
from llmrank.protocols import ModelInfo
from llmrank.scale.engines import RayOptions, rank_shards
from llmrank.scale.recipe import make_recipe
from llmrank.scale.shard import ShardRanker, ShardReport, rank_shard
from llmrank.scale.split import split_requests
from llmrank.strategies.listwise import Listwise
from llmrank.types import Capability, Completion, Prompt, Usage
from llmrank.writer import PromptOptions, PromptWriter

HISTORY = CANDIDATES = 20
PROMPT: dict[str, Any] = {
    "template": "listwise/recency",
    "history": HISTORY,
    "fields": ["title", "year"],
    "variables": {"domain": "movies"},
}
MODEL = "gpt-4.1-mini"
BATCH_REQUESTS, BATCH_BYTES = 50_000, 200_000_000
"""What a file of OpenAI's Batch API may hold."""


class Scripted(BackendBase):
    """Answers every list in the order shown, at once; counts tokens as the model whose name it bears would."""

    def __init__(self) -> None:
        super().__init__("scripted", MODEL)
        self._counter = tiktoken_counter(MODEL)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Chats only."""
        return frozenset({"generate"})

    @property
    def identity(self) -> Mapping[str, Any]:
        """No settings."""
        return {"kind": self.kind}

    async def info(self) -> ModelInfo:
        """A window that nothing has to be cut for."""
        return ModelInfo(128_000)

    async def generate(self, prompt: Prompt) -> Completion:
        """The labels as they stand."""
        text = " > ".join(f"[{label}]" for label in prompt.labels)
        tokens = self._counter.count_messages(prompt.messages), self._counter.count(text)
        return Completion(text, "stop", Usage(*tokens, calls=1), model=self.model)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one user takes, on average: bytes of Parquet in and out, bytes of kept answers, of a batch request, and tokens."""

    source: int
    columns: int
    record: int
    trace: int
    answer: int
    request: int
    prompt_tokens: int
    answer_tokens: int

    def line(self) -> str:
        """All of it in words."""
        return (
            f"a user: {self.source} bytes in, {self.columns} out ({self.record} with record, {self.trace} with trace), "
            f"{self.answer} of kept answers while under way, {self.request} of a batch request; "
            f"{self.prompt_tokens} prompt + {self.answer_tokens} answer tokens"
        )


def requests(count: int, seed: int = 0) -> Iterator[RankRequest]:
    """Users with the last films that they saw, and films drawn at random that they did not see."""
    data = movielens.load()
    pool = [item.id for item in data.catalog]
    seen = _histories(data.interactions)
    drawn = random.Random(seed)  # noqa: S311  # sampling, not secrets
    for number in range(count):
        chosen = seen[number % len(seen)]
        fresh = [item_id for item_id in drawn.sample(pool, 4 * CANDIDATES) if item_id not in set(chosen)][:CANDIDATES]
        yield RankRequest(chosen[-HISTORY:], fresh, user_id=f"user-{number:08}")


def _histories(interactions: Any) -> list[list[str]]:
    """What each user saw, in the order of time."""
    order = np.lexsort((interactions.timestamp, interactions.user))
    seen: list[list[str]] = [[] for _ in interactions.users]
    for row in order:
        seen[interactions.user[row]].append(interactions.items[interactions.item[row]])
    return seen


def record(folder: Path, asked: Sequence[RankRequest]) -> None:
    """Writes a recording that answers all requests."""
    backend = RecordingBackend(Scripted(), folder / "answers.jsonl")
    with Ranker(backend, Listwise(PromptWriter(PromptOptions(**PROMPT))), catalog=movielens.load().catalog) as ranker:
        for ranking in ranker.rank_many(asked):
            ranking.raise_for_status()


def without_shards(folder: Path, asked: Sequence[RankRequest]) -> float:
    """CPU milliseconds a request of `rank_many` alone, with an answer cache as shards have one."""
    config = {**_replay(folder), "cache": {"path": str(folder / "plain.sqlite")}}
    with Ranker.from_config(config, catalog=movielens.load().catalog) as ranker:
        begun = time.process_time()
        for ranking in ranker.rank_many(asked):
            ranking.raise_for_status()
        return 1000 * (time.process_time() - begun) / len(asked)


def _replay(folder: Path) -> dict[str, Any]:
    return {"backend": {"kind": "replay", "path": str(folder / "answers.jsonl")}, "prompt": PROMPT}


def bench(users: int, *, with_ray: bool) -> Measured:
    """Prints what shards cost; returns what one user takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = list(requests(users))
        record(folder, asked)
        plain = without_shards(folder, asked)
        shards = split_requests(asked, folder / "in", math.ceil(users / 8))
        config, items = _replay(folder), str(movielens.fetch()[0])
        whole = split_requests(asked, folder / "whole", users)[0]
        print(f"{users} users, {HISTORY} films of history and {CANDIDATES} candidates each, answered by a recording")
        sizes = {}
        for keep in ("columns", "record", "trace"):
            target = folder / f"{keep}.parquet"
            with ShardRanker(make_recipe(config, items, keep=keep)) as ranker:
                ranker.prepare()
                begun = time.process_time()
                report = ranker.rank(whole, target)
                spent = 1000 * (time.process_time() - begun) / users
            sizes[keep] = round(target.stat().st_size / users)
            print(f"  keep {keep:<8} {spent:.2f} CPU ms a row, {spent / plain:.2f} x rank_many alone")
        three = split_requests(requests(3 * users), folder / "three", 3 * users)[0]
        print(f"  most memory: {_memory(whole):.0f} MB for {users} rows, {_memory(three):.0f} MB for {3 * users}")
        cached = folder / "cached.parquet"
        rank_shard(whole, cached, config={**config, "cache": {"path": str(folder / "a.sqlite")}}, catalog=items)
        print(f"  8 shards, local engine: {_steady(shards, folder / 'local', config, items, 'local')}")
        if with_ray:
            started = time.perf_counter()
            import ray

            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            started = time.perf_counter() - started
            there = _steady(shards, folder / "ray", config, items, "ray")
            ray.shutdown()
            print(f"  8 shards, one worker of Ray: {there}; the cluster was up in {started:.1f} s")
        measured = Measured(
            source=round(sum(path.stat().st_size for path in shards) / users),
            columns=sizes["columns"],
            record=sizes["record"],
            trace=sizes["trace"],
            answer=round((folder / "a.sqlite").stat().st_size / users),
            request=_request_bytes(folder),
            prompt_tokens=round(report.cost.prompt_tokens / users),
            answer_tokens=round(report.cost.completion_tokens / users),
        )
    print(measured.line())
    return measured


def _steady(shards: Sequence[Path], out: Path, config: Mapping[str, Any], items: str, engine: Any) -> str:
    """Rows a second from the end of the first shard on (without the start of a worker), and what the engine adds to them."""
    reports: Any = rank_shards(shards, out, config=config, catalog=items, engine=engine, ray=RayOptions(workers=1))
    rows, ranking, began = 0, 0.0, 0.0
    with closing(reports):
        for report in reports:
            ended = time.perf_counter()
            if began:
                rows += report.rows
                ranking += report.seconds
            began = began or ended
    took = ended - began
    added = 1000 * (took - ranking) / (len(shards) - 1)
    return f"{rows / took:.0f} rows/s, {added:.0f} ms a shard beside ranking it: {took / ranking:.3f} x its time"


def _request_bytes(folder: Path) -> int:
    """The mean length of a line of a batch file, from the recorded prompts."""
    total = count = 0
    with (folder / "answers.jsonl").open(encoding="utf-8") as file:
        next(file)  # the header
        for line in file:
            messages = json.loads(line)["prompt"]["messages"]
            body = {"model": MODEL, "messages": messages, "max_completion_tokens": 512, "temperature": 0}
            request = {"custom_id": "0" * 64, "method": "POST", "url": "/v1/chat/completions", "body": body}
            total += len(json.dumps(request)) + 1
            count += 1
    return round(total / count)


def _memory(source: Path) -> float:
    """The most memory of a process of its own that ranks one shard, in MB."""
    command = [sys.executable, __file__, "--memory", str(source)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _rank_and_tell_memory(source: Path) -> None:
    with Ranker(Scripted(), Listwise(PromptWriter(PromptOptions(**PROMPT))), catalog=movielens.load().catalog) as ranker:
        rank_shard(source, source.with_suffix(".ranked"), config={}, ranker=ranker)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1e6 if sys.platform == "darwin" else peak / 1e3)


def ask(config: Mapping[str, Any], users: int, what: str) -> float:
    """Ranks users with a model and prints what it took; core seconds of this process a user, the start included."""
    with tempfile.TemporaryDirectory() as name:
        (source,) = split_requests(requests(users), Path(name) / "in", users)
        begun = time.process_time()
        report: ShardReport = rank_shard(source, Path(name) / "out.parquet", config=config, catalog=str(movielens.fetch()[0]))
        spent = (time.process_time() - begun) / users
    if report.errors:
        sys.exit(f"{what}: {dict(report.errors)}")
    cost = report.cost
    print(
        f"{what}: {users / report.seconds:.2f} users/s ({report.seconds / users:.2f} s a user, {spent:.1f} core seconds here), "
        f"{cost.calls / report.seconds:.2f} requests/s, {cost.prompt_tokens / users:.0f} prompt tokens a user "
        f"({cost.cached_tokens / users:.0f} cached) and {cost.completion_tokens / users:.0f} of answer; {dict(report.statuses)}"
    )
    return round(spent, 1)


def plan(users: int, measured: Measured, core_seconds: float | None, given: argparse.Namespace) -> None:
    """Prints the arithmetic of a large run."""
    shards = math.ceil(users / given.rows)
    prompt, answer = measured.prompt_tokens, measured.answer_tokens
    print(f"\nplan for {users:,} users; * marks what is assumed, and can be given as an option")
    print(f"shards                {shards:,} of {given.rows:,} users* (--rows)")
    print(f"storage               {_gb(users * measured.source)} in, {_gb(users * measured.columns)} out")
    print(f"                      {_gb(users * measured.trace)} out if every prompt and answer is kept (keep: trace)")
    print(f"tokens                {users * prompt / 1e9:.2f} G prompt + {users * answer / 1e9:.2f} G answer")

    rate = 1 / (prompt / given.gpu_prefill + answer / given.gpu_decode)
    hours = users / rate / given.gpus / 3600
    answers = _gb(given.gpus * given.rows * measured.answer)
    print("\n(a) vLLM on GPUs of one's own, through Ray")
    print(f"a GPU                 {given.gpu_prefill:,.0f}* prompt and {given.gpu_decode:,.0f}* answer tokens/s")
    print(f"                      = {rate:.1f} users/s (--gpu-prefill, --gpu-decode; `--base-url` measures your own)")
    print(f"{given.gpus}* GPUs (--gpus)     {hours:.1f} hours, {given.gpus * hours:.0f} GPU hours")
    print(f"money                 {given.gpus * hours * given.gpu_usd:,.0f} USD at {given.gpu_usd:.2f}* a GPU hour (--gpu-usd)")
    print(f"a shard               {given.rows / rate / 60:.0f} minutes: at most that is under way when a machine is lost,")
    print("                      and its answers are kept")
    print(f"kept answers          {answers} at most, {given.gpus} shards under way")

    price = Prices.load().find(MODEL)
    usage = {"prompt_tokens": round(users * prompt), "cached_tokens": 0, "completion_tokens": round(users * answer)}
    by_count, by_size = BATCH_REQUESTS, int(BATCH_BYTES // measured.request)
    files = math.ceil(users / min(by_count, by_size))
    print("\n(b) OpenAI's Batch API")
    print(f"files                 {files:,}: {min(by_count, by_size):,} requests each ({by_size:,} would fit into 200 MB)")
    if price is not None and (usd := price.usd(usage, batch=True)) is not None:
        live = price.usd(usage)
        print(f"money                 {usd:,.0f} USD with {MODEL} ({live:,.0f} if asked live), at the prices of {price.as_of}")
    rounds = math.ceil(users * prompt / given.queue)
    print(f"time                  {rounds} rounds of at most 24 hours, {given.queue / 1e9:g} G prompt tokens* queued (--queue)")

    print("\n(c) the embedded model")
    spent, mark = (core_seconds, "measured") if core_seconds is not None else (given.local_core_seconds, "assumed*")
    hours = users * spent / given.machine_cores / 3600
    print(f"a user                {spent:.1f} core seconds ({mark}; `--local N` measures)")
    print(f"{given.machines}* machines         {hours / given.machines / 24:,.0f} days, {given.machine_cores}* cores each")
    print(
        f"money                 {hours * given.machine_usd:,.0f} USD at {given.machine_usd:.2f}* a machine hour (--machine-usd)"
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description="Costs of shards, and plans for many users.")
    options.add_argument("--users", type=int, default=2000, help="how many are measured")
    options.add_argument("--no-ray", action="store_true", help="leave Ray out")
    options.add_argument("--local", type=int, default=0, metavar="N", help="rank N users with the embedded model, too")
    options.add_argument("--base-url", help="rank --ask users with this vLLM server, too")
    options.add_argument("--ask", type=int, default=200)
    options.add_argument("--plan", type=int, metavar="USERS", help="print the plan for so many")
    options.add_argument("--rows", type=int, default=10_000, help="rows of a shard")
    options.add_argument("--gpus", type=int, default=16)
    options.add_argument("--gpu-prefill", type=float, default=20_000, help="prompt tokens a second of a GPU")
    options.add_argument("--gpu-decode", type=float, default=2_500, help="answer tokens a second of a GPU")
    options.add_argument("--gpu-usd", type=float, default=2.5, help="USD a GPU hour")
    options.add_argument("--queue", type=float, default=1e9, help="tokens that may be enqueued at the Batch API at once")
    options.add_argument("--machines", type=int, default=100, help="machines with the embedded model")
    options.add_argument("--machine-usd", type=float, default=0.1, help="USD an hour of one")
    options.add_argument("--machine-cores", type=int, default=2, help="cores of one")
    options.add_argument("--local-core-seconds", type=float, default=8.0, help="of the embedded model, a user")
    options.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    return options


def main() -> None:
    """Measures and prints."""
    given = parser().parse_args()
    if given.memory:
        _rank_and_tell_memory(given.memory)
        return
    measured = bench(given.users, with_ray=not given.no_ray)
    core_seconds = None
    if given.local:
        likelihood = {**PROMPT, "template": "likelihood/next-line", "history": 10}
        config = {"backend": {"kind": "local"}, "strategy": {"kind": "likelihood"}, "prompt": likelihood}
        core_seconds = ask(config, given.local, "embedded model")
    if given.base_url:
        ask({"backend": {"kind": "vllm", "base_url": given.base_url}, "prompt": PROMPT}, given.ask, given.base_url)
    if given.plan:
        plan(given.plan, measured, core_seconds, given)


if __name__ == "__main__":
    main()
