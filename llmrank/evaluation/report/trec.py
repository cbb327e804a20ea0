"""Cases and Outcomes go in, lines of TREC files come out: relevance judgements and runs that any IR tool reads.

A query is a case; its id is the case's number. An item's id is percent-encoded where it has white space, control characters,
``%`` or what UTF-8 lacks (`urllib.parse.unquote` gives it back), because the columns are separated by white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.outcomes import Outcome

README = """\
TREC files of an evaluation run
===============================

qrels.txt       QUERY 0 ITEM RELEVANCE     what was relevant (1); every case of the run that has something relevant
<ranker>.run    QUERY Q0 ITEM RANK SCORE RANKER     the order that counts, best first

QUERY   the case's number; cases.csv has the user of each.
ITEM    the item's id. White space, control characters and % in it are percent-encoded (RFC 3986); unquoting gives the id back.
SCORE   only says the order: it falls by 1 from place to place, so that no tool has to break a tie.
{failures}
A case that a ranker has not ranked yet has no lines in its run; tools count it 0, while summary.json leaves it out.
A case without anything relevant has no lines in qrels.txt; tools leave it out, while summary.json counts it 0.

For instance: ir_measures qrels.txt RANKER.run nDCG@10 RR Success@10
"""

FALLBACK = "A ranking of status fallback or error is there with the order that it fell back to.\n"
WORST = "A ranking of status fallback or error has no lines, because it counts 0.\n"

_UNSAFE = re.compile("[\\s%\x00-\x1f\x7f\ud800-\udfff]")


def qrels(cases: Iterable[Case]) -> Iterator[str]:
    """The lines of qrels.txt."""
    for number, case in enumerate(cases):
        for item_id in dict.fromkeys(case.relevant):
            yield f"{number} 0 {safe_id(item_id)} 1\n"


def run_lines(ranker: str, outcome: Outcome, *, worst: bool) -> Iterator[str]:
    """The lines of one case in a run file.

    Args:
        ranker: Its name.
        outcome: The case and the order that counts.
        worst: True leaves out a ranking that failed.
    """
    if worst and outcome.failed:
        return
    order = list(dict.fromkeys(outcome.order))
    for rank, item_id in enumerate(order, start=1):
        yield f"{outcome.case} Q0 {safe_id(item_id)} {rank} {len(order) - rank + 1} {safe_id(ranker)}\n"


def safe_id(text: str) -> str:
    """An id without white space; `urllib.parse.unquote` gives it back (with ``errors="surrogatepass"``)."""
    return _UNSAFE.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), text)
