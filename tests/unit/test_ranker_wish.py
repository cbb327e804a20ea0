"""A Ranker that reads queries and heeds constraints: what is asked first, what is left out, what the prefilter looks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank import Catalog, Constraint, Item, Limits, Ranker, RankRequest
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import BackendError, CapabilityError, RequestError, ServerError, UnknownItemError, UnreachableError
from llmrank.evaluation.records import ranking_record
from llmrank.forecast import forecast
from llmrank.prices import Prices
from llmrank.protocols import ModelInfo
from llmrank.retrieval.embedding import EmbeddingOptions, EmbeddingRetriever
from llmrank.retrieval.history import away_from
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.scale.batch import BatchOptions, batch_rank
from llmrank.strategies.likelihood import Likelihood
from llmrank.strategies.listwise import Listwise
from llmrank.types import Capability, Completion, Prompt, Ranking, ResolvedRequest, Wish
from llmrank.understanding import Understanding, UnderstandingOptions
from llmrank.writer import PromptOptions, PromptWriter
from tests.servers.batch import echo, serving
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.scripted import ScriptedBackend

CATALOG = Catalog(
    [
        Item("1", "space monster", {"year": 1979, "genres": ["Horror", "Sci-Fi"]}),
        Item("2", "space comedy", {"year": 1999, "genres": ["Comedy", "Sci-Fi"]}),
        Item("3", "funny dog", {"year": 2005, "genres": ["Comedy"]}),
        Item("4", "sad dog", {"year": 2010, "genres": ["Drama"]}),
        Item("5", "space war", {"year": 1977, "genres": ["Action", "Sci-Fi"]}),
        Item("6", "untitled"),
    ]
)
SENTENCE = "a comedy in space, newer than 1990, no horror"
ANSWER: dict[str, Any] = {
    "wishes": ["space"],
    "like": [],
    "dislikes": ["horror"],
    "constraints": [
        {"attribute": "year", "op": ">", "value": 1990},
        {"attribute": "genres", "op": "!=", "value": "Horror"},
    ],
}
READS = Understanding(UnderstandingOptions(attributes=("year", "genres")), PromptOptions(variables={"domain": "movies"}))


def answering(answer: object = ANSWER) -> Callable[[Prompt], str | BackendError | None]:
    """Answers the question about a sentence with `answer`, and ranks as shown."""

    def script(prompt: Prompt) -> str | BackendError | None:
        if prompt.answer != "object":
            return " > ".join(f"[{label}]" for label in prompt.labels)
        return answer if isinstance(answer, BackendError) else json.dumps(answer)

    return script


def make(backend: ScriptedBackend | None = None, **options: Any) -> Ranker:
    strategy = Listwise(PromptWriter(PromptOptions()))
    settings = {"catalog": CATALOG, "limits": Limits(max_attempts=1), "understanding": READS, **options}
    return Ranker(backend or ScriptedBackend(answering()), strategy, **settings)


def bag(keep: int = 3, **options: Any) -> Prefilter:
    return Prefilter(BagEmbedder(), PrefilterOptions(keep=keep, **options), CATALOG.items)


def text_of(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)


def test_a_new_users_sentence_is_read_first() -> None:
    """One question about it, then one about the candidates that meet its constraints; the Ranking tells all of it."""
    backend = ScriptedBackend(answering())
    with make(backend, prefilter=bag()) as ranker:
        ranking = ranker.rank(query=SENTENCE)
    assert [prompt.answer for prompt in backend.prompts] == ["object", "order"]
    assert ranking.item_ids == ["2", "3", "4"]  # "space" finds 2; those of before 1990 and without a year are gone
    assert ranking.wish is not None
    assert [str(each) for each in ranking.wish.constraints] == ["year > 1990", "genres != Horror"]
    assert (ranking.cut.constrained, ranking.cut.prefiltered) == (3, 0)
    assert (ranking.usage.calls, ranking.usage.prompt_tokens, len(ranking.trace)) == (2, 200, 2)
    shown = text_of(backend.prompts[1])
    assert f"<wish>{SENTENCE}</wish>" in shown
    assert "- <wish>space</wish>" in shown
    assert "I do not want:\n- <wish>horror</wish>" in shown


def test_it_is_the_same_in_a_stream_and_as_a_flow() -> None:
    """What `rank` does, `rank_many` and `flow` do."""
    with make(prefilter=bag()) as ranker:
        alone = ranker.rank(query=SENTENCE)
        (streamed,) = ranker.rank_many([RankRequest(query=SENTENCE)])
        script = answering()

        def answer(prompt: Prompt) -> Completion:
            text = script(prompt)
            assert isinstance(text, str)
            return Completion(text)

        stepped = advance(ranker.flow(RankRequest(query=SENTENCE), Budget(8000, EstimateCounter())), answer)
    assert isinstance(stepped, Ranking)
    assert alone.item_ids == streamed.item_ids == stepped.item_ids
    assert alone.wish == streamed.wish == stepped.wish
    assert alone.cut == streamed.cut == stepped.cut


@pytest.mark.parametrize(
    ("understanding", "history", "query"), [(None, (), SENTENCE), (READS, ("4",), SENTENCE), (READS, (), None)]
)
def test_otherwise_nothing_changes(understanding: Understanding | None, history: tuple[str, ...], query: str | None) -> None:
    """Without understanding, with a history, without a query: one question, the words of the prompt as ever, no wish."""
    backend = ScriptedBackend(answering())
    with make(backend, understanding=understanding) as ranker:
        ranking = ranker.rank(history, ["1", "2"], query)
    assert [prompt.answer for prompt in backend.prompts] == ["order"]
    assert (ranking.wish, ranking.cut.constrained, len(ranking.items)) == (None, 0, 2)
    assert "In short" not in text_of(backend.prompts[0])


@pytest.mark.parametrize("answer", [ServerError("it broke"), "no object"])
def test_a_sentence_that_cannot_be_read_is_taken_as_it_stands(answer: object) -> None:
    """The ranking goes on by the sentence itself, with no constraint and with a note."""
    embedder = BagEmbedder()
    prefilter = Prefilter(embedder, PrefilterOptions(keep=6), CATALOG.items)
    with make(ScriptedBackend(answering(answer)), prefilter=prefilter) as ranker:
        ranking = ranker.rank(query=SENTENCE)
    assert (ranking.status, len(ranking.items)) == ("ok", 6)
    assert ranking.wish == Wish(SENTENCE, notes=ranking.notes)
    assert "taken as it stands" in ranking.notes[0]
    assert SENTENCE in embedder.asked


def test_the_answer_about_a_sentence_is_paid_for_once(tmp_path: Path) -> None:
    """Two users of one sentence share it by the answer cache, like any other answer."""
    backend = ScriptedBackend(answering())
    with make(backend, cache=tmp_path / "answers.sqlite") as ranker:
        first = ranker.rank(candidates=["2", "3"], query=SENTENCE)
        second = ranker.rank(candidates=["2", "4"], query=SENTENCE)
    assert [prompt.answer for prompt in backend.prompts] == ["object", "order", "order"]
    assert (first.usage.cache_hits, second.usage.cache_hits) == (0, 1)
    assert first.wish == second.wish


def test_constraints_that_nothing_meets_are_relaxed() -> None:
    """The wish that comes back has those that were kept, and a note names the others."""
    with make() as ranker:
        ranking = ranker.rank(candidates=["1", "2"], query="newer than 2020, no horror")
    with make(ScriptedBackend(answering({"constraints": ANSWER["constraints"][::-1]}))) as ranker:
        relaxed = ranker.rank(candidates=["1", "5"], query=SENTENCE)
    assert ranking.wish is not None
    assert [str(each) for each in ranking.wish.constraints] == ["genres != Horror"]  # 1990 is not what this sentence says
    assert relaxed.wish is not None
    assert (relaxed.item_ids, [str(each) for each in relaxed.wish.constraints]) == (["5"], ["genres != Horror"])
    assert any("year > 1990" in note for note in relaxed.notes)


def test_a_callers_constraints_hold_without_any_understanding() -> None:
    """They need no query; what meets them is ranked, and the model is asked once."""
    backend = ScriptedBackend(answering())
    with make(backend, understanding=None, prefilter=bag()) as ranker:
        ranking = ranker.rank(history=["5"], constraints=[Constraint("genres", "=", "sci-fi")])
        listed = ranker.rank(candidates=["1", "3", "4"], constraints=[Constraint("year", ">=", 2005)])
    assert set(ranking.item_ids) == {"1", "2"}
    assert (ranking.cut.constrained, ranking.cut.seen, ranking.wish) == (3, ("5",), None)
    assert listed.item_ids == ["3", "4"]
    assert len(backend.prompts) == 2


def test_a_callers_constraints_are_never_relaxed() -> None:
    """Those read from the sentence give way to them; if nothing meets them, it is an error before anything is asked."""
    backend = ScriptedBackend(answering())
    with make(backend) as ranker:
        ranking = ranker.rank(query=SENTENCE, constraints=[Constraint("year", "<", 1980)])
        asked = len(backend.prompts)
        with pytest.raises(RequestError, match="no candidate meets year > 2050"):
            ranker.rank(constraints=[Constraint("year", ">", 2050)])
        (failed,) = ranker.rank_many([RankRequest(constraints=[Constraint("year", ">", 2050)])])
    assert set(ranking.item_ids) == {"5"}
    assert len(backend.prompts) == asked
    assert isinstance(failed.error, RequestError)


@pytest.mark.parametrize(
    ("constraints", "part"),
    [
        ([Constraint("yaer", "=", 1990)], "did you mean 'year'?"),
        ([Constraint("genres", "<", 3)], "'genres' holds texts"),
        (["year > 1990"], "not a Constraint"),
        ("year", "a single text instead of a list"),
        (Constraint("year", "=", 1), "not a list"),
    ],
)
def test_constraints_that_cannot_be_looked_up_are_refused(constraints: Any, part: str) -> None:
    """One error that names the field, before anything is asked."""
    backend = ScriptedBackend(answering())
    with make(backend) as ranker, pytest.raises(RequestError, match="constraints") as caught:
        ranker.rank(candidates=["1", "2"], constraints=constraints)
    assert part in str(caught.value)
    assert backend.prompts == []


def test_items_without_a_catalogue_have_attributes_too() -> None:
    """Then the request's own items say what can be constrained."""
    with make(catalog=None) as ranker:
        ranking = ranker.rank(candidates=CATALOG.items, query=SENTENCE)
        assert ranking.item_ids == ["2", "3", "4"]
        with pytest.raises(RequestError, match="no item has this attribute"):
            ranker.rank(candidates=CATALOG.items, constraints=[Constraint("price", "<", 3)])


def test_a_large_catalogue_may_be_narrowed_to_what_can_be_shown() -> None:
    """Without a prefilter a large catalogue is refused, unless constraints leave few enough of it."""
    large = Catalog([Item(str(number), f"Film {number}", {"year": number}) for number in range(3000)])
    with make(catalog=large, understanding=None) as ranker:
        assert len(ranker.rank(constraints=[Constraint("year", "<", 5)]).items) == 5
        with pytest.raises(RequestError, match="configure a prefilter"):
            ranker.rank(constraints=[Constraint("year", "<", 2000)])


def test_a_server_that_is_away_leaves_the_order_given() -> None:
    """The window cannot be asked for, so neither can the sentence be read; what the caller constrains holds all the same."""

    class Away(ScriptedBackend):
        async def info(self) -> ModelInfo:
            raise UnreachableError("nobody there")

    with make(Away(), on_error="fallback") as ranker:
        ranking = ranker.rank(query=SENTENCE, constraints=[Constraint("year", ">", 2000)])
    assert (ranking.status, ranking.item_ids, ranking.wish, ranking.cut.constrained) == ("error", ["3", "4"], None, 4)
    assert isinstance(ranking.error, BackendError)


def test_a_backend_that_only_scores_cannot_read() -> None:
    """Refused when the Ranker is built."""

    class OnlyScores(ScriptedBackend):
        @property
        def capabilities(self) -> frozenset[Capability]:
            return frozenset({"score"})

    strategy = Likelihood(PromptWriter(PromptOptions(template="likelihood/query")))
    with pytest.raises(CapabilityError, match="understanding"):
        Ranker(OnlyScores(), strategy, understanding=READS)


def test_what_was_seen_is_no_reason_to_keep_a_constraint() -> None:
    """With `when: always`, a constraint that only seen items meet is relaxed, as the prefilter leaves these out."""
    always = Understanding(replace(READS.options, when="always"))
    answer = {"constraints": [{"attribute": "genres", "op": "=", "value": "Drama"}]}
    with make(ScriptedBackend(answering(answer)), understanding=always, prefilter=bag(keep=10)) as ranker:
        ranking = ranker.rank(["4"], query="another drama")
    assert set(ranking.item_ids) == {"1", "2", "3", "5", "6"}
    assert any("genres = Drama" in note for note in ranking.notes)


def test_the_prefilter_looks_for_what_was_read() -> None:
    """Wishes and titles stand for the sentence, and dislikes push away; without what was read, the sentence counts."""
    embedder = BagEmbedder()
    retriever = EmbeddingRetriever(embedder, EmbeddingOptions(dislike_weight=0.5), CATALOG.items)
    wish = Wish("space, sad", wishes=("space",), like=("funny dog",), dislikes=("war",))
    request = ResolvedRequest((), CATALOG.items, "sad", wish=wish)
    scores = retriever.score(request, CATALOG.items)
    plain = retriever.score(replace(request, wish=None), CATALOG.items)
    assert {"space, funny dog", "war", "sad"} <= set(embedder.asked)
    assert int(np.argmax(scores)) == 2
    assert scores[4] < scores[0]  # both have "space", one has "war"
    assert int(np.argmax(plain)) == 3
    weightless = EmbeddingRetriever(embedder, EmbeddingOptions(dislike_weight=0.0), CATALOG.items)
    assert weightless.score(request, CATALOG.items)[4] == pytest.approx(weightless.score(request, CATALOG.items)[0])


def test_away_from_what_is_not_wanted() -> None:
    """By hand: (1, 0) less half of (0, 1); nothing left of it means it stays."""
    one, other = np.array([1, 0], dtype=np.float32), np.array([0, 1], dtype=np.float32)
    assert away_from(one, other, 0.5) == pytest.approx(np.array([1, -0.5]) / np.sqrt(1.25))
    assert (away_from(one, one, 1.0) == one).all()
    assert (away_from(one, np.zeros(2, dtype=np.float32), 1.0) == one).all()


def test_a_new_item_is_reached_by_its_words() -> None:
    """An item that nobody has chosen yet, and that stands in no list, is found in the catalogue by the sentence."""
    with make(prefilter=bag(keep=1), understanding=None) as ranker:
        assert ranker.rank(query="a funny dog").item_ids == ["3"]


def test_a_forecast_counts_the_question_about_the_sentence() -> None:
    """One call more for each request whose query is read, and in steps one after the other; nothing is asked."""
    backend = ScriptedBackend(answering())
    with make(backend) as ranker:
        read = forecast(ranker, [RankRequest(query=SENTENCE)], 10, Prices.load(None))
        unread = forecast(ranker, [RankRequest(["4"], query=SENTENCE)], 10, Prices.load(None))
    assert (read.calls, read.calls_least, read.calls_most, read.rounds) == (20, 20, 20, 2.0)
    assert (unread.calls, unread.calls_least, unread.rounds) == (10, 10, 1.0)
    assert read.prompt_tokens > unread.prompt_tokens
    assert any("what a query says" in each for each in read.assumptions)
    assert not any("what a query says" in each for each in unread.assumptions)
    assert backend.prompts == []


def test_a_batch_reads_sentences_in_a_wave_of_their_own(tmp_path: Path) -> None:
    """The questions about sentences are the first file, the rankings that hang on them the second."""

    def read(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "response_format" not in body:
            return echo(body)
        schema = body["response_format"]["json_schema"]["schema"]
        assert set(schema["required"]) == {"wishes", "like", "dislikes", "constraints"}
        status, told = echo(body)
        told["choices"][0]["message"]["content"] = json.dumps(ANSWER)
        return status, told

    with serving(read) as server:
        backend = OpenAIBackend(OpenAIOptions(model="m", base_url=server.url))
        strategy = Listwise(PromptWriter(PromptOptions()))
        with Ranker(backend, strategy, catalog=CATALOG, limits=Limits(max_attempts=1), understanding=READS) as ranker:
            options = BatchOptions(poll_s=0.01, poll_most_s=0.02)
            (ranking,) = batch_rank(ranker, lambda: [RankRequest(query=SENTENCE)], tmp_path / "batch", options)
    assert set(ranking.item_ids) == {"2", "3", "4"}
    assert ranking.wish is not None
    assert [len(lines) for lines in server.asked] == [1, 1]


def test_records_tell_the_wish() -> None:
    """As JSON, where a query was read, and nowhere else."""
    with make() as ranker:
        record = ranking_record(ranker.rank(query=SENTENCE))
        without = ranking_record(ranker.rank(["1"], ["2", "3"]))
    assert json.loads(json.dumps(record))["wish"] == {**ANSWER, "like": []}
    assert record["cut"]["constrained"] == 3
    assert "wish" not in without


def test_an_unknown_item_is_still_told_first() -> None:
    """A mistyped id is found before a sentence is read."""
    backend = ScriptedBackend(answering())
    with make(backend) as ranker, pytest.raises(UnknownItemError):
        ranker.rank(candidates=["77"], query=SENTENCE)
    assert backend.prompts == []
