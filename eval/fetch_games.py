"""What the LLMRank paper published of Amazon video games goes in; the items, cases and interactions of a suite come out.

Hou et al. 2024, "Large Language Models are Zero-Shot Rankers for Recommender Systems" (ECIR), keep in their repository the
histories of some 50,000 users, the item that each bought next, and for 6,000 of these users 100 candidates from each of seven
retrievers. Their protocol ranks 20 candidates: the first 19 random ones that are not the next item, and that item, shuffled
(`llmrank/trainer.py` there; our shuffle is seeded by the user's id).

Writes into OUT: items.jsonl, cases.jsonl (all seven lists stand in `retrieved`) and interactions.jsonl.gz, the histories of all
users without the items that are asked for. Run it from the root of the repository::

    python eval/fetch_games.py --out games [--source CLONE/llmrank/dataset/Games-6k]
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llmrank.errors import DatasetError, LLMRankError, SetupError
from llmrank.evaluation.cases import json_line
from llmrank.evaluation.data.datasets import load_items
from llmrank.files import write_whole

SOURCE = "https://raw.githubusercontent.com/RUCAIBox/LLMRank/master/llmrank/dataset/Games-6k"
RETRIEVERS = ("random", "pop", "bm25", "bert", "bpr", "gru4rec", "sasrec")
KINDS = ("item", "test.inter", *RETRIEVERS)
CANDIDATES = 20
SEED = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetches, converts, and prints what came out."""
    parser = argparse.ArgumentParser(description="Fetches the Games data of the LLMRank paper")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the three files")
    parser.add_argument(
        "--source", default=SOURCE, help="an address, or a folder of a clone, with Games-6k.item and the others"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    files = {kind: located(options.source, f"Games-6k.{kind}", options.out / "source") for kind in KINDS}

    catalog = load_items(files["item"])
    write_whole(options.out / "items.jsonl", (json_line({"id": item.id, "title": item.title}) for item in catalog))
    known = frozenset(item.id for item in catalog)
    bought = {user_id: (history, target) for user_id, history, target in purchases(files["test.inter"])}
    retrieved = {name: dict(candidate_lists(files[name], known)) for name in RETRIEVERS}
    write_whole(options.out / "cases.jsonl", case_lines(bought, retrieved))
    packed = options.out / "interactions.jsonl.gz"
    part = packed.with_name(f".{packed.name}.part")
    with gzip.open(part, "wt", encoding="utf-8") as file:
        file.writelines(json_line({"user_id": user_id, "history": history}) for user_id, (history, _) in bought.items())
    part.replace(packed)
    print(f"{options.out}: {len(catalog):,} items, {len(retrieved['random']):,} cases, {len(bought):,} users")


def located(source: str, name: str, folder: Path) -> Path:
    """The path of a file of the source, downloaded into a folder unless it is there already."""
    if not source.startswith(("http://", "https://")):
        return Path(source) / name
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{name}.part")
        try:
            with urllib.request.urlopen(f"{source}/{name}", timeout=30) as answer:  # noqa: S310  # http(s), as checked above
                part.write_bytes(answer.read())
        except OSError as error:  # URLError is one
            raise SetupError(f"{source}/{name} cannot be fetched ({error}); clone the repository and name --source") from error
        part.replace(path)
    return path


def purchases(path: Path) -> Iterator[tuple[str, list[str], str]]:
    """Each user's id, history, next item: under a header ``user_id:token``, ``item_id_list:token_seq``, ``item_id:token``."""
    for number, (user_id, history, target) in enumerate(rows(path, 3), start=1):
        if number > 1:
            yield user_id, history.split(" "), target


def candidate_lists(path: Path, known: frozenset[str]) -> Iterator[tuple[str, list[str]]]:
    """Each user's id and candidates, without those that are no items: the paper's own code leaves them out, too."""
    for user_id, item_ids in rows(path, 2):
        yield user_id, [item_id for item_id in item_ids.split(" ") if item_id in known]


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """The columns between tabs of each line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                row = line.rstrip("\n").split("\t")
                if len(row) != columns:
                    where = f"{path}, line {number}"
                    raise DatasetError(f"{where}: not {columns} columns", field="source", value=row, fix="fetch it again")
                yield row
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})", field="source", fix="check --source") from error


def case_lines(bought: Mapping[str, tuple[list[str], str]], retrieved: Mapping[str, Mapping[str, list[str]]]) -> Iterator[str]:
    """The case file, one line a user with stored candidates, in the order of the random ones."""
    for user_id, stored in retrieved["random"].items():
        if user_id not in bought:
            fix = "fetch both files of one version"
            raise DatasetError("this user with stored candidates has no next item", field="source", value=user_id, fix=fix)
        history, target = bought[user_id]
        candidates = [*[item_id for item_id in stored if item_id != target][: CANDIDATES - 1], target]
        random.Random(f"{SEED}:{user_id}").shuffle(candidates)  # noqa: S311  # an order, no secret
        yield json_line(
            {
                "user_id": user_id,
                "history": history,
                "candidates": candidates,
                "relevant": [target],
                "retrieved": {name: lists[user_id] for name, lists in retrieved.items() if user_id in lists},
            }
        )


if __name__ == "__main__":
    try:
        main()
    except LLMRankError as error:
        sys.exit(f"error: {error}")
