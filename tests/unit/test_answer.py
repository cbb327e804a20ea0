"""Answers as models really write them, with the order, status and invented labels that must come out."""

from __future__ import annotations

import time

import pytest

from llmrank.answer import ParsedAnswer, parse_answer
from llmrank.errors import InputError
from llmrank.labels import make_labels

TITLES = [
    "Toy Story (1995) - Animation, Comedy",
    "Aliens (1986) - Action, Sci-Fi",
    "Birdcage, The (1996) - Comedy",
    "Brazil (1985) - Sci-Fi",
    "2001: A Space Odyssey (1968) - Sci-Fi",
]
HISTORY = ["Alien (1979) - Horror, Sci-Fi", "Terminator, The (1984) - Action", "Die Hard (1988) - Action"]
ALL = "BDAEC"
"""The order that a perfect answer below gives: Aliens, Brazil, Toy Story, 2001, The Birdcage."""


def parse(text: str | None, *, numeric: bool = False, count: int = 5) -> ParsedAnswer:
    """Parses with the five films."""
    labels = make_labels(count, "numbers" if numeric else "letters")
    return parse_answer(text, labels=labels, titles=TITLES[:count], history_titles=HISTORY)


def ranked(answer: ParsedAnswer) -> str:
    """What the model ranked, as letters."""
    return "".join("ABCDE"[index] for index in answer.order[: answer.ranked])


LETTERS = [
    # -- the forms asked for, and chains
    ("[B] > [D] > [A] > [E] > [C]", ALL, "ok"),
    ("[B]>[D]>[A]>[E]>[C]\n", ALL, "ok"),
    ("B > D > A > E > C", ALL, "ok"),
    ("B >> D >> A >> E >> C", ALL, "ok"),
    ("B → D → A → E → C", ALL, "ok"),
    ("B -> D => A --> E ≻ C", ALL, "ok"),
    ("[B] &gt; [D] &gt; [A] &gt; [E] &gt; [C]", ALL, "ok"),
    ("**B** > **D** > **A** > **E** > **C**", ALL, "ok"),
    ("**[B] > [D] > [A] > [E] > [C]**", ALL, "ok"),
    ("`[B] > [D] > [A] > [E] > [C]`", ALL, "ok"),
    ("(B) > (D) > (A) > (E) > (C)", ALL, "ok"),
    ("\\[B\\] > \\[D\\] > \\[A\\] > \\[E\\] > \\[C\\]", ALL, "ok"),
    ("【B】＞【D】＞【A】＞【E】＞【C】", ALL, "ok"),
    ("Ｂ ＞ Ｄ ＞ Ａ ＞ Ｅ ＞ Ｃ", ALL, "ok"),
    ("b > d > a > e > c", ALL, "repaired"),
    ("[b] > [d] > [a] > [e] > [c]", ALL, "repaired"),
    ("Ranking: B > D > A > E > C", ALL, "ok"),
    ("Here is my ranking: [B] > [D] > [A] > [E] > [C]. I hope it helps!", ALL, "ok"),
    ("My ranking is B > D > A > E > C because of the genres you like.", ALL, "ok"),
    ("[B] > [D] > [A] >\n[E] > [C]", ALL, "ok"),
    ("[B]\n> [D]\n> [A]\n> [E]\n> [C]", ALL, "ok"),
    ("$B \\succ D \\succ A \\succ E \\succ C$", ALL, "ok"),
    ("\\boxed{B > D > A > E > C}", ALL, "ok"),
    ("<answer>[B] > [D] > [A] > [E] > [C]</answer>", ALL, "ok"),
    ("[B] Aliens > [D] Brazil > [A] Toy Story > [E] 2001: A Space Odyssey > [C] The Birdcage", ALL, "ok"),
    ("Option B > Option D > Option A > Option E > Option C", ALL, "ok"),
    ("B > D > A = E > C", ALL, "repaired"),
    ("B>D>A>E>C<|im_end|>", ALL, "ok"),
    ("<b>B</b> > D > A > E > C<br>", ALL, "ok"),
    # -- separated labels
    ("B-D-A-E-C", ALL, "ok"),
    ("B | D | A | E | C", ALL, "ok"),
    (
        "For each:\nA: Toy Story is fun.\nB: Aliens fits.\nC: no.\nD: odd.\nE: slow.\n\nSo my order is B, D, A, E, C.",
        ALL,
        "ok",
    ),
    ("Most likely: B, D\nLess likely: A, E\nUnlikely: C", "BDAE", "partial"),
    ("B, D, A, E, C", ALL, "ok"),
    ("B,D,A,E,C.", ALL, "ok"),
    ("[B], [D], [A], [E], [C]", ALL, "ok"),
    ("B; D; A; E; C", ALL, "ok"),
    ("B D A E C", ALL, "ok"),
    ("B, D, A, E and C", ALL, "ok"),
    ("B、D、A、E、C", ALL, "ok"),
    ("B\nD\nA\nE\nC", ALL, "ok"),
    ("B,\nD,\nA,\nE,\nC", ALL, "ok"),
    ("The order is: B, D, A, E, C", ALL, "ok"),
    ("I would rank [B] first, then [D], then [A], then [E], and finally [C].", ALL, "ok"),
    ("BDAEC", ALL, "repaired"),
    # -- JSON
    ('{"ranking": ["B", "D", "A", "E", "C"]}', ALL, "ok"),
    ('["B", "D", "A", "E", "C"]', ALL, "ok"),
    ('```json\n{"ranking": ["B", "D", "A", "E", "C"]}\n```', ALL, "ok"),
    (
        'Sure! Here it is:\n```json\n{\n  "ranking": [\n    "B",\n    "D",\n    "A",\n    "E",\n    "C"\n  ]\n}\n```\nEnjoy!',
        ALL,
        "ok",
    ),
    ('{"ranking": ["B", "D", "A", "E", "C",]}', ALL, "repaired"),
    ("{'ranking': ['B', 'D', 'A', 'E', 'C']}", ALL, "repaired"),
    ("{ranking: [B, D, A, E, C]}", ALL, "repaired"),
    ("{“ranking”: [“B”, “D”, “A”, “E”, “C”]}", ALL, "ok"),
    ('{"ranking": ["B", "D", "A", "E", "C"', ALL, "repaired"),
    ('{"ranking": ["B", "D", "A', "BDA", "partial"),
    ('{"ranking": ["B", "D",', "BD", "partial"),
    ('{"ranking": [{"label": "B", "title": "A', "B", "partial"),
    ('{"ranking": "B > D > A > E > C"}', ALL, "ok"),
    ('{"ranking": "B, D, A, E, C"}', ALL, "ok"),
    ('{"ranking": ["[B]", "[D]", "[A]", "[E]", "[C]"]}', ALL, "ok"),
    (
        '{"ranking": [{"label": "B", "title": "Aliens"}, {"label": "D"}, {"label": "A"}, {"label": "E"}, {"label": "C"}]}',
        ALL,
        "ok",
    ),
    ('[{"rank": 1, "title": "Aliens"}, {"rank": 2, "title": "Brazil"}, {"rank": 3, "title": "Toy Story"}]', "BDA", "partial"),
    ('[{"rank": 2, "label": "D"}, {"rank": 1, "label": "B"}, {"rank": 3, "label": "A"}]', "BDA", "partial"),
    ('{"1": "B", "2": "D", "3": "A", "4": "E", "5": "C"}', ALL, "ok"),
    ('{"A": 3, "B": 1, "C": 5, "D": 2, "E": 4}', ALL, "repaired"),
    ('{"A": 0.5, "B": 0.9, "C": 0.1, "D": 0.8, "E": 0.3}', ALL, "repaired"),
    ('{"reasoning": "A > B > C > D > E is the order given", "ranking": ["B", "D", "A", "E", "C"]}', ALL, "ok"),
    ('{"candidates": ["A", "B", "C", "D", "E"], "ranking": ["B", "D", "A", "E", "C"]}', ALL, "ok"),
    ('{"ranking": [["B"], ["D", "A"], ["E"], ["C"]]}', ALL, "ok"),
    ('{"ranking": [["B", "Aliens"], ["D", "Brazil"], ["A", "Toy Story"]]}', "BDA", "partial"),
    ('["Aliens", "Brazil", "Toy Story", "2001: A Space Odyssey", "The Birdcage"]', ALL, "ok"),
    # -- numbered lists
    ("1. [B] Aliens\n2. [D] Brazil\n3. [A] Toy Story\n4. [E] 2001: A Space Odyssey\n5. [C] Birdcage, The", ALL, "ok"),
    ("1. B\n2. D\n3. A\n4. E\n5. C", ALL, "ok"),
    ("1) B\n2) D\n3) A\n4) E\n5) C", ALL, "ok"),
    ("(1) B\n(2) D\n(3) A\n(4) E\n(5) C", ALL, "ok"),
    ("1: B\n2: D\n3: A\n4: E\n5: C", ALL, "ok"),
    ("#1 B\n#2 D\n#3 A\n#4 E\n#5 C", ALL, "ok"),
    ("Rank 1: B\nRank 2: D\nRank 3: A\nRank 4: E\nRank 5: C", ALL, "ok"),
    ("1st: B\n2nd: D\n3rd: A\n4th: E\n5th: C", ALL, "ok"),
    ("0. [B]\n1. [D]\n2. [A]\n3. [E]\n4. [C]", ALL, "ok"),
    ("[0] B\n[1] D\n[2] A\n[3] E\n[4] C", ALL, "ok"),
    ("1. B 2. D 3. A 4. E 5. C", ALL, "ok"),
    ("1-B\n2-D\n3-A\n4-E\n5-C", ALL, "ok"),
    ("1 B\n2 D\n3 A\n4 E\n5 C", ALL, "ok"),
    ("First: B\nSecond: D\nThird: A\nFourth: E\nFifth: C", ALL, "ok"),
    ("🥇 B\n🥈 D\n🥉 A\n4️⃣ E\n5️⃣ C", ALL, "ok"),
    ("**1.** B. Aliens\n**2.** D. Brazil\n**3.** A. Toy Story\n**4.** E. 2001\n**5.** C. The Birdcage", ALL, "ok"),
    (
        "### 1. Aliens (1986)\n### 2. Brazil (1985)\n### 3. Toy Story\n### 4. 2001: A Space Odyssey\n### 5. The Birdcage",
        ALL,
        "ok",
    ),
    ("1. B - it is like Alien\n2. D - strange\n3. A - fun\n4. E - slow\n5. C - a comedy", ALL, "ok"),
    ("1. Aliens (B)\n2. Brazil (D)\n3. Toy Story (A)\n4. 2001: A Space Odyssey (E)\n5. The Birdcage (C)", ALL, "ok"),
    ("1. Aliens [B]\n2. Brazil [D]\n3. Toy Story [A]\n4. 2001 [E]\n5. Birdcage [C]", ALL, "ok"),
    ("5. [C]\n4. [E]\n3. [A]\n2. [D]\n1. [B]", ALL, "repaired"),
    ("The top 5 of 5 are:\n1. B\n2. D\n3. A\n4. E\n5. C", ALL, "ok"),
    ("The top 3 of 5 are:\n1. B\n2. D\n3. A", "BDA", "partial"),
    ("1. [B]\n1. [D]\n1. [A]\n1. [E]\n1. [C]", ALL, "ok"),
    ("I. Aliens\nII. Brazil\nIII. Toy Story\nIV. 2001: A Space Odyssey\nV. The Birdcage", ALL, "ok"),
    ("Best:\n1. [B]\n2. [D]\n\nOthers:\n1. [A]\n2. [E]\n3. [C]", ALL, "repaired"),
    # -- labels with titles, bullets, tables
    ("B. Aliens\nD. Brazil\nA. Toy Story\nE. 2001: A Space Odyssey\nC. The Birdcage", ALL, "ok"),
    ("- B: Aliens\n- D: Brazil\n- A: Toy Story\n- E: 2001: A Space Odyssey\n- C: The Birdcage", ALL, "ok"),
    ("* **[B]** Aliens – tense\n* **[D]** Brazil – odd\n* **[A]** Toy Story\n* **[E]** 2001\n* **[C]** Birdcage", ALL, "ok"),
    ("> 1. [B]\n> 2. [D]\n> 3. [A]\n> 4. [E]\n> 5. [C]", ALL, "ok"),
    (
        "| Rank | Label | Title |\n|---|---|---|\n| 1 | B | Aliens |\n| 2 | D | Brazil |\n| 3 | A | Toy Story |",
        "BDA",
        "partial",
    ),
    (
        "| Label | Title | Rank |\n|---|---|---|\n| A | Toy Story | 3 |\n| B | Aliens | 1 |\n| C | Birdcage | 5 |\n"
        "| D | Brazil | 2 |\n| E | 2001 | 4 |",
        ALL,
        "repaired",
    ),
    # -- titles only
    ("1. Aliens\n2. Brazil\n3. Toy Story\n4. 2001: A Space Odyssey\n5. The Birdcage", ALL, "ok"),
    ("1. Aliens (1986) - Action, Sci-Fi\n2. Brazil (1985)\n3. TOY STORY\n4. 2001 - a space odyssey\n5. birdcage", ALL, "ok"),
    ("Aliens\nBrazil\nToy Story\n2001: A Space Odyssey\nThe Birdcage", ALL, "ok"),
    ("Aliens, Brazil, Toy Story, 2001: A Space Odyssey, The Birdcage", ALL, "ok"),
    ("Aliens > Brazil > Toy Story > 2001: A Space Odyssey > Birdcage, The", ALL, "ok"),
    ("Aliens, Brazil, Toy Story, 2001: A Space Odyssey, Birdcage, The", ALL, "ok"),
    ('1. "Aliens"\n2. "Brazil"\n3. "Toy Story"\n4. "2001: A Space Odyssey"\n5. "The Birdcage"', ALL, "ok"),
    ("1. Alens\n2. Brazl\n3. Toy Storey\n4. 2001: A Space Oddyssey\n5. The Bird Cage", ALL, "repaired"),
    ("1. Because you liked Alien: Aliens\n2. Since you saw Die Hard: Brazil\n3. Toy Story", "BDA", "partial"),
    ("1. Aliens (like Alien, but more)\n2. Brazil, after Die Hard\n3. Toy Story", "BDA", "partial"),
    (
        "**1. Aliens**\n   - the sequel of Alien\n   - tense\n\n**2. Brazil**\n   - odd, like Toy Story\n\n**3. Toy Story**\n"
        "   - fun\n\n**4. 2001: A Space Odyssey**\n   - slow\n\n**5. The Birdcage**\n   - a comedy",
        ALL,
        "ok",
    ),
    ("I recommend Aliens, then Brazil, Toy Story, 2001: A Space Odyssey and finally The Birdcage.", ALL, "repaired"),
    # letters or numbers that only count the titles
    ("A. Aliens\nB. Brazil\nC. Toy Story\nD. 2001: A Space Odyssey\nE. The Birdcage", ALL, "repaired"),
    # -- reasoning
    ("<think>[A] > [B] > [C] > [D] > [E]? No.</think>\n\n[B] > [D] > [A] > [E] > [C]", ALL, "ok"),
    ("[A] > [B] > [C] > [D] > [E]? No.\n</think>\n[B] > [D] > [A] > [E] > [C]", ALL, "ok"),
    ("<thinking>\n1. A\n2. C\n</thinking>\nB > D > A > E > C", ALL, "ok"),
    ("<reasoning>1. A 2. C</reasoning> B > D > A > E > C", ALL, "ok"),
    ("<|channel|>analysis<|message|>A > C?<|end|><|channel|>final<|message|>B > D > A > E > C", ALL, "ok"),
    ("<think>The user likes films such as A and B. I should", "", "fallback"),
    ("<think>Candidates:\n[A] Toy Story\n[B] Aliens\n[C] Birdcage\n[D] Brazil\n[E] 2001\nThe user", "", "fallback"),
    ("<think>They like Alien, so it is\n[B] > [D] > [A] > [E] > [C]", ALL, "repaired"),
    ("<think>So, B > D > A > E > C.</think>", ALL, "repaired"),
    ("<think>perhaps B > D > A > E > C. " + "But wait, that may be wrong, as they do not like horror. " * 8, "", "fallback"),
    (
        "Candidates:\nA. Toy Story\nB. Aliens\nC. The Birdcage\nD. Brazil\nE. 2001: A Space Odyssey\n\nFinal answer: B > D > A",
        "BDA",
        "partial",
    ),
    ("First I thought [A] > [B] > [C] > [E] > [D].\nFinal ranking:\n[B] > [D] > [A] > [E] > [C]", ALL, "ok"),
    ("[A] > [E] > [C] > [B] > [D]\n\nOn reflection:\n\n[B] > [D] > [A] > [E] > [C]", ALL, "repaired"),
    ("Let me weigh them.\n1. Genre matters most.\n2. So does age.\n\n[B] > [D] > [A] > [E] > [C]", ALL, "ok"),
    ("1. [A]\n2. [B]\n3. [C]\n4. [E]\n5. [D]\n\nNo: [B] > [D] > [A] > [E] > [C]", ALL, "repaired"),
    # -- damage
    ("[B] > [D] > [B] > [A] > [E] > [C]", ALL, "repaired"),
    ("[B] > [D]", "BD", "partial"),
    ("[B] > [D] > [", "BD", "partial"),
    ("[B] > [", "B", "partial"),
    ("[B] >", "B", "partial"),
    ("C is best, followed by A, B and D.", "", "fallback"),
    ("B", "", "fallback"),
    ("Answer: B", "B", "partial"),
    ("Aliens", "B", "partial"),
    # -- nothing to read
    (None, "", "fallback"),
    ("", "", "fallback"),
    (" \n\t", "", "fallback"),
    ("I cannot rank these items.", "", "fallback"),
    ("I'm sorry, but I can't help with that.", "", "fallback"),
    ("As an AI, I have no preferences. A good choice depends on you.", "", "fallback"),
    ("A user like this would enjoy anything. I found 3 of 5 films.", "", "fallback"),
    ("The user liked Alien and Die Hard, so action films would be a good choice, and not Toy Story.", "", "fallback"),
    ("[A] is worse than [B].", "", "fallback"),
    ("The user might prefer [A], or [B]. Hard to say.", "", "fallback"),
    ("A, B, C, D and E are all fine.", "", "fallback"),
    ("Aliens is better than Brazil.", "", "fallback"),
    ("A < B < C", "", "fallback"),
    ("[]", "", "fallback"),
    ("{}", "", "fallback"),
    ('{"error": "rate limited"}', "", "fallback"),
    ("Plan A is better than plan B, e.g. vitamin C.", "", "fallback"),
]


@pytest.mark.parametrize(("text", "order", "status"), LETTERS)
def test_answers_with_letters(text: str | None, order: str, status: str) -> None:
    """Answers to prompts with letters give this order and status; what is not ranked follows in the order given."""
    answer = parse(text)
    assert (ranked(answer), answer.status) == (order, status), answer.repairs
    assert sorted(answer.order) == list(range(5))
    assert list(answer.missing) == sorted(answer.missing)
    assert bool(answer.repairs) or status in {"ok", "partial"}


NUMBERS = [
    ("[2] > [4] > [1] > [5] > [3]", ALL, "ok"),
    ("2 > 4 > 1 > 5 > 3", ALL, "ok"),
    ("2, 4, 1, 5, 3", ALL, "ok"),
    ("[2, 4, 1, 5, 3]", ALL, "ok"),
    ("2\n4\n1\n5\n3", ALL, "ok"),
    ('{"ranking": [2, 4, 1, 5, 3]}', ALL, "ok"),
    ('{"ranking": ["2", "4", "1", "5", "3"]}', ALL, "ok"),
    ("[02] > [04] > [01] > [05] > [03]", ALL, "ok"),
    ("[1] > [3] > [0] > [4] > [2]", ALL, "repaired"),
    ('{"ranking": [1, 3, 0, 4, 2]}', ALL, "repaired"),
    ("1. [2] Aliens\n2. [4] Brazil\n3. [1] Toy Story\n4. [5] 2001: A Space Odyssey\n5. [3] The Birdcage", ALL, "ok"),
    ("1. 2\n2. 4\n3. 1\n4. 5\n5. 3", ALL, "ok"),
    ("1) 2\n", "B", "partial"),
    ("1. 2, 2. 4, 3. 1, 4. 5, 5. 3", ALL, "ok"),
    ("#2 > #4 > #1 > #5 > #3", ALL, "ok"),
    ("2. Great sequel.\n4. Odd.\n1. Fun.\n5. Slow.\n3. Farce.", ALL, "repaired"),
    ("1. Great sequel.\n2. Odd.\n3. Fun.\n4. Slow.\n5. Farce.", "", "fallback"),
    ("[6] > [2] > [0] > [4]", "BD", "partial"),
    ("1) 2 - Aliens\n2) 4 - Brazil\n3) 1 - Toy Story\n4) 5 - 2001: A Space Odyssey\n5) 3 - The Birdcage", ALL, "ok"),
    # the number is the rank, not the label
    ("1. Aliens\n2. Brazil\n3. Toy Story\n4. 2001: A Space Odyssey\n5. The Birdcage", ALL, "ok"),
    ("1. **Aliens** (1986)\n2. **Brazil** (1985)\n3. **Toy Story**", "BDA", "partial"),
    ("0. Aliens\n1. Brazil\n2. Toy Story\n3. 2001: A Space Odyssey\n4. The Birdcage", ALL, "ok"),
    # the number is the label
    ("2. Aliens\n4. Brazil\n1. Toy Story\n5. 2001: A Space Odyssey\n3. The Birdcage", ALL, "ok"),
    ("[2] Aliens\n[4] Brazil\n[1] Toy Story\n[5] 2001: A Space Odyssey\n[3] The Birdcage", ALL, "ok"),
    ("2 Aliens\n4 Brazil\n1 Toy Story", "BDA", "partial"),
    ("The top 3 of 5 are: 2, 4, 1", "BDA", "partial"),
    ("I found 3 great matches out of 5.", "", "fallback"),
    ("In 1995 and 1986, 2 of 5 films were made; since 3 > 1, I stop.", "", "fallback"),
    ("1. I cannot do this.\n2. Ask somebody else.", "", "fallback"),
    ("| 1 | 2 | Aliens |\n| 2 | 4 | Brazil |\n| 3 | 1 | Toy Story |", "BDA", "partial"),
    ('{"1": 2, "2": 4, "3": 1, "4": 5, "5": 3}', ALL, "repaired"),
    ('{"1": "2", "2": "4", "3": "1", "4": "5", "5": "3"}', ALL, "repaired"),
]


@pytest.mark.parametrize(("text", "order", "status"), NUMBERS)
def test_answers_with_numbers(text: str, order: str, status: str) -> None:
    """Answers to prompts with numbers give this order and status; ranks, years and counts are not labels."""
    answer = parse(text, numeric=True)
    assert (ranked(answer), answer.status) == (order, status), answer.repairs


@pytest.mark.parametrize(
    ("text", "order", "invented"),
    [
        ("[B] > [Z] > [D] > [A] > [E] > [C]", ALL, ("Z",)),
        ('{"ranking": ["B", "F", "D", "A", "E", "C", "F"]}', ALL, ("F",)),
        ("1. Aliens\n2. Blade Runner\n3. Brazil", "BD", ("Blade Runner",)),
        ("1. [B] Aliens\n2. [G] Blade Runner\n3. [D] Brazil", "BD", ("G",)),
        # Watched already, so no candidate:
        ("1. Aliens\n2. Die Hard\n3. Brazil", "BD", ("Die Hard",)),
        ("1. Aliens\n2. Toy Story 2\n3. Brazil", "BD", ("Toy Story 2",)),
    ],
)
def test_invented_entries_are_left_out_and_named(text: str, order: str, invented: tuple[str, ...]) -> None:
    """A label or title at a ranking position that names no candidate takes no place in the order and is reported."""
    answer = parse(text)
    assert (ranked(answer), answer.invented) == (order, invented)
    assert answer.repairs


def test_many_invented_entries_are_capped() -> None:
    """At most 20 invented entries are kept, each at most 80 characters long."""
    lines = [f"{rank}. Film {'of a very long name ' * 5}{rank}" for rank in range(1, 60)]
    answer = parse(
        "\n".join(["0. Aliens", "0. Brazil", *lines[:1], "2. Toy Story", *[f"{n}. [{n}{n}]" for n in range(10, 60)]])
    )
    assert len(answer.invented) <= 20
    assert all(len(name) <= 80 for name in answer.invented)


def test_a_sequel_is_not_its_predecessor() -> None:
    """Likeness never overrides a number: "Toy Story 3" is not "Toy Story 2"."""
    answer = parse_answer("1. Toy Story 3\n2. Heat", labels=("A", "B"), titles=["Toy Story 2", "Heat"])
    assert answer.order[: answer.ranked] == (1,)
    assert answer.invented == ("Toy Story 3",)


def test_equal_titles_stay_two_items() -> None:
    """Each mention of a title that two candidates share takes the next one, and the repairs say that this was a guess."""
    answer = parse_answer("1. Doom\n2. Heat\n3. Doom", labels=("A", "B", "C"), titles=["Heat", "Doom", "Doom"])
    assert (answer.order, answer.status) == ((1, 0, 2), "repaired")


def test_titles_that_look_like_labels_are_titles_among_titles() -> None:
    """In a list of titles the titles "2" and "1" are not the labels 2 and 1; that they could be is said."""
    titles = ["2", "1", "X-Men", "Heat"]
    answer = parse_answer("1. 2\n2. 1\n3. X-Men\n4. Heat", labels=make_labels(4, "numbers"), titles=titles)
    assert (answer.order, answer.status) == ((0, 1, 2, 3), "repaired")
    assert parse_answer("[2] > [1] > [4] > [3]", labels=make_labels(4, "numbers"), titles=titles).order == (1, 0, 3, 2)


def test_a_label_counts_against_the_title_beside_it() -> None:
    """Where label and title name different candidates, the label counts, and it is said."""
    answer = parse("[C] Aliens > [A] Toy Story > [B] The Birdcage > [D] Brazil > [E] 2001")
    assert ranked(answer) == "CABDE"
    assert any("label counts" in repair for repair in answer.repairs)


def test_the_letter_i_in_a_refusal_is_no_label() -> None:
    """With nine or more candidates "I" is a label, but not in prose."""
    labels = make_labels(20)
    titles = [
        f"Film {word}" for word in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten") for _ in "ab"
    ]
    for text in (
        "I cannot do that.",
        "I, as an AI, cannot rank films.",
        "I - a model - have no taste.",
        "As an AI I can't: I am not a person.",
    ):
        assert parse_answer(text, labels=labels, titles=titles).status == "fallback", text


def test_a_broken_off_number_is_not_a_shorter_one() -> None:
    """An answer cut off in the middle of "12" does not rank item 1; that it broke off is said."""
    labels = make_labels(30)
    titles = [f"Film {number}" for number in range(30)]
    answer = parse_answer("[3] > [7] > [1", labels=labels, titles=titles)
    assert answer.order[: answer.ranked] == (2, 6)
    assert any("breaks off" in repair for repair in answer.repairs)
    assert parse_answer("[3] > [7] > [1]", labels=labels, titles=titles).ranked == 3


def test_one_label_is_a_whole_answer_where_one_was_asked_for() -> None:
    """With ``expected="label"`` one label is ok; a sentence that names it is understood; a refusal is not."""
    labels = make_labels(5)
    for text in (
        "B",
        "[B]",
        "**B**",
        "B.",
        "(B)",
        "B. Aliens",
        "[B] Aliens",
        "Answer: B",
        "The answer is B.",
        "I choose [B] because of Alien.",
    ):
        answer = parse_answer(text, labels=labels, titles=TITLES, expected="label")
        assert (answer.order[0], answer.ranked, answer.status) == (1, 1, "ok"), text
        assert answer.missing == (0, 2, 3, 4)
    for text in ("I cannot answer.", "The answer is A matter of taste", "As an AI I am unable to choose."):
        assert parse_answer(text, labels=make_labels(5), titles=TITLES, expected="label").status == "fallback", text


def test_no_candidates_and_one_candidate() -> None:
    """Nothing to rank gives the empty order; a single candidate can be ranked too."""
    assert parse_answer("A > B", labels=(), titles=()).order == ()
    assert parse_answer("[A]", labels=("A",), titles=("Heat",)).status == "ok"
    assert parse_answer('{"ranking": ["A"]}', labels=("A",), titles=("Heat",)).status == "ok"
    assert parse_answer("1. Heat", labels=("A",), titles=("Heat",)).status == "ok"
    assert parse_answer("1. [1] Heat", labels=("1",), titles=("Heat",)).status == "ok"


def test_labels_and_titles_must_match() -> None:
    """Another number of titles than labels, or a label twice, is the caller's mistake and named."""
    with pytest.raises(InputError, match="titles"):
        parse_answer("A", labels=("A", "B"), titles=("Heat",))
    with pytest.raises(InputError, match="labels"):
        parse_answer("A", labels=("A", "A"), titles=("Heat", "Doom"))


HOSTILE = {
    "brackets": "[" * 20_000,
    "braces": '{"a":' * 4_000,
    "labels": "A" * 20_000,
    "numbers": "1. " * 7_000,
    "chain": "A > " * 5_000,
    "commas": "A, " * 7_000,
    "spaces": " " * 20_000 + "x",
    "lines": "\n" * 20_000 + "x",
    "spaced lines": "  \n" * 7_000 + "> x",
    "thinks": "<think>" * 3_000,
    "finals": "final answer: " * 1_500,
    "titles": "Film about something 17, " * 900,
    "quotes": "\"'" * 10_000,
    "tags": "<b <b " * 3_500,
    "stars": "*" * 20_000,
    "bars": "| " * 10_000,
    "and": " and" * 5_000,
    "near titles": "\n".join(f"{n}. Fi1m abuot somethin {n % 300}" for n in range(700)),
    "one word": "the " * 5_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_takes_little_time(name: str) -> None:
    """20 kB of the worst text with 200 candidates is read in a small multiple of what an honest answer takes."""
    titles = [f"Film about something {number} (1990) - Drama" for number in range(200)]
    started = time.process_time()
    answer = parse_answer(HOSTILE[name], labels=make_labels(200), titles=titles, history_titles=titles[:50])
    assert time.process_time() - started < 3.0
    assert sorted(answer.order) == list(range(200))
