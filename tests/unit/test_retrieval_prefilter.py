"""The prefilter: which candidates are kept, in which order, and what is said of the others."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.catalog import Catalog
from llmrank.errors import BackendError, ConfigError, RequestError
from llmrank.protocols import Retriever
from llmrank.resolve import resolve
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.history import blend, history_vector
from llmrank.retrieval.precomputed import PrecomputedEmbedder, PrecomputedOptions
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.store import VectorStore
from llmrank.retrieval.text import clean, item_text
from llmrank.retrieval.vectors import CHUNK, Vectors
from llmrank.types import Event, Item, RankRequest, ResolvedRequest
from tests.unit.bag_embedder import BagEmbedder

TITLES = [
    "alien space horror",  # 0
    "alien space war",  # 1
    "toy story animation",  # 2
    "toy story two animation",  # 3
    "heat crime",  # 4
    "space odyssey",  # 5
    "toy story animation",  # 6: the same title as 2
    "",  # 7
]
CATALOG = tuple(Item(str(number), title) for number, title in enumerate(TITLES))


def request(history: list[int] | None = None, candidates: list[int] | None = None, query: str | None = None) -> ResolvedRequest:
    """A request for catalogue items; None stands for the whole catalogue, by identity."""
    return ResolvedRequest(
        tuple(Event(CATALOG[at]) for at in history or []),
        CATALOG if candidates is None else tuple(CATALOG[at] for at in candidates),
        query,
    )


def ids(prefilter: Prefilter, asked: ResolvedRequest) -> list[str]:
    """The ids kept, best first."""
    return [item.id for item in prefilter.select(asked).candidates]


def test_the_most_alike_are_kept_best_first() -> None:
    """Whole catalogue: cosine with the history decides, seen items are left out and named, the rest is counted."""
    selection = Prefilter(BagEmbedder(), PrefilterOptions(keep=3), CATALOG).select(request(history=[3]))
    assert [item.id for item in selection.candidates] == ["2", "6", "0"]
    assert selection.scores[0] == pytest.approx(3 / np.sqrt(12))
    assert selection.scores[0] == selection.scores[1]
    assert selection.seen == ("3",)
    assert selection.dropped == 4
    assert selection.notes == ()
    assert all(isinstance(score, float) for score in selection.scores)


@given(
    st.lists(st.integers(0, 7), max_size=5),
    st.lists(st.integers(0, 7), unique=True, min_size=1),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_asked_nothing_is_lost_or_invented(
    history: list[int], candidates: list[int], keep: int, drop_seen: bool, prepared: bool
) -> None:
    """Kept, seen and dropped add up to the candidates; the order is by score; a prepared catalogue changes nothing."""
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(keep=keep, drop_seen=drop_seen), CATALOG)
    if prepared:
        prefilter.prepare()
    asked = request(history, candidates)
    if drop_seen and set(candidates) <= set(history):
        with pytest.raises(RequestError, match=r"in the history; .*drop_seen"):
            prefilter.select(asked)
        return
    selection = prefilter.select(asked)
    kept = [item.id for item in selection.candidates]
    assert len(kept) == len(set(kept)) <= keep
    assert len(kept) + len(selection.seen) + selection.dropped == len(candidates)
    assert set(kept) | set(selection.seen) <= set(map(str, candidates))
    assert set(selection.seen) == (set(map(str, history)) & set(map(str, candidates)) if drop_seen else set())
    assert list(selection.scores) == sorted(selection.scores, reverse=True)
    if not drop_seen:
        scores = dict(zip(map(str, candidates), prefilter.score(asked, asked.candidates).tolist(), strict=True))
        assert list(selection.scores) == pytest.approx([scores[item_id] for item_id in kept], abs=1e-6)


def test_the_whole_catalogue_and_the_same_list_give_the_same() -> None:
    """By identity from one matrix, or as a list whose vectors are gathered: one answer."""
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(keep=8), CATALOG)
    whole, listed = request(history=[0, 2]), request(history=[0, 2], candidates=list(range(8)))
    assert ids(prefilter, whole) == ids(prefilter, listed) == ids(Prefilter(BagEmbedder(), PrefilterOptions(keep=8)), listed)
    assert prefilter.select(whole).seen == prefilter.select(listed).seen == ("0", "2")


def test_a_catalogue_is_embedded_once_and_lazily() -> None:
    """A short list embeds no catalogue; the first whole request embeds it, each different text once; later ones nothing."""
    bag = BagEmbedder()
    prefilter = Prefilter(bag, PrefilterOptions(), CATALOG)
    prefilter.select(request(history=[0], candidates=[1]))
    assert bag.asked == [TITLES[0], TITLES[1]]
    bag.asked.clear()
    seen: list[tuple[int, int]] = []
    prefilter.prepare(lambda done, total: seen.append((done, total)))
    assert sorted(bag.asked) == sorted(set(TITLES))
    assert seen == [(7, 7)]
    bag.asked.clear()
    threads = [threading.Thread(target=prefilter.select, args=(request(history=[0]),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bag.asked == [TITLES[0]] * 4  # the histories'


def test_threads_embed_a_catalogue_once() -> None:
    """Four first requests at once wait for one matrix."""
    bag = BagEmbedder()
    prefilter = Prefilter(bag, PrefilterOptions(), CATALOG)
    threads = [threading.Thread(target=prefilter.select, args=(request(query="space"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bag.asked.count("heat crime") == 1


def test_recent_items_weigh_more_and_old_ones_nothing() -> None:
    """The last item has age 0; with `last` the older ones are not even looked at."""
    options = PrefilterOptions(keep=2, decay=0.5)
    assert ids(Prefilter(BagEmbedder(), options, CATALOG), request([4, 0], [2, 5, 1])) == ["1", "5"]
    recent = Prefilter(BagEmbedder(), PrefilterOptions(last=1), CATALOG)
    assert ids(recent, request([0, 0, 0, 0, 3], [1, 2])) == ["2", "1"]


def test_a_query_takes_the_place_of_a_history_or_stands_beside_it() -> None:
    """Alone it decides; with a history its share is `query_weight`, and 0 and 1 silence one or the other."""
    by = {weight: Prefilter(BagEmbedder(), PrefilterOptions(query_weight=weight), CATALOG) for weight in (0.0, 0.5, 1.0)}
    assert ids(by[0.5], request(candidates=[4, 2, 5], query="a SPACE&nbsp;film"))[0] == "5"
    both = request([3], [5, 2, 4], "crime")
    assert ids(by[0.0], both) == ["2", "5", "4"]
    assert ids(by[1.0], both)[0] == "4"
    assert by[0.5].score(both, both.candidates)[1:] == pytest.approx(
        [(0.5 * 3 / np.sqrt(12)) / np.sqrt(0.5), (0.5 / np.sqrt(2)) / np.sqrt(0.5)], abs=1e-6
    )


@pytest.mark.parametrize(
    ("asked", "what"),
    [(request(candidates=[4, 2, 5]), "no history or query"), (request([7], [4, 2, 5]), "no known word in history or query")],
)
def test_nothing_to_compare_with_keeps_the_order_given(asked: ResolvedRequest, what: str) -> None:
    """No history and no query, or only empty texts in them: the first `keep` as given, scores of zero, and a note."""
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(keep=2), CATALOG)
    selection = prefilter.select(asked)
    assert [item.id for item in selection.candidates] == ["4", "2"]
    assert selection.scores == (0.0, 0.0)
    assert selection.dropped == 1
    assert what in selection.notes[0]
    assert prefilter.score(asked, asked.candidates).tolist() == [0.0] * 3
    everything = prefilter.select(request())
    assert [item.id for item in everything.candidates] == ["0", "1"]
    assert everything.dropped == 6


def test_a_short_list_is_ordered_all_the_same() -> None:
    """Fewer candidates than `keep` all stay, best first."""
    assert ids(Prefilter(BagEmbedder(), PrefilterOptions(), CATALOG), request([0], [4, 1, 5])) == ["1", "5", "4"]


def test_an_item_of_the_callers_own_counts_by_its_own_words() -> None:
    """An Item under an id of the catalogue, but with another title, is not mistaken for the catalogue's."""
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(), CATALOG)
    prefilter.prepare()
    own = (Item("4", "alien horror space"), Item("new", "heat"), CATALOG[1], Item("5", "space odyssey"))
    selection = prefilter.select(ResolvedRequest((Event(CATALOG[0]),), own))
    assert [item.id for item in selection.candidates] == ["4", "1", "5", "new"]
    assert selection.candidates[0].title == "alien horror space"


def test_attributes_that_cannot_be_compared_do_no_harm() -> None:
    """NumPy arrays among the attributes of an item brought by the caller: only the words that are embedded are compared."""
    items = tuple(Item(item.id, item.title, {"picture": np.ones(3)}) for item in CATALOG)
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(fields=("title", "picture")), items)
    prefilter.prepare()
    assert prefilter.embedding is not None
    bag = prefilter.embedding.embedder
    assert isinstance(bag, BagEmbedder)
    bag.asked.clear()
    own = (Item("1", TITLES[1], {"picture": np.ones(3)}), Item("5", TITLES[5], {"picture": np.zeros(3)}))
    selection = prefilter.select(ResolvedRequest((), own, "space"))
    assert [item.id for item in selection.candidates] == ["5", "1"]
    assert bag.asked == ["space", "space odyssey 0.0 0.0 0.0"]


def test_half_a_surrogate_pair_in_a_query_is_embedded() -> None:
    """JSON may hold it; an embedder sees U+FFFD in its place."""
    bag = BagEmbedder()
    Prefilter(bag).select(request(candidates=[1, 5], query="I want \ud83d"))
    assert bag.asked[0] == "I want \ufffd" == clean("I want \ud83d")


class Gated(BagEmbedder):
    """Waits before its second chunk until it may go on; tells that it waits; can be closed."""

    def __init__(self) -> None:
        super().__init__(dimension=4)
        self.waits, self.may_go_on = threading.Event(), threading.Event()
        self.chunks = self.closed = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of one number, quickly made."""
        self.chunks += 1
        if self.chunks == 2:
            self.waits.set()
            assert self.may_go_on.wait(30)
        return np.full((len(texts), 4), 0.5, dtype=np.float32)

    def close(self) -> None:
        """Counts."""
        self.closed += 1


@pytest.mark.parametrize("cached", [False, True])
def test_closing_ends_the_embedding_of_a_catalogue(tmp_path: Path, cached: bool) -> None:
    """Another thread's work ends after its chunk, with an error; what was embedded is kept; the embedder is closed."""
    gated = Gated()
    items = tuple(Item(str(number), f"film {number}") for number in range(4 * CHUNK))
    store = VectorStore(tmp_path, gated.model)
    prefilter = Prefilter(CachedEmbedder(gated, store) if cached else gated, PrefilterOptions(), items)
    raised: list[BackendError] = []

    def work() -> None:
        try:
            prefilter.select(ResolvedRequest((Event(items[0]),), items))
        except BackendError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert gated.waits.wait(30)
    prefilter.close()
    prefilter.close()
    gated.may_go_on.set()
    thread.join(30)
    assert "the prefilter is closed" in str(raised[0])
    assert gated.closed == 2
    with pytest.raises(BackendError, match="closed"):
        prefilter.prepare()
    assert gated.chunks == 2  # the history's and the catalogue's first
    if cached:
        assert len(store) >= CHUNK


def test_closing_reaches_every_embedder_inside(tmp_path: Path) -> None:
    """Through the cache and as a fallback; one that holds nothing need not have `close`."""
    gated = Gated()
    np.savez(tmp_path / "v.npz", vectors=np.ones((1, 4)), ids=np.array(["0"]))
    fallback = CachedEmbedder(gated, VectorStore(tmp_path, gated.model))
    Prefilter(PrecomputedEmbedder(PrecomputedOptions(str(tmp_path / "v.npz")), fallback)).close()
    assert gated.closed == 1
    Prefilter(PrecomputedEmbedder(PrecomputedOptions(str(tmp_path / "v.npz")))).close()
    Prefilter(BagEmbedder()).close()


def test_chosen_fields_are_embedded() -> None:
    """Attributes count when they are chosen, in the order chosen; a field that no item has is a typo, and named."""
    items = (Item("1", "A", {"genres": ["crime", "drama"], "year": 1995}), Item("2", "B", {"genres": ["comedy"]}))
    asked = ResolvedRequest((), items, "comedy")
    prefilter = Prefilter(BagEmbedder(), PrefilterOptions(fields=("title", "genres", "year")), items)
    assert ids(prefilter, asked) == ["2", "1"]
    with pytest.raises(ConfigError, match=r"prefilter.fields: .*did you mean 'genres'"):
        Prefilter(BagEmbedder(), PrefilterOptions(fields=("title", "genre")), items)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Item("1", " Tom &amp;amp; Jerry\n\u2028 2 "), "Tom & Jerry 2"),
        (Item("1", "AT&T"), "AT&T"),
        (Item("1", "half \ud83d, other half &#xDE80;"), "half \ufffd, other half \ufffd"),
        (Item("1", "\U0001f680"), "\U0001f680"),
        (Item("1", "Heat", {"genres": ["Crime ", "", None, 3]}), "Heat Crime 3"),
        (Item("1", "Heat", {"genres": {"b", "a"}}), "Heat a b"),
        (Item("1", "", {"genres": None}), ""),
        (Item("1", "Heat", {"genres": 0.5}), "Heat 0.5"),
    ],
)
def test_the_text_that_is_embedded(item: Item, text: str) -> None:
    """Plain words: entities resolved, also those escaped twice, spaces single, lists joined, what is missing left out."""
    assert item_text(item, ("title", "genres", "absent")) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keep", 0),
        ("keep", 2.5),
        ("keep", True),
        ("last", 0),
        ("decay", 0.0),
        ("decay", 1.1),
        ("decay", float("nan")),
        ("query_weight", -0.1),
        ("query_weight", "0.5"),
        ("fields", "title"),
        ("fields", ()),
        ("fields", (1,)),
    ],
)
def test_bad_options_are_refused(name: str, value: Any) -> None:
    """When they are made, naming the key."""
    with pytest.raises(ConfigError, match=f"prefilter.{name}: must be"):
        PrefilterOptions(**{name: value})


def test_fields_from_a_file_are_a_list() -> None:
    """YAML has lists only; the options hold a tuple, so that they can be hashed."""
    fields: Any = ["title", "year"]
    assert PrefilterOptions(fields=fields).fields == ("title", "year")


def test_it_is_a_retriever() -> None:
    """The fusion takes its scores under its name."""
    prefilter = Prefilter(BagEmbedder())
    assert isinstance(prefilter, Retriever)
    assert prefilter.name == "prefilter"


def test_a_cached_catalogue_is_searched_where_it_lies(tmp_path: Path) -> None:
    """With vectors on disk the answers are the same, a second process embeds nothing, and double titles share a row."""
    plain = Prefilter(BagEmbedder(), PrefilterOptions(), CATALOG)
    for expected_calls in (7, 0):
        bag = BagEmbedder()
        cached = Prefilter(CachedEmbedder(bag, VectorStore(tmp_path, bag.model)), PrefilterOptions(), CATALOG)
        assert cached.select(request([3, 1])) == plain.select(request([3, 1]))
        assert cached.select(request([3, 1], [0, 6, 2])) == plain.select(request([3, 1], [0, 6, 2]))
        assert len(bag.asked) == expected_calls


def test_the_history_vector_by_hand() -> None:
    """Weights 0.25, 0.5, 1 for three items, oldest first; the answer has length 1."""
    vector = history_vector(np.eye(3, dtype=np.float32), 0.5)
    assert vector == pytest.approx(np.array([0.25, 0.5, 1.0]) / np.sqrt(1.3125), abs=1e-6)
    assert not history_vector(np.zeros((2, 3), dtype=np.float32), 0.9).any()
    assert not history_vector(np.zeros((0, 3), dtype=np.float32), 0.9).any()


def test_a_blend_by_hand() -> None:
    """A quarter of the query and three of the history; a part that is zero leaves all to the other."""
    one, other = np.eye(2, dtype=np.float32)
    assert blend(one, other, 0.25) == pytest.approx(np.array([3, 1]) / np.sqrt(10), abs=1e-6)
    assert np.array_equal(blend(one, 0 * other, 0.25), one)
    assert np.array_equal(blend(0 * one, other, 0.25), other)


class TestPrecomputed:
    """Vectors from files: by id or by text, mapped or in memory, with or without a fallback."""

    def files(self, folder: Path, kind: str) -> PrecomputedOptions:
        """The catalogue's vectors, scaled, in one of the forms."""
        vectors = BagEmbedder().embed(TITLES) * 3
        texts = [title or " " for title in TITLES]
        texts[6] = "another text"
        if kind == "npz ids":
            np.savez(folder / "v.npz", vectors=vectors, ids=np.arange(8))
            return PrecomputedOptions(str(folder / "v.npz"))
        if kind == "npz texts":
            np.savez(folder / "v.npz", vectors=vectors.astype(np.float16), texts=np.array(texts))
            return PrecomputedOptions(str(folder / "v.npz"))
        np.save(folder / "v.npy", vectors / 3 if kind == "mapped" else vectors)
        key = "text" if kind == "npy texts" else "id"
        lines = [f'{{"{key}": "{number if key == "id" else text}"}}' for number, text in enumerate(texts)]
        (folder / "keys.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        return PrecomputedOptions(str(folder / "v.npy"), str(folder / "keys.jsonl"), model="bag")

    @pytest.mark.parametrize("kind", ["npz ids", "npz texts", "npy ids", "npy texts", "mapped"])
    def test_it_ranks_like_the_model_that_made_the_vectors(self, tmp_path: Path, kind: str) -> None:
        """Whatever the form on disk, the order is that of embedding on the spot."""
        prefilter = Prefilter(PrecomputedEmbedder(self.files(tmp_path, kind)), PrefilterOptions(keep=4), CATALOG)
        asked = request([3], [0, 1, 2, 4, 5])
        assert ids(prefilter, asked) == ids(Prefilter(BagEmbedder(), PrefilterOptions(keep=4)), asked)

    def test_unit_vectors_stay_on_disk(self, tmp_path: Path) -> None:
        """A float32 file of unit rows is not read into memory; one of other rows has to be."""
        mapped, rows = PrecomputedEmbedder(self.files(tmp_path, "mapped")).table(["3"])
        assert not mapped.flags.owndata
        assert not mapped.flags.writeable
        assert rows is not None
        assert rows.tolist() == [3]
        copied, _ = PrecomputedEmbedder(self.files(tmp_path, "npy ids")).table(["3"])
        assert copied.flags.owndata

    def test_what_is_not_in_the_files_is_named(self, tmp_path: Path) -> None:
        """An unknown item or text is one clear error; a fallback of the same model serves for texts."""
        by_id = PrecomputedEmbedder(self.files(tmp_path, "npy ids"))
        with pytest.raises(RequestError, match=r"item id: bag has no vector for this item \(got '99'\)"):
            Prefilter(by_id).select(ResolvedRequest((Event(CATALOG[0]),), (Item("99", "x"),)))
        with pytest.raises(
            RequestError, match=r"text: bag has no vector for this text .got 'space'.*prefilter.embedder.fallback"
        ):
            by_id.embed(["space"])
        helped = Prefilter(PrecomputedEmbedder(self.files(tmp_path, "npy ids"), BagEmbedder()))
        assert ids(helped, request(candidates=[4, 5], query="space")) == ["5", "4"]
        texts = PrecomputedEmbedder(self.files(tmp_path, "npy texts"), BagEmbedder())
        assert np.allclose(
            texts.embed(["space odyssey", "unseen words", ""]), BagEmbedder().embed(["space odyssey", "unseen words", ""])
        )
        assert texts.table(["unseen words"])[1] is None

    @pytest.mark.parametrize("kind", ["npy ids", "npy texts"])
    def test_a_query_without_a_vector_is_left_out(self, tmp_path: Path, kind: str) -> None:
        """With a history the history decides, and a note says so; with nothing else the request is refused."""
        prefilter = Prefilter(PrecomputedEmbedder(self.files(tmp_path, kind)), PrefilterOptions(keep=2), CATALOG)
        for candidates in (None, [0, 1, 2, 4, 5]):
            without, with_query = request([3], candidates), request([3], candidates, "something nice")
            selection = prefilter.select(with_query)
            assert selection.candidates == prefilter.select(without).candidates
            assert len(selection.notes) == 1
            assert "left the query out: bag has no vector for this text; " in selection.notes[0]
            assert prefilter.select(without).notes == ()
        with pytest.raises(
            RequestError, match=r"query: .*no history to compare with .got 'something nice'.*prefilter\.embedder\.fallback"
        ):
            prefilter.select(request([], [1, 2], "something nice"))

    def test_a_fallback_of_another_size_is_refused(self, tmp_path: Path) -> None:
        """Cosines between two models' vectors would mean nothing."""
        with pytest.raises(ConfigError, match="have 5 numbers, those on disk 256"):
            PrecomputedEmbedder(self.files(tmp_path, "npy ids"), BagEmbedder(5))

    @pytest.mark.parametrize(
        ("array", "lines", "message"),
        [
            (np.ones((2, 3)), '{"id": "1"}\n{"id": 2}\n{"id": "3"}', "has 2 rows, and there are 3 keys"),
            (np.ones((2, 3)), '{"id": "1"}\n{"id": "1"}', "two rows for one key"),
            (np.ones((2, 3)), '{"id": "1"}\n{"text": "1"}', "lines with `id` and lines without"),
            (np.ones((2, 3)), '{"id": "1"}\nnope', "not JSON .*line 2"),
            (np.ones((2, 3)), '{"id": "1"}\n["x"]', "a line without a key .*line 2"),
            (np.ones((2, 3)), '{"id": "1"}\n{"id": true}', "a line without a key .*line 2"),
            (np.ones(2), '{"id": "1"}\n{"id": "2"}', "shape"),
            (np.ones((2, 3), dtype=int), '{"id": "1"}\n{"id": "2"}', "int64"),
            (np.full((2, 3), np.nan), '{"id": "1"}\n{"id": "2"}', "not a number"),
            (np.array([[{}]], dtype=object), '{"id": "1"}', "cannot be read as a NumPy file"),
            (np.ones((2, 3)), "[" * 100_000, "not JSON .*line 1"),
            (np.ones((2, 3)), '{"id": "\udce9"}', "cannot be read .*UTF-8"),
            (np.ones((2, 3)), None, "no such file"),
        ],
    )
    def test_malformed_files_are_named(self, tmp_path: Path, array: np.ndarray, lines: str | None, message: str) -> None:
        """The file, what is wrong and what to do, in one ConfigError; nothing is ever unpickled."""
        np.save(tmp_path / "v.npy", array)
        if lines is not None:
            (tmp_path / "k.jsonl").write_bytes(lines.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError, match=message):
            PrecomputedEmbedder(PrecomputedOptions(str(tmp_path / "v.npy"), str(tmp_path / "k.jsonl")))

    def test_missing_parts_are_named(self, tmp_path: Path) -> None:
        """No file, no keys, an archive without the arrays, objects instead of texts, a text file named .npy."""
        np.savez(tmp_path / "v.npz", vectors=np.ones((1, 2)), names=np.array(["a"]))
        np.savez(tmp_path / "o.npz", vectors=np.ones((1, 2)), ids=np.array(["a"], dtype=object))
        (tmp_path / "v.npy").write_text("hello")
        (tmp_path / "empty.npy").touch()
        np.savez_compressed(tmp_path / "whole.npz", vectors=np.random.default_rng(1).random((9, 9)), ids=np.arange(9))
        whole = (tmp_path / "whole.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "flipped.npz").write_bytes(bytes(byte ^ (0x5A if 80 <= at < 200 else 0) for at, byte in enumerate(whole)))
        with (tmp_path / "one.npz").open("wb") as file:
            np.save(file, np.ones((1, 2)))
        for name, message in [
            ("none.npy", "no such file"),
            ("v.npz", r"holds the arrays \['names', 'vectors'\]"),
            ("o.npz", "as arrays of text"),
            ("v.npy", "cannot be read as a NumPy file"),
            ("empty.npy", "cannot be read as a NumPy file"),
            ("cut.npz", "cannot be read as a NumPy file"),
            ("flipped.npz", "cannot be read as a NumPy file"),
            ("one.npz", "is one array"),
        ]:
            with pytest.raises(ConfigError, match=message):
                PrecomputedEmbedder(PrecomputedOptions(str(tmp_path / name), str(tmp_path / "v.npz")))
        with pytest.raises(ConfigError, match="needs a file of keys"):
            PrecomputedEmbedder(PrecomputedOptions(str(tmp_path / "v.npy")))


class Fixed:
    """A retriever that scores items by their ids."""

    def __init__(self, name: str, scores: Mapping[str, float], floor: float | None) -> None:
        self.name, self.floor, self._scores = name, floor, scores

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> np.ndarray:
        """0 for what it does not know."""
        return np.array([self._scores.get(item.id, 0.0) for item in candidates], dtype=np.float32)


def test_a_retriever_that_knows_nothing_of_a_user_brings_the_first_items_of_a_catalogue_no_nearer() -> None:
    """A new user: the texts say nothing, so that popularity alone decides, wherever the items stand."""
    catalog = Catalog(Item(str(number), "x") for number in range(1000))
    counts = {str(number): float(number) for number in range(1000)}
    popular = Fixed("popularity", counts | {"5": 901.5}, 0.0)  # at rank 99: far from the best twenty
    asked = resolve(RankRequest(), catalog)
    alone = Prefilter(None, PrefilterOptions(keep=20), catalog.items, [popular]).select(asked)
    beside = Prefilter(None, PrefilterOptions(keep=20), catalog.items, [Fixed("text", {}, None), popular]).select(asked)
    assert [item.id for item in beside.candidates] == [item.id for item in alone.candidates]
    nothing = Prefilter(None, PrefilterOptions(keep=20), catalog.items, [Fixed("text", {}, None)]).select(asked)
    assert "found no history or query to compare with" in nothing.notes[0]
