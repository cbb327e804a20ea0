"""Items go in; seconds of `llmrank embed`, killed half-way and started again, and of a run with nothing to do, come out.

Run it from the root of the repository::

    python eval/bench_embed.py --items million.jsonl --store DIR

The store must be new or empty: what it holds already would not be embedded. The first run is killed (SIGKILL) when it has
stored half of the texts; the second one goes on; the third finds all there. Each is the command, as a user starts it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from llmrank import Catalog
from llmrank.retrieval.keys import KEY_BYTES
from llmrank.retrieval.text import item_text

WATCH_SECONDS = 0.2


def stored(store: Path) -> int:
    """Texts in the store, counted without opening it."""
    return sum(path.stat().st_size for path in store.glob("*/keys.bin")) // KEY_BYTES


def run(items: Path, store: Path, kill_at: int | None = None) -> float:
    """Seconds that the command takes, or took until it was killed."""
    command = [sys.executable, "-c", "from llmrank.cli import main; main()", "embed", "--items", str(items)]
    command += ["--embedder", f"{{kind: wordllama, store: '{store}'}}"]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if kill_at is not None and stored(store) >= kill_at:
                process.kill()
            time.sleep(WATCH_SECONDS)
        took = time.perf_counter() - begun
        said = process.stdout.read().strip() if process.stdout else ""
    print(f"{took:.1f} s; {stored(store):,} stored; {'killed' if process.returncode < 0 else said}", flush=True)
    if process.returncode > 0:
        sys.exit("the command failed")
    return took


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures of each run."""
    parser = argparse.ArgumentParser(description="embedding a catalogue by the command, killed and resumed")
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True, help="a new or empty folder")
    options = parser.parse_args(arguments)
    if stored(options.store):
        parser.error(f"{options.store} holds vectors already")
    begun = time.perf_counter()
    texts = {item_text(item) for item in Catalog.load(options.items).items}
    print(f"{len(texts):,} different texts, read in {time.perf_counter() - begun:.1f} s", flush=True)
    killed = run(options.items, options.store, kill_at=len(texts) // 2)
    resumed = run(options.items, options.store)
    again = run(options.items, options.store)
    if stored(options.store) != len(texts):
        sys.exit("some text was stored twice, or not at all")
    rate = len(texts) / (killed + resumed)
    print(f"both parts {killed + resumed:.1f} s ({rate:,.0f} texts a second), none embedded twice; again: {again:.1f} s")


if __name__ == "__main__":
    main()
