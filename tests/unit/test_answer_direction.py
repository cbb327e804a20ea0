"""Answers that list the worst first, answers that only seem to, and sentences of which only the tail looks like a list."""

from __future__ import annotations

import time

import pytest

from llmrank.answer import ParsedAnswer, parse_answer
from llmrank.labels import make_labels

TITLES = ["Heat", "Alien", "Aliens", "Toy Story", "Jumanji"]
HISTORY = ["Casino (1995)", "Toy Story 2"]
TRUE = "CABED"
"""The order that the worst-first answers below mean: they write D, E, B, A, C."""


def parse(text: str, titles: list[str] = TITLES, *, numeric: bool = False) -> ParsedAnswer:
    """Parses with five films."""
    labels = make_labels(len(titles), "numbers" if numeric else "letters")
    return parse_answer(text, labels=labels, titles=titles, history_titles=HISTORY)


def ranked(answer: ParsedAnswer) -> str:
    """What the model ranked, as letters."""
    return "".join("ABCDE"[index] for index in answer.order[: answer.ranked])


LINES = "\n".join(f"{rank}. [{label}]" for rank, label in enumerate("DEBAC", 1))
CHAIN = "[D] > [E] > [B] > [A] > [C]"
WORST_FIRST = [
    "Ranking from worst to best: D, E, B, A, C",
    "My ranking from worst to best is D, E, B, A, C.",
    "Here you go, from the worst to the best: D, E, B, A and C",
    f"From least to most likely:\n{LINES}",
    f"From least likely to most likely:\n\n{LINES}",
    f"Items the user is least likely to watch first, to most likely to watch:\n{LINES}",
    "Least relevant first: D > E > B > A > C",
    f"Least relevant first.\n\n{CHAIN}",
    f"Worst first\n{CHAIN}",
    f"**Worst → best:**\n\n{CHAIN}",
    f"Worst to best:\n{CHAIN}",
    f"Lowest to highest relevance:\n{CHAIN}",
    f"Lowest score first:\n{LINES}",
    f"Bottom to top:\n{LINES}",
    f"Starting with the least suitable:\n{LINES}",
    f"The most relevant last:\n{LINES}",
    f"I put the best at the end:\n{CHAIN}",
    "In ascending order of preference: D, E, B, A, C",
    f"In ascending order:\n{CHAIN}",
    f"In order of increasing relevance:\n{CHAIN}",
    f"In reverse order of relevance:\n{CHAIN}",
    f"| Place (worst to best) | Label |\n|---|---|\n{LINES.replace('. ', ' | ')}",
    '{"ranking_worst_to_best": ["D", "E", "B", "A", "C"]}',
    '{"order": "worst to best", "ranking": ["D", "E", "B", "A", "C"]}',
    f"{CHAIN} (worst to best)",
    f"{CHAIN}\n(from worst to best)",
    f"The best one is listed last:\n{CHAIN}",
    f"So that the most likely item comes last:\n{CHAIN}",
    f"Ranking (1 = worst, 5 = best):\n{LINES}",
    f"From worst to best.\n\nFinal answer:\n{CHAIN}",
    "Worst to best: Toy Story, Jumanji, Alien, Heat, Aliens",
    "Worst to best:\n- Toy Story\n- Jumanji\n- Alien\n- Heat\n- Aliens",
    "D < E < B < A < C",
    "[D] < [E] < [B] < [A] < [C]",
    "From worst to best: D < E < B < A < C",
    "D &lt; E &lt; B &lt; A &lt; C",
    '{"ranking": "D < E < B < A < C"}',
    "Toy Story < Jumanji < Alien < Heat < Aliens",
]


@pytest.mark.parametrize("text", WORST_FIRST)
def test_an_order_said_to_be_worst_first_is_turned_round(text: str) -> None:
    """Where the answer says that its worst stands first, or writes ``<``, the last is the best, and the repairs say so."""
    answer = parse(text)
    assert (ranked(answer), answer.status) == (TRUE, "repaired"), answer.repairs
    assert any("best stands last" in repair for repair in answer.repairs)


BEST_FIRST = [
    "Ranking from best to worst: C, A, B, E, D",
    "From most to least likely:\n[C] > [A] > [B] > [E] > [D]",
    "In descending order of preference: C, A, B, E, D",
    "Best first, worst last:\n[C] > [A] > [B] > [E] > [D]",
    "Least relevant last: [C] > [A] > [B] > [E] > [D]",
    "Best first (not worst first): C > A > B > E > D",
    "Not from worst to best but from best to worst:\n[C] > [A] > [B] > [E] > [D]",
    "Sorted by rank, ascending:\n1. C\n2. A\n3. B\n4. E\n5. D",
    "In ascending order of rank: C, A, B, E, D",
    "Given the history (least recent first, most recent last), my ranking is:\n[C] > [A] > [B] > [E] > [D]",
    "These are at least the first five:\n[C] > [A] > [B] > [E] > [D]",
    "The worst one is hard to tell. My ranking:\n[C] > [A] > [B] > [E] > [D]",
    "1. [C] - the best, not the worst\n2. [A] - from worst to best in one evening\n3. [B] - worst first half\n4. [E]\n5. [D]",
    "[C] > [A] > [B] > [E] > [D]\n\nRead from worst to best it would be the other way round.",
]


@pytest.mark.parametrize("text", BEST_FIRST)
def test_other_talk_of_worst_and_best_turns_nothing(text: str) -> None:
    """An order from best to worst, a phrase that is denied or about something else, and remarks in a list change nothing."""
    answer = parse(text)
    assert (ranked(answer), answer.status) == (TRUE, "ok"), answer.repairs


def test_titles_about_worst_and_least_are_titles() -> None:
    """Words such as "worst to first" in a title, of a candidate or of the history, say nothing about the order."""
    titles = ["Worst to Best", "Least Likely First", "Worst Case Scenario", "Least Likely to Die", "Best Last"]
    labels = make_labels(5)
    for text in (
        "Worst to Best > Least Likely First > Best Last > Worst Case Scenario > Least Likely to Die",
        "1. Worst to Best\n2. Least Likely First\n3. Best Last\n4. Worst Case Scenario\n5. Least Likely to Die",
        "As you liked From Worst to First: A, B, E, C, D",
        "[A] Worst to Best > [B] Least Likely First > [E] Best Last > [C] Worst Case Scenario > [D] Least Likely to Die",
    ):
        answer = parse_answer(text, labels=labels, titles=titles, history_titles=["From Worst to First (1999)"])
        assert (ranked(answer), answer.status) == ("ABECD", "ok"), (text, answer.repairs)


def test_stated_ranks_are_not_turned_again() -> None:
    """A countdown ("worst to best: 5. D ... 1. C") is put right by its numbers; it is not turned twice."""
    countdown = "\n".join(f"{5 - place}. [{label}]" for place, label in enumerate("DEBAC"))
    for text in (f"From worst to best:\n{countdown}", "From worst to best:\nD: 0.1\nE: 0.2\nB: 0.5\nA: 0.8\nC: 0.9"):
        answer = parse(text)
        assert (ranked(answer), answer.status) == (TRUE, "repaired"), answer.repairs


def test_a_direction_belongs_to_the_next_list_only() -> None:
    """A phrase before a first list says nothing about the list that follows it."""
    for text in (
        "Worst to best: D, E, B, A, C\nSo my ranking is [C] > [A] > [B] > [E] > [D]",
        "Worst to best: D, E, B, A, C\nSo:\n1. C\n2. A\n3. B\n4. E\n5. D",
        "Worst to best: D, E, B, A, C\nFinal answer: C > A > B > E > D",
    ):
        assert ranked(parse(text)) == TRUE, text


def test_a_part_of_a_worst_first_order_ranks_nothing() -> None:
    """Worst first and not complete: the best may be what was broken off, so nothing is ranked, and that is said."""
    for text in ("From worst to best: D, E, B", "From worst to best:\nD, E\nB, A, C"):
        answer = parse(text)
        assert (answer.order, answer.status) == ((0, 1, 2, 3, 4), "fallback")
        assert any("worst stood first" in repair for repair in answer.repairs)


def test_a_comparison_with_less_than_is_no_ranking() -> None:
    """``<`` ranks only as a chain of all candidates; "best first" in words counts more than the sign."""
    assert parse("A < B < C").status == "fallback"
    assert parse("Since 3 < 5 and [A] < [B], I stop.").status == "fallback"
    assert parse("Since A < B in price, I cannot say.", TITLES[:2]).status == "fallback"
    assert ranked(parse("A < B", TITLES[:2])) == "BA"
    said = parse("From best to worst: C < A < B < E < D")
    assert (ranked(said), said.status) == (TRUE, "repaired")


@pytest.mark.parametrize(
    ("text", "order", "status"),
    [
        ("C (0.9), A (0.8), B (0.5), E (0.2), D (0.1)", "CABED", "ok"),
        ("[C] (0.9), [A] (0.8), [B] (0.5), [E] (0.2), [D] (0.1)", "CABED", "ok"),
        ("C (9/10), A (8/10), B (5/10), E (2/10), D (1/10)", "CABED", "ok"),
        ("C (score: 90%), A (80%), B (50%), E (20%), D (10%)", "CABED", "ok"),
        ("My ranking: C (0.9), A (0.8), B (0.7)", "CAB", "partial"),
        ("C (0.9), A (0.8), B (0.7)", "CAB", "partial"),
        ("C (0.1), A (0.8), B (0.5), E (0.2), D (0.1)", "CABED", "repaired"),
        ("C (1), A (2), B (3), E (4), D (5)", "CABED", "ok"),
        ("[C] (0.9) > [A] (0.8) > [B] (0.5) > [E] (0.2) > [D] (0.1)", "CABED", "ok"),
        ("[C] (0.1) > [A] (0.8) > [B] (0.5) > [E] (0.2) > [D] (0.1)", "CABED", "repaired"),
        # Lines are an order only as far as nothing better is said.
        ("[A] (0.8)\n[B] (0.5)\n[C] (0.9)\n[D] (0.1)\n[E] (0.2)", "CABED", "repaired"),
        ("1. C (0.9)\n2. A (0.8)\n3. B (0.5)\n4. E (0.2)\n5. D (0.1)", "CABED", "ok"),
    ],
)
def test_a_score_in_brackets_after_a_label(text: str, order: str, status: str) -> None:
    """Scores beside the labels of a list do not hide the labels; against the order written they do not count."""
    answer = parse(text)
    assert (ranked(answer), answer.status) == (order, status), answer.repairs


def test_a_year_after_a_label_like_title_is_no_score() -> None:
    """The title "10 (1979)" is the film, not label 10 with a score."""
    titles = [f"Film {number}" for number in range(11)] + ["10 (1979)"]
    answer = parse_answer("1. 10 (1979)\n2. Film 3\n3. Film 5\n", labels=make_labels(12, "numbers"), titles=titles)
    assert answer.order[:2] == (11, 3)


@pytest.mark.parametrize(
    "text",
    [
        "Candidate C is best, followed by A, then B, E and finally D.",
        "I think C is best, followed by A, then B, E and finally D.",
        "My top choice is C, followed by A, then B, E and finally D.",
        "My top choice is C; then A, B, E, D",
        "C is best: then A, B, E, D",
        "C is best.\nThen A, B, E, D",
        "[C] is the best one, A, B, E, D",
        "Aliens is best, followed by Heat, Alien, Jumanji and Toy Story.",
        "I believe C comes first, A second, B, E, D",
    ],
)
def test_the_head_of_a_sentence_is_never_lost(text: str) -> None:
    """A sentence that praises C and then lists the others ranks C first or is not read; it never ranks another first."""
    answer = parse(text)
    assert answer.ranked == 0 or answer.order[0] == 2, (ranked(answer), answer.repairs)
    assert answer.status in {"ok", "repaired", "fallback"}


@pytest.mark.parametrize(
    ("written", "order", "status"),
    [
        ("1. Aleins\n2. Heat\n3. Alien\n4. Jumanjy\n5. Toy Story", "CABED", "repaired"),
        ("aliens, HEAT, alien, Jumanjy, toy story", "CABED", "repaired"),
        ("1. Jumani\n2. Heat", "EA", "partial"),
        # Alien is near and not ranked elsewhere: either may be meant.
        ("1. Aleins\n2. Heat\n3. Jumanji", "AE", "partial"),
        # Two letters, another first letter, a short word, more words: other films.
        ("1. Jumenjy\n2. Heat\n3. Aliens", "AC", "partial"),
        ("1. Dumanji\n2. Heat\n3. Aliens", "AC", "partial"),
        ("1. Heap\n2. Aliens\n3. Jumanji", "CE", "partial"),
        # Nearer to a film of the history.
        ("1. Casini\n2. Heat\n3. Aliens", "AC", "partial"),
    ],
)
def test_one_wrong_letter_in_a_short_title(written: str, order: str, status: str) -> None:
    """One wrong letter, or two that changed places, is forgiven in a word of six letters or more if no other title is near."""
    answer = parse(written)
    assert (ranked(answer), answer.status) == (order, status), answer.repairs


def test_one_wrong_letter_between_two_titles_is_not_guessed() -> None:
    """A word as near to a title of the history as to a candidate is left out and named."""
    answer = parse_answer("1. Casina\n2. Heat", labels=("A", "B"), titles=["Casins", "Heat"], history_titles=HISTORY)
    assert (answer.order[: answer.ranked], answer.invented) == ((1,), ("Casina",))


@pytest.mark.parametrize("text", ["A) C\nB) A\nC) B\nD) E\nE) D", '{"A": "C", "B": "A", "C": "B", "D": "E", "E": "D"}'])
def test_letters_that_may_count_other_letters(text: str) -> None:
    """In "A) C" the first letter may be the label or count the lines: the order given stays, and the doubt is said."""
    answer = parse(text)
    assert (ranked(answer), answer.status) == ("ABCDE", "repaired")
    assert any("second label" in repair for repair in answer.repairs)


@pytest.mark.parametrize(
    "text", ["worst to best: A, B\n" * 1000, "least likely " * 1600, "(worst first) " * 1500, "A < " * 5000, "Jumenjy\n" * 2500]
)
def test_hostile_directions_take_little_time(text: str) -> None:
    """20 kB of phrases, signs or near titles with 200 candidates take no longer than other bad text."""
    titles = [f"Juma{chr(97 + number // 26)}{chr(97 + number % 26)}i" for number in range(200)]
    started = time.process_time()
    answer = parse_answer(text, labels=make_labels(200), titles=titles, history_titles=titles[:50])
    assert time.process_time() - started < 3.0
    assert sorted(answer.order) == list(range(200))
