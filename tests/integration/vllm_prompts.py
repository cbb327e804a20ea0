"""Prompts that the tests of vLLM share, in the server and in process."""

from __future__ import annotations

from typing import Final

from llmrank.labels import make_labels
from llmrank.types import AnswerFormat, Message, Prompt

TITLES: Final = (
    *("Toy Story", "GoldenEye", "Four Rooms", "Get Shorty", "Copycat", "Twelve Monkeys", "Babe", "Dead Man Walking"),
    *("Richard III", "Seven", "The Usual Suspects", "Mighty Aphrodite", "The Postman", "Braveheart", "Taxi Driver"),
    *(
        "Rumble in the Bronx",
        "The Birdcage",
        "The Brothers McMullen",
        "Bad Boys",
        "Apollo 13",
        "Batman Forever",
        "Crimson Tide",
    ),
)
EXAMPLES: Final = {"order": "[B] > [A] > [C]", "json": '{"ranking": ["B", "A", "C"]}', "label": "B", "free": "a sentence"}

LIKELY: Final = Prompt(
    prefix="Movies I have watched recently, in order:\nToy Story\nToy Story 2\n",
    continuations=("Toy Story 3\n", "Schindler qxz\n", "Toy Story 3 (2010) - Animation, Comedy\n"),
)
"""After two films of a series, its third is likelier than a title that nobody gave a film."""


def ask_to_rank(count: int, answer: AnswerFormat, *, temperature: float = 0.0, label_logprobs: bool = False) -> Prompt:
    """A chat that shows `count` films under their labels."""
    labels = make_labels(count)
    listed = "\n".join(f"[{label}] {title}" for label, title in zip(labels, TITLES, strict=False))
    words = f"Which of these films should I watch next?\n{listed}\n\nAnswer in the form {EXAMPLES[answer]}, and nothing else."
    return Prompt(
        (Message("system", "You rank films."), Message("user", words)),
        labels=labels,
        answer=answer,
        max_tokens=40 + 8 * count,
        temperature=temperature,
        seed=1,
        label_logprobs=label_logprobs,
    )
