"""What is cut from a prompt that is too long, and how tokens are counted."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import budget as budget_module
from llmrank.budget import (
    DEFAULT_WINDOW,
    ITEM_FLOOR,
    Budget,
    EstimateCounter,
    Fitted,
    TiktokenCounter,
    tiktoken_counter,
)
from llmrank.errors import BudgetError
from llmrank.protocols import ModelInfo
from llmrank.types import Message


class WordCounter:
    """Counts words (and one token a message): exact, fast, and easy to check by hand."""

    name = "words"
    remote = False

    def __init__(self) -> None:
        self.calls = 0

    def count(self, text: str) -> int:
        """The number of words."""
        self.calls += 1
        return len(text.split())

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of words, and one a message."""
        return sum(self.count(message.content) + 1 for message in messages)


def render(history: Sequence[str], candidates: Sequence[str]) -> list[Message]:
    """A prompt of 6 words and 2 messages around the texts."""
    return [Message("system", "rank these"), Message("user", "\n".join(["seen", *history, "choose from", *candidates, "now"]))]


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[str], list[str], int, int]:
    """History, candidates, reserve and a window that is between hopeless and ample for them."""
    texts = st.lists(st.integers(1, 30).map(lambda words: " ".join(["word"] * words)), max_size=12)
    history, candidates, reserve = draw(texts), draw(texts), draw(st.integers(0, 20))
    whole = WordCounter().count_messages(render(history, candidates)) + reserve
    return history, candidates, reserve, draw(st.integers(1, whole + 3))


@settings(deadline=None)  # other work on the machine must not fail it
@given(requests())
def test_what_is_fitted_fits_and_no_candidate_is_lost(request_: tuple[list[str], list[str], int, int]) -> None:
    """Prompt and answer never need more than the window, whatever the texts; else there is a BudgetError."""
    history, candidates, reserve, window = request_
    counter = WordCounter()
    try:
        fitted = Budget(window, counter).fit(render, history=history, candidates=candidates, reserve=reserve)
    except BudgetError:
        shortest = render(
            [budget_module.shorten(text, ITEM_FLOOR) for text in history[-1:]],
            [budget_module.shorten(text, ITEM_FLOOR) for text in candidates],
        )
        assert counter.count_messages(shortest) + reserve > window, "refused though the shortest prompt fits"
        return
    assert not isinstance(fitted.rendered, str)
    assert counter.count_messages(fitted.rendered) + reserve <= window
    assert counter.count_messages(fitted.rendered) <= fitted.tokens
    assert len(fitted.candidates) == len(candidates)
    assert list(fitted.rendered) == render(fitted.history, fitted.candidates)
    assert fitted.dropped + len(fitted.history) == len(history)
    assert fitted.history or not history, "one event is kept"
    for shown, given_texts, shortened in (
        (fitted.history, history[fitted.dropped :], [index - fitted.dropped for index in fitted.shortened_history]),
        (fitted.candidates, candidates, list(fitted.shortened_candidates)),
    ):
        assert [index for index, text in enumerate(shown) if text != given_texts[index]] == shortened


@settings(deadline=None)  # other work on the machine must not fail it
@given(requests())
def test_the_cut_is_minimal(request_: tuple[list[str], list[str], int, int]) -> None:
    """Nothing is cut when all fits; one more event would not have fitted; texts are shortened only with one event left."""
    history, candidates, reserve, window = request_
    counter = WordCounter()

    def fits(events: Sequence[str], texts: Sequence[str]) -> bool:
        return counter.count_messages(render(events, texts)) + reserve <= window

    try:
        fitted = Budget(window, counter).fit(render, history=history, candidates=candidates, reserve=reserve)
    except BudgetError:
        assert not fits(history[-1:], candidates)
        return
    cut = bool(fitted.dropped or fitted.shortened_history or fitted.shortened_candidates)
    assert cut != fits(history, candidates)
    if fitted.shortened_history or fitted.shortened_candidates:
        assert len(fitted.history) <= 1
        assert not fits(history[-1:], candidates)
        longest = max(len(text.encode()) for text in (*fitted.history, *fitted.candidates))
        assert not fits(*([budget_module.shorten(text, longest + 5) for text in texts] for texts in (history[-1:], candidates)))
    elif fitted.dropped:
        assert not fits(history[fitted.dropped - 1 :], candidates)


def test_nothing_is_counted_where_the_bytes_fit() -> None:
    """A prompt of fewer bytes than the window has tokens needs no tokenizer, which may be a server."""
    counter = WordCounter()
    fitted = Budget(8192, counter).fit(render, history=["Alien"], candidates=["Aliens", "Babe"], reserve=512)
    assert counter.calls == 0
    assert fitted.tokens >= counter.count_messages(render(["Alien"], ["Aliens", "Babe"]))


def test_few_counts_are_made() -> None:
    """A history of 1,000 events is cut by bisection: about log2(1000) prompts are counted, two messages each."""
    counter = WordCounter()
    history = [f"event {index}" for index in range(1000)]
    fitted = Budget(300, counter).fit(render, history=history, candidates=["x"], reserve=50)
    assert fitted.history[-1] == "event 999"
    assert len(fitted.history) == (300 - 50 - 6 - 2 - 1) // 2
    assert counter.calls <= 2 * 13


def test_long_texts_are_shortened_before_short_ones() -> None:
    """A cap is put on all texts, so that the longest pay first; a cut text ends at a word, with an ellipsis."""
    counter = WordCounter()
    long_text = " ".join(f"word{index}" for index in range(60))
    fitted = Budget(60, counter).fit(render, history=["old", "recent"], candidates=["short", long_text], reserve=10)
    assert fitted.history == ("recent",)
    assert fitted.dropped == 1
    assert fitted.candidates[0] == "short"
    assert fitted.candidates[1].startswith("word0 word1")
    assert fitted.candidates[1].endswith("…")
    assert fitted.shortened_candidates == (1,)
    assert fitted.shortened_history == ()


def test_raw_text_is_fitted_too() -> None:
    """A prefix for likelihood scoring is counted as text, without what a chat template adds."""
    counter = WordCounter()
    fitted = Budget(300, counter).fit(
        lambda history, _: "".join(f"{text}\n" for text in history), history=["a b"] * 200, candidates=(), reserve=100
    )
    assert fitted.rendered == "a b\n" * 100
    assert fitted.dropped == 100


def test_what_cannot_fit_names_figures_and_remedy() -> None:
    """The error says how many tokens were needed, of how many, who counted, and what to do; an assumed window is named so."""
    budget = Budget(20, WordCounter(), assumed=True)
    with pytest.raises(BudgetError) as caught:
        budget.fit(render, history=[], candidates=["a b c"] * 30, reserve=4)
    message = str(caught.value)
    for part in ("30 candidates", "98 tokens", "window of 20", "assumed", "words", "prefilter.keep"):
        assert part in message


def test_a_backend_that_knows_nothing_gets_an_assumed_window() -> None:
    """What the backend knows is taken; the rest is assumed, and said to be."""
    counter = WordCounter()
    assert Budget.of(ModelInfo(4096, counter)) == Budget(4096, counter)
    budget = Budget.of(ModelInfo(), "gpt-4.1-mini")
    assert (budget.window, budget.assumed) == (DEFAULT_WINDOW, True)
    assert "cl100k_base" in budget.counter.name or "o200k_base" in budget.counter.name


def test_known_counts() -> None:
    """cl100k_base counts as OpenAI documents: 'tiktoken is great!' is 6 tokens; a chat adds 4 a message and 3."""
    counter = tiktoken_counter("gpt-4")
    assert counter.name == "tiktoken cl100k_base"
    assert counter.count("tiktoken is great!") == 6
    assert counter.count_messages([Message("user", "tiktoken is great!")]) == 6 + 4 + 3
    assert counter.count("<|endoftext|>") > 1, "special tokens in data are ordinary text"


def test_a_likely_count_is_below_the_safe_one() -> None:
    """For a forecast: a model's own vocabulary counts the same, a stand-in with less of a margin, or none between siblings."""
    text = "The Silence of the Lambs (1991) - Drama, Thriller " * 20
    own = tiktoken_counter("gpt-4").count(text)
    assert tiktoken_counter("gpt-4", likely=True).count(text) == own
    likely, safe = tiktoken_counter("Qwen/Qwen3-8B", likely=True), tiktoken_counter("Qwen/Qwen3-8B")
    assert own < likely.count(text) < safe.count(text)
    assert "+ 10 % in place of" in likely.name


def test_a_stand_in_says_so_and_counts_more() -> None:
    """A model whose vocabulary nobody knows is counted by another's, with a margin, under a name that says both."""
    own, other = tiktoken_counter("gpt-4"), tiktoken_counter("Qwen/Qwen3-8B")
    assert "Qwen/Qwen3-8B" in other.name
    assert "+ 60 %" in other.name
    text = "Birdcage, The (1996) - Comedy"
    assert other.count(text) >= 1.6 * own.count(text)


def test_a_cached_o200k_vocabulary_is_used_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The larger vocabulary counts only if tiktoken's cache holds it whole: tiktoken would download it anew otherwise."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    address = budget_module._VOCABULARY_URL.format("o200k_base")
    cached = tmp_path / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
    cached.write_bytes(b"broken")
    assert not TiktokenCounter.available("o200k_base")
    assert "+ 10 % in place of" in tiktoken_counter("gpt-4.1-mini").name
    monkeypatch.setitem(budget_module._VOCABULARIES, "o200k_base", hashlib.sha256(b"broken").hexdigest())
    assert tiktoken_counter("openai/gpt-4.1-mini").name == "tiktoken o200k_base"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert not TiktokenCounter.available("o200k_base")


def test_the_addresses_and_hashes_are_tiktokens_own() -> None:
    """The two facts copied from tiktoken are still what its own source says."""
    source = find_spec("tiktoken_ext.openai_public")
    assert source is not None
    assert source.origin is not None
    text = Path(source.origin).read_text(encoding="utf-8")
    for name, digest in budget_module._VOCABULARIES.items():
        assert budget_module._VOCABULARY_URL.format(name) in text
        assert digest in text


def test_counting_opens_no_connection(tmp_path: Path) -> None:
    """In a fresh process where every socket is an error, counting works, and a cache folder that is none is no obstacle."""
    script = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from llmrank.budget import tiktoken_counter\n"
        "for model in ('gpt-4.1-mini', 'gpt-4', 'llama', ''):\n"
        "    counter = tiktoken_counter(model); assert 0 < counter.count('a few words') < 20; print(counter.name)\n"
    )
    file = tmp_path / "file"
    file.write_text("")
    for folder, expected in ((str(tmp_path), "tiktoken cl100k_base"), (str(file / "below"), "estimate (tiktoken cannot load")):
        environment = {**os.environ, "TIKTOKEN_CACHE_DIR": folder}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        assert all(line.startswith(expected) for line in run.stdout.splitlines()), run.stdout


def test_without_vocabularies_characters_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort is an estimate that says that it is one."""
    monkeypatch.setattr(TiktokenCounter, "available", staticmethod(lambda _: False))
    counter = tiktoken_counter("gpt-4")
    assert counter.name.startswith("estimate (")
    assert counter.count_messages([Message("user", "abc")]) > counter.count("abc")


@settings(deadline=None)  # other work on the machine must not fail it
@given(st.text(max_size=200))
def test_the_estimate_is_between_nothing_and_the_bytes(text: str) -> None:
    """The fast path relies on it: no counter says more than one token a byte."""
    count = EstimateCounter().count(text)
    assert (count > 0) == bool(text)
    assert count <= len(text.encode(errors="replace"))


@pytest.mark.parametrize(
    "text",
    [
        "Movies I have watched recently, in order:",
        "[A] Shin Megami Tensei: Devil Summoner 2: Raidou Kuzunoha versus King Abaddon",
        "[12] Birdcage, The (1996) - Comedy",
        "Все фильмы, которые я недавно посмотрел: Броненосец Потёмкин",
        "我最近看过的电影：千与千寻、龙猫、天空之城",
        "最近見た映画：千と千尋の神隠し、となりのトトロ",
        "मैंने हाल ही में देखी फिल्में क्रम में",
        "నేను ఇటీవల చూసిన సినిమాలు",
        "Être et avoir, Amélie, Œdipe",
        "1234567890 99 2001 3.14159",
    ],
)
def test_the_estimate_errs_on_the_high_side(text: str) -> None:
    """In many languages it is above the count by cl100k_base, the vocabulary that is on every machine."""
    assert EstimateCounter().count(text) >= tiktoken_counter("gpt-4").count(text)


def test_fitted_defaults() -> None:
    """A Fitted of a prompt that was not cut says that nothing was."""
    fitted = Fitted("text", (), ())
    assert (fitted.dropped, fitted.shortened_history, fitted.shortened_candidates) == (0, (), ())
