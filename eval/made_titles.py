"""Real items go in; an item file of any size whose titles look real comes out: them, and others made of their words.

Run it from the root of the repository::

    python eval/made_titles.py --items items.jsonl --count 1000000 --out million.jsonl [--seed 0]

A made title is a walk from word to word: each next one has followed the one before in some real title. So its words, their
pairs and its length are those of real titles, and so are its embeddings. All titles are different.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

LONGEST = 16
"""Words of a made title."""


def made_titles(real: Sequence[str], count: int, seed: int) -> list[str]:
    """The real titles' different ones first, then as many made ones as are needed to have `count`."""
    firsts: list[str] = []
    following: defaultdict[str, list[str | None]] = defaultdict(list)
    for title in real:
        words = title.split()
        firsts += words[:1]
        for word, following_word in zip(words, [*words[1:], None], strict=True):
            following[word].append(following_word)
    choose = random.Random(seed).choice  # noqa: S311  # no secret
    titles = dict.fromkeys(real)
    while len(titles) < count:
        walk = [choose(firsts)]
        while len(walk) < LONGEST and (word := choose(following[walk[-1]])) is not None:
            walk.append(word)
        titles.setdefault(" ".join(walk))
    return list(titles)[:count]


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the file: the real items as they are, then the made ones."""
    parser = argparse.ArgumentParser(description="an item file of any size with titles that look real")
    parser.add_argument("--items", type=Path, required=True, help="JSONL with id and title")
    parser.add_argument("--count", type=int, default=1_000_000, help="different titles")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    lines = options.items.read_text(encoding="utf-8").splitlines()
    real = [json.loads(line)["title"] for line in lines]
    made = made_titles(real, options.count, options.seed)[len(set(real)) :]
    with options.out.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.writelines(json.dumps({"id": f"made-{number}", "title": title}) + "\n" for number, title in enumerate(made))
    print(f"{len(lines) + len(made):,} items, {len(set(real)) + len(made):,} different titles")


if __name__ == "__main__":
    main()
