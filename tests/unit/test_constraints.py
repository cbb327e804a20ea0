"""Grammars of permutations: what they allow, and that decoding by them always ends in a permutation."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._constrained import Constraint, decode, is_constrained
from llmrank.backends._constraints import (
    JSON,
    MAX_BRANCHES,
    ORDER,
    Form,
    Permutation,
    forced_labels,
    form_of,
    list_grammar,
)
from llmrank.labels import make_labels
from llmrank.types import Completion, Message, Prompt, Usage

FORMS = [ORDER, JSON]


class Grammar:
    """A second reading of the grammars that `list_grammar` writes: enough of EBNF to say which texts they allow."""

    def __init__(self, text: str) -> None:
        self.rules = {
            name: [re.findall(r'"(?:[^"\\]|\\.)*"|\w+(?:\{\d+\})?', branch) for branch in self.branches(body)]
            for name, body in (line.split(" ::= ", 1) for line in text.splitlines())
        }

    @staticmethod
    def branches(body: str) -> list[str]:
        """The alternatives of a rule; a bar inside a literal separates nothing."""
        return [part.strip() for part in re.findall(r'(?:"(?:[^"\\]|\\.)*"|[^|"])+', body)]

    def ends(self, rule: str, text: str, start: int) -> set[int]:
        """Where a match of `rule` from `start` may end."""
        found: set[int] = set()
        for branch in self.rules[rule]:
            places = {start}
            for part in branch:
                name, _, times = part.rstrip("}").partition("{") if part[0] != '"' else (part, "", "")
                for _ in range(int(times or 1)):
                    places = {end for place in places for end in self.step(name, text, place)}
            found |= places
        return found

    def step(self, part: str, text: str, place: int) -> set[int]:
        """Where one part of a branch may end."""
        if part[0] != '"':
            return self.ends(part, text, place)
        literal = json.loads(part)
        return {place + len(literal)} if text.startswith(literal, place) else set()

    def allows(self, text: str) -> bool:
        """True if the whole text is of the language."""
        return len(text) in self.ends("root", text, 0)


def written(form: Form, labels: list[str]) -> str:
    """A whole answer."""
    return form.opening + form.separator.join(map(form.item, labels)) + form.closing


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_a_small_grammar_allows_exactly_the_permutations(form: Form, data: st.DataObject) -> None:
    """While all labels are forced to be distinct, a list is allowed if and only if it has every label once."""
    count = data.draw(st.integers(1, 5))
    labels = list(make_labels(count))
    grammar = Grammar(Permutation(form, labels).grammar)
    listed = data.draw(st.lists(st.sampled_from([*labels, "Z"]), max_size=count + 1))
    assert grammar.allows(written(form, listed)) == (sorted(listed) == labels)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_forced_labels_are_distinct(form: Form) -> None:
    """After the forced labels, any of the labels may stand again; the length is exact."""
    grammar = Grammar(list_grammar(form, ("A", "B", "C"), length=3, forced=1, opening=form.opening, closing=form.closing))
    assert grammar.allows(written(form, ["A", "A", "A"]))
    assert not grammar.allows(written(form, ["A", "A"]))
    assert not grammar.allows(written(form, ["A", "B", "C", "A"]))


@pytest.mark.parametrize("count", [1, 2, 8, 9, 20, 26, 100])
def test_grammars_stay_small(count: int) -> None:
    """No grammar has more alternatives than was measured to compile quickly; at least one label is always forced."""
    grammar = Permutation(ORDER, make_labels(count)).grammar
    forced = forced_labels(count)
    assert 1 <= forced <= count
    # Two rules of the free part list the labels once more.
    assert sum(len(Grammar.branches(line)) for line in grammar.splitlines()) <= MAX_BRANCHES + count + 2
    assert forced == count or count > 8


def play(form: Form, labels: list[str], wishes: list[int]) -> tuple[Permutation, int, bool]:
    """Decodes with a model that would write the labels numbered by `wishes`, masked by each call's grammar, greedily.

    Returns:
        The decoding, the number of calls, and whether all that was written was of the grammar.
    """
    decoding = Permutation(form, labels)
    calls, at = 0, 0
    while not decoding.complete:
        calls += 1
        before = decoding.done
        left = [label for label in labels if label not in before]
        grammar = Grammar(decoding.grammar)
        length = next(n for n in range(len(left), 0, -1) if grammar.allows(_call(form, left, n, before)))
        forced = min(length, forced_labels(len(left)))
        listed: list[str] = []
        for place in range(length):
            open_labels = [label for label in left if label not in listed] if place < forced else left
            wish = wishes[at % len(wishes)] if wishes else 0
            at += 1
            listed.append(open_labels[wish % len(open_labels)])
        text = _spell(form, listed, first=not before, last=length == len(left))
        if not grammar.allows(text) or not decoding.take(text):
            return decoding, calls, False
        assert len(decoding.done) > len(before)
    return decoding, calls, True


def _call(form: Form, left: list[str], length: int, before: tuple[str, ...]) -> str:
    return _spell(form, left[:length], first=not before, last=length == len(left))


def _spell(form: Form, listed: list[str], *, first: bool, last: bool) -> str:
    opening = form.opening if first else form.separator
    return opening + form.separator.join(map(form.item, listed)) + (form.closing if last else "")


@pytest.mark.parametrize("form", FORMS)
@given(count=st.integers(1, 24), wishes=st.lists(st.integers(0, 30), max_size=40))
def test_whatever_the_model_wants_a_permutation_comes_out(form: Form, count: int, wishes: list[int]) -> None:
    """Any model, also one that only repeats itself, ends with every label once, in the answer format, in at most n calls."""
    labels = list(make_labels(count))
    decoding, calls, obeyed = play(form, labels, wishes)
    assert obeyed
    assert calls <= count
    assert sorted(decoding.done) == sorted(labels)
    assert decoding.written == written(form, list(decoding.done))


def test_a_model_that_repeats_nothing_takes_one_call() -> None:
    """A list of a hundred in one call, though its grammar forces one label only."""
    labels = list(make_labels(100))
    decoding = Permutation(ORDER, labels)
    assert decoding.take(written(ORDER, labels[::-1]))
    assert decoding.complete
    assert decoding.done == tuple(labels[::-1])


def test_after_a_repetition_the_rest_is_asked_for() -> None:
    """What stands before the first repetition is kept; the next call goes on after it, with the missing labels only."""
    decoding = Permutation(ORDER, make_labels(20))
    assert decoding.take(" > ".join(f"[{label}]" for label in [*"CABDAEF", *"GHIJKLMNOPQRS"]))
    assert decoding.written == "[C] > [A] > [B] > [D]"
    grammar = Grammar(decoding.grammar)
    assert grammar.allows(" > " + " > ".join(f"[{label}]" for label in "EFGHIJKL"))
    assert not any("[A]" in line for line in decoding.grammar.splitlines())


@pytest.mark.parametrize(
    "text",
    ["", "Sure! Here is the ranking:", "[A] > [B]", "[A] > [B] > [C] and so on", "[A] > [B] > [D]", "A > B > C", None],
)
def test_a_text_that_the_grammar_forbids_is_noticed(text: str | None) -> None:
    """A server that ignores the constraint is found out, and nothing of its text is taken."""
    decoding = Permutation(ORDER, "ABC")
    assert not decoding.take(text)
    assert decoding.done == ()


@pytest.mark.parametrize(
    ("text", "done"), [("", ""), ("[", ""), ("[A", ""), ("[A] >", "A"), ("[A] > [B] > [C", "AB"), ("[C] > [B] > [A]", "CBA")]
)
def test_a_text_that_breaks_off_is_taken_as_far_as_it_goes(text: str, done: str) -> None:
    """The limit on tokens may end a text anywhere; whole items before that count."""
    decoding = Permutation(ORDER, "ABC")
    assert decoding.take(text, cut_off=True)
    assert decoding.done == tuple(done)


def test_a_free_text_that_breaks_off_is_noticed_too() -> None:
    """Breaking off excuses no other text."""
    assert not Permutation(JSON, "ABC").take("Here are the results", cut_off=True)
    assert not Permutation(ORDER, "ABC").take("[A] > [B] and", cut_off=True)


def test_labels_are_spelt_as_json_would() -> None:
    """Quotation marks and backslashes in a literal reach the grammar escaped."""
    form = Form('{"', "<", ">", "\\", '"}')
    grammar = Grammar(Permutation(form, "AB").grammar)
    assert grammar.allows('{"<B>\\<A>"}')


@pytest.mark.parametrize(("answer", "form"), [("order", ORDER), ("json", JSON), ("label", None), ("free", None)])
def test_forms_of_formats(answer: str, form: Form | None) -> None:
    """Only the formats that list all labels have a form."""
    assert form_of(answer) == form  # type: ignore[arg-type]  # parametrized with the literals of AnswerFormat


class Model:
    """Answers calls from a list, and keeps what was asked."""

    def __init__(self, *texts: str, finish_reason: str = "stop") -> None:
        self.texts = list(texts)
        self.finish_reason = finish_reason
        self.asked: list[tuple[Prompt, Constraint, bool]] = []

    async def __call__(self, prompt: Prompt, constraint: Constraint, *, continued: bool) -> Completion:
        """One call."""
        self.asked.append((prompt, constraint, continued))
        text = self.texts.pop(0)
        return Completion(text, finish_reason=self.finish_reason, usage=Usage(prompt_tokens=10, completion_tokens=3, calls=1))


ASK = Message("user", "Rank these.")


async def test_calls_are_joined_into_one_answer() -> None:
    """A list that took two calls reads like one, costs both, and the second call begins with the first one's answer."""
    model = Model("[B] > [A] > [B]" + " > [A]" * 7, " > [C] > [D] > [E] > [F]", " > [G] > [H] > [J] > [I]")
    prompt = Prompt((ASK,), labels=tuple("ABCDEFGHIJ"), answer="order", label_logprobs=True)
    answer, obeyed = await decode(prompt, model)
    assert obeyed
    assert answer.text == "[B] > [A] > [C] > [D] > [E] > [F] > [G] > [H] > [J] > [I]"
    assert answer.usage == Usage(prompt_tokens=30, completion_tokens=9, calls=3)
    assert [continued for _, _, continued in model.asked] == [False, True, True]
    assert model.asked[1][0].messages == (ASK, Message("assistant", "[B] > [A]"))
    assert [asked.label_logprobs for asked, _, _ in model.asked] == [True, False, False]


async def test_an_answer_that_breaks_off_is_not_asked_on() -> None:
    """With the token limit used up there is no second call, and the finish reason says so."""
    model = Model('{"ranking": ["B", "A"', finish_reason="length")
    answer, obeyed = await decode(Prompt((ASK,), labels=("A", "B", "C"), answer="json"), model)
    assert obeyed
    assert (answer.text, answer.finish_reason) == ('{"ranking": ["B", "A"', "length")


async def test_disobedience_keeps_what_there_is() -> None:
    """Free text comes back as it is; where only a later call disobeyed, the list so far comes back."""
    prompt = Prompt((ASK,), labels=tuple("ABCDEFGHIJ"), answer="order")
    assert await decode(prompt, Model("I like B")) == (
        Completion("I like B", finish_reason="stop", usage=Usage(prompt_tokens=10, completion_tokens=3, calls=1)),
        False,
    )
    answer, obeyed = await decode(prompt, Model("[B] > [A]" + " > [B]" * 8, "Sorry?"))
    assert (answer.text, obeyed) == ("[B] > [A]", False)


@pytest.mark.parametrize(("text", "obeyed"), [("B", True), (" B\n", True), ("D", False), ("B because", False), ("", False)])
async def test_a_choice_is_one_label(text: str, obeyed: bool) -> None:
    """The format `label` is a choice of the labels."""
    model = Model(text)
    assert (await decode(Prompt((ASK,), labels=("A", "B"), answer="label"), model))[1] is obeyed
    assert model.asked[0][1] == ("choice", ("A", "B"))


@pytest.mark.parametrize(
    ("prompt", "constrained"),
    [
        (Prompt((ASK,), labels=("A",), answer="free"), False),
        (Prompt((ASK,), answer="order"), False),
        (Prompt((ASK,), labels=("A",), answer="order"), True),
        (Prompt((ASK,), labels=("A",), answer="label"), True),
    ],
)
def test_what_can_be_constrained(prompt: Prompt, constrained: bool) -> None:
    """A form is enforced where there is one, and labels to fill it."""
    assert is_constrained(prompt) is constrained
