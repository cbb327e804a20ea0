"""Measures what a grammar of permutations costs: its size, and the seconds to write it and for xgrammar to compile it.

The limits in `llmrank/backends/_constraints.py` come from here. Run it with an interpreter that has vLLM::

    PYTHONPATH=. .venv-vllm/bin/python eval/bench_constraints.py .cache/vllm/smollm2-135m-bfloat16
"""

from __future__ import annotations

import math
import sys
from importlib.metadata import version
from time import perf_counter

from llmrank.backends._constraints import MAX_BRANCHES, ORDER, forced_labels, list_grammar
from llmrank.labels import make_labels

# All labels forced to be distinct, up to where it takes too long; then what is used for long lists, and one more.
CASES = [(count, count) for count in range(5, 12)] + [
    (count, forced_labels(count) + more) for count in (9, 20, 26, 50, 100) for more in (0, 1)
]


def main(tokenizer_folder: str) -> None:
    """Prints one line a grammar."""
    import xgrammar
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokens = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=len(tokenizer))
    print(f"xgrammar {version('xgrammar')}, {len(tokenizer)} tokens; used up to {MAX_BRANCHES} branches")
    print(f"{'labels':>6} {'forced':>6} {'branches':>8} {'kB':>6} {'write s':>8} {'compile s':>9} {'MB':>5}")
    for count, forced in CASES:
        labels = make_labels(count)
        branches = sum(math.comb(count, depth) * (count - depth) for depth in range(forced))
        started = perf_counter()
        grammar = list_grammar(ORDER, labels, length=count, forced=forced, opening="", closing="")
        written = perf_counter()
        compiled = xgrammar.GrammarCompiler(tokens, cache_enabled=False).compile_grammar(grammar)
        done = perf_counter()
        size, memory = len(grammar) / 1000, compiled.memory_size_bytes / 1e6
        seconds = f"{written - started:>8.4f} {done - written:>9.3f}"
        print(f"{count:>6} {forced:>6} {branches:>8} {size:>6.1f} {seconds} {memory:>5.1f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: bench_constraints.py TOKENIZER_FOLDER")
    main(sys.argv[1])
