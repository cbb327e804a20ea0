"""The approximate index: what it finds, that its scores are exact, and how its graph is kept on disk."""

from __future__ import annotations

import builtins
import importlib.metadata
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from llmrank.config import build_ranker
from llmrank.errors import BackendError, ConfigError, SetupError
from llmrank.retrieval import approximate as approximate_module
from llmrank.retrieval import graph as graph_module
from llmrank.retrieval.approximate import ApproximateIndex
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.embedding import EmbeddingRetriever
from llmrank.retrieval.graph import ApproximateOptions
from llmrank.retrieval.index import ExactIndex, Hits, VectorIndex
from llmrank.retrieval.precomputed import PrecomputedEmbedder, PrecomputedOptions
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.store import VectorStore
from llmrank.retrieval.vectors import CHUNK, Rows, Vectors, normalise
from llmrank.types import Event, Item, ResolvedRequest
from tests.unit.bag_embedder import BagEmbedder

# With as many neighbours as there are vectors the graph is whole, and with as many in view all of it is looked at.
WHOLE = ApproximateOptions(connectivity=64, expansion_add=64, expansion_search=64)


def table(count: int, dimension: int = 16, seed: int = 0) -> Vectors:
    """Random unit vectors."""
    return normalise(np.random.default_rng(seed).standard_normal((count, dimension)))


@pytest.fixture
def always_by_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small tables are searched by their graph."""
    monkeypatch.setattr(approximate_module, "WORTH_ALL", 0)


def same(found: Hits, expected: Hits) -> None:
    """Equal scores, and equal positions but for those whose scores differ by rounding alone."""
    assert found.scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-6)
    for position, other, score in zip(found.positions.tolist(), expected.positions.tolist(), found.scores, strict=True):
        near = np.abs(expected.scores - score) < 1e-6
        assert position == other or near.sum() > 1 or score == pytest.approx(expected.scores[-1], abs=1e-6)


@given(st.data())
def test_with_all_in_view_it_finds_what_the_exact_index_finds(data: st.DataObject) -> None:
    """Any small table, shared and unused rows, vectors of zeros, positions left out, any k: the exact index's answer."""
    values = st.sampled_from([-1.0, 0.0, 0.0, 0.5, 1.0])
    count = data.draw(st.integers(1, 40))
    vectors = normalise(np.array(data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=count, max_size=count))))
    rows = data.draw(st.none() | st.lists(st.integers(0, count - 1), min_size=1, max_size=60).map(np.array))
    exact = ExactIndex(vectors, rows)
    query = np.array(data.draw(st.lists(values, min_size=3, max_size=3)), dtype=np.float32)
    exclude = data.draw(st.lists(st.integers(0, len(exact) - 1), max_size=10))
    k = data.draw(st.integers(0, 70))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate_module, "WORTH_ALL", 0)
        found = ApproximateIndex(exact, WHOLE).search(query, k, exclude)
    expected = exact.search(query, k, exclude)
    assert set(found.positions.tolist()).isdisjoint(exclude)
    assert len(set(found.positions.tolist())) == len(found.positions)
    same(found, expected)
    for score in set(found.scores.tolist()):
        assert (np.diff(found.positions[found.scores == score]) > 0).all()


def test_it_is_an_index_as_the_exact_one_is() -> None:
    """The same methods, and for all but `search` the exact index's very values."""
    rows = np.array([4, 2, 4, 0])
    exact = ExactIndex(table(6), rows)
    index = ApproximateIndex(exact, WHOLE)
    assert isinstance(index, VectorIndex)
    assert isinstance(exact, VectorIndex)
    query = table(1, seed=5)[0]
    assert (len(index), index.dimension) == (4, 16)
    assert np.array_equal(index.scores(query), exact.scores(query))
    assert np.array_equal(index.scores(query, [3, 0]), exact.scores(query, [3, 0]))
    assert np.array_equal(index.vectors([1, 3]), exact.vectors([1, 3]))


def test_most_of_a_larger_table_is_found_by_default() -> None:
    """3,000 vectors in groups, as texts are: at least 95 of the 100 best on average, with the scores of the exact index."""
    random = np.random.default_rng(3)
    centres = random.standard_normal((60, 32))
    vectors = normalise(centres[random.integers(0, 60, 3000)] + 0.5 * random.standard_normal((3000, 32)))
    exact = ExactIndex(vectors)
    index = ApproximateIndex(exact)
    shares = []
    for query in vectors[:20]:
        found, expected = index.search(query, 100), exact.search(query, 100)
        assert found.scores.tolist() == pytest.approx(exact.scores(query)[found.positions].tolist(), abs=1e-6)
        assert (np.diff(found.scores) <= 0).all()
        shares.append(len(set(found.positions.tolist()) & set(expected.positions.tolist())) / 100)
    assert np.mean(shares) >= 0.95


@pytest.mark.usefixtures("always_by_the_graph")
def test_what_no_search_reaches_is_added_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors without a way to them, here because they are taken out again, are found by themselves all the same."""
    from usearch.index import Index

    add = Index.add
    again: list[list[int]] = []

    def lossy(self: Any, keys: Any, vectors: Any, **named: Any) -> Any:
        added = add(self, keys, vectors, **named)
        if again:
            again.append(keys.tolist())
        else:
            again.append([])
            self.remove(np.array([3, 70, 299], dtype=np.uint64))
        return added

    monkeypatch.setattr(Index, "add", lossy)
    vectors = table(300)
    index = ApproximateIndex(ExactIndex(vectors))
    assert {3, 70, 299} <= set(again[1])  # and what the threads of this machine have lost by themselves
    assert [index.search(vector, 1).positions[0] for vector in vectors] == list(range(300))


@pytest.mark.usefixtures("always_by_the_graph")
def test_many_threads_lose_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that add at once may leave some vectors that no search reaches; each is found by itself all the same."""
    from usearch.index import Index

    add = Index.add
    monkeypatch.setattr(Index, "add", lambda self, *given, **named: add(self, *given, **{"threads": 16, **named}))
    vectors = table(3000)
    index = ApproximateIndex(ExactIndex(vectors), ApproximateOptions(expansion_search=64))
    assert [index.search(vector, 1).positions[0] for vector in vectors] == list(range(3000))


@pytest.mark.usefixtures("always_by_the_graph")
def test_products_of_one_title_are_one_vector_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that share a row come back together, tied to the last bit and in order; the graph holds the row once."""
    built: list[int] = []
    build = graph_module._built

    def counted(vectors: Vectors, used: Rows | None, count: int, *others: Any) -> Any:
        built.append(count)
        return build(vectors, used, count, *others)

    monkeypatch.setattr(graph_module, "_built", counted)
    vectors = table(50)
    rows = np.array([7, 3, 7, 9, 7, 11] + [20] * 200)
    hits = ApproximateIndex(ExactIndex(vectors, rows), WHOLE).search(vectors[7], 4)
    assert built == [5]
    assert hits.positions[:3].tolist() == [0, 2, 4]
    assert len(set(hits.scores[:3].tolist())) == 1


def test_who_wants_much_of_the_catalogue_is_answered_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fourth of all and more, counting what is left out: by the exact index, and the graph is not searched."""
    exact = ExactIndex(table(100))
    index = ApproximateIndex(exact, WHOLE)
    asked: list[int] = []
    search = graph_module.Graph.search

    def counted(self: Any, unit: Vectors, count: int) -> Rows:
        asked.append(count)
        return search(self, unit, count)

    monkeypatch.setattr(graph_module.Graph, "search", counted)
    query = table(1, seed=9)[0]
    same(index.search(query, 25), exact.search(query, 25))
    same(index.search(query, 20, exclude=range(5)), exact.search(query, 20, exclude=range(5)))
    assert asked == []
    index.search(query, 20, exclude=range(4))
    assert asked == [64]


def test_where_the_graph_finds_too_few_the_exact_index_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph may have parts that nothing leads to: nobody gets fewer than there are."""
    monkeypatch.setattr(graph_module.Graph, "search", lambda self, unit, count: np.array([3, 1], dtype=np.int64))
    exact = ExactIndex(table(100))
    query = table(1, seed=9)[0]
    same(ApproximateIndex(exact, WHOLE).search(query, 5), exact.search(query, 5))


def test_nothing_in_nothing_out() -> None:
    """An empty catalogue has an index, too; so has one whose texts have no known word, which are vectors of zeros."""
    empty = ApproximateIndex(ExactIndex(np.empty((0, 4), dtype=np.float32)))
    assert empty.search(np.ones(4, dtype=np.float32), 3).positions.shape == (0,)
    zeros = ApproximateIndex(ExactIndex(np.zeros((40, 4), dtype=np.float32)))
    assert zeros.search(np.ones(4, dtype=np.float32), 3).positions.tolist() == [0, 1, 2]


def files(folder: Path) -> dict[str, float]:
    """What lies in a folder, and when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "graph.lock"}


def test_a_graph_is_kept_and_found_again(tmp_path: Path) -> None:
    """The second time nothing is built or written; with other search options, too; the answers are the same."""
    exact = ExactIndex(table(200))
    seen: list[tuple[int, int]] = []
    index = ApproximateIndex(exact, folder=tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    before = files(tmp_path / "new")
    assert seen == [(200, 200)]
    assert {Path(name).suffix for name in before} == {".usearch", ".json"}
    again = ApproximateIndex(exact, folder=tmp_path / "new", progress=lambda done, total: seen.append((done, total)))
    ApproximateIndex(exact, ApproximateOptions(expansion_search=10), folder=tmp_path / "new")
    assert len(seen) == 1
    assert files(tmp_path / "new") == before
    query = table(1, seed=4)[0]
    assert again.search(query, 20).positions.tolist() == index.search(query, 20).positions.tolist()


def test_a_graph_of_other_vectors_is_not_used(tmp_path: Path) -> None:
    """More vectors, one other number, or other options that shape a graph: another graph, and of all only the last few stay."""
    vectors = table(100)
    other = vectors.copy()
    other[50] = -other[50]
    options = ApproximateOptions(connectivity=8)
    indexes = [(vectors[:99], None), (vectors, None), (other, None), (vectors, options)]
    for number, (each, how) in enumerate(indexes, start=1):
        ApproximateIndex(ExactIndex(each), how, folder=tmp_path)
        assert len(list(tmp_path.glob("*.usearch"))) == number
    first = {path.name for path in tmp_path.glob("*.usearch")}
    for count in (80, 81):
        ApproximateIndex(ExactIndex(vectors[:count]), folder=tmp_path)
    left = {path.name for path in tmp_path.glob("*.usearch")}
    assert len(left) == graph_module.KEPT
    assert len(left & first) == 2
    assert {path.stem for path in tmp_path.glob("*.json")} == {name.removesuffix(".usearch") for name in left}


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _other_file(path: Path) -> None:
    path.write_bytes(b"x" * 10_000)


def _no_description(path: Path) -> None:
    path.with_suffix(".json").unlink()


def _broken_description(path: Path) -> None:
    path.with_suffix(".json").write_text('{"format": 1,', encoding="utf-8")


@pytest.mark.parametrize("damage", [_cut, _one_byte, _other_file, _no_description, _broken_description])
def test_a_damaged_graph_is_built_anew(tmp_path: Path, damage: Any) -> None:
    """Whatever happened to the files, nothing is read from them that was not written there, and the graph is whole again."""
    exact = ExactIndex(table(200))
    ApproximateIndex(exact, folder=tmp_path)
    (path,) = tmp_path.glob("*.usearch")
    damage(path)
    seen: list[int] = []
    index = ApproximateIndex(exact, folder=tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == [200]
    query = table(1, seed=4)[0]
    same(index.search(query, 10), exact.search(query, 10))
    seen.clear()
    ApproximateIndex(exact, folder=tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == []


def test_a_graph_that_cannot_be_mapped_is_built_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system maps no more memory the answers are the same."""
    from usearch.index import Index

    def refuse(self: Any, path: str) -> None:
        raise RuntimeError("Can't map the file")

    monkeypatch.setattr(Index, "view", refuse)
    exact = ExactIndex(table(200))
    query = table(1, seed=4)[0]
    same(ApproximateIndex(exact, folder=tmp_path).search(query, 10), exact.search(query, 10))


def test_a_graph_of_another_version_of_usearch_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one version wrote another might take for something else: it builds its own."""
    ApproximateIndex(ExactIndex(table(50)), folder=tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    ApproximateIndex(ExactIndex(table(50)), folder=tmp_path)
    assert len(list(tmp_path.glob("*.usearch"))) == 2


def test_building_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    """Progress is told chunk by chunk, and what it raises ends the building: no file stays that could be taken for a graph."""
    seen: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        seen.append((done, total))
        raise BackendError("the prefilter is closed")

    with pytest.raises(BackendError, match="closed"):
        ApproximateIndex(ExactIndex(table(CHUNK + 1, 4)), folder=tmp_path, progress=report)
    assert seen == [(CHUNK, CHUNK + 1)]
    assert files(tmp_path) == {}


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    """A half-saved graph of whatever vectors is taken for no graph, and is removed when one is built."""
    (tmp_path / ".graph-0123.usearch.part").write_bytes(b"x" * 100)
    ApproximateIndex(ExactIndex(table(50)), folder=tmp_path)
    assert {Path(name).suffix for name in files(tmp_path)} == {".usearch", ".json"}


def test_saving_that_fails_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made, or a graph that cannot be written: one error that names the folder."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SetupError, match=r"cannot keep the index in .*file"):
        ApproximateIndex(ExactIndex(table(50)), folder=tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(SetupError, match="No space left"):
        ApproximateIndex(ExactIndex(table(50)), folder=tmp_path / "graphs")
    assert files(tmp_path / "graphs") == {}


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_one_process_builds_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the lock nothing is built; who waits is told, and then takes the other's graph."""
    monkeypatch.setattr(graph_module, "WAIT_SECONDS", 0.05)
    exact = ExactIndex(table(100))
    waiting = threading.Event()
    seen: list[int] = []

    def report(done: int, total: int) -> None:
        seen.append(done)
        waiting.set()

    with FileLock(tmp_path / "graph.lock", thread_local=False):
        thread = threading.Thread(target=ApproximateIndex, args=(exact,), kwargs={"folder": tmp_path, "progress": report})
        thread.start()
        assert waiting.wait(10)
        # What the process that holds the lock would do.
        vectors, used = exact.table
        path = tmp_path / f"graph-{graph_module._key(vectors, used, ApproximateOptions())}.usearch"
        graph_module._save(graph_module._built(vectors, used, 100, ApproximateOptions(), None), path)
    thread.join(10)
    assert not thread.is_alive()
    assert set(seen) == {0}


def test_threads_search_at_once() -> None:
    """Several threads that search one graph get what one of them alone gets."""
    exact = ExactIndex(table(2000))
    index = ApproximateIndex(exact, ApproximateOptions(expansion_search=100))
    queries = table(40, seed=8)
    alone = [index.search(query, 10).positions.tolist() for query in queries]
    together: dict[int, list[int]] = {}

    def run(start: int) -> None:
        for number in range(start, 40, 4):
            together[number] = index.search(queries[number], 10).positions.tolist()

    threads = [threading.Thread(target=run, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(40)] == alone


@pytest.mark.parametrize(
    ("key", "value", "span"),
    [
        ("connectivity", 1, "from 2 to 512"),
        ("connectivity", 513, "from 2 to 512"),
        ("connectivity", True, "from 2 to 512"),
        ("expansion_add", 0, "of at least 1"),
        ("expansion_search", 2.5, "of at least 1"),
    ],
)
def test_options_are_checked(key: str, value: Any, span: str) -> None:
    """A number that no graph can be built with is refused, by the name that it has in a configuration."""
    with pytest.raises(ConfigError, match=rf"prefilter\.index\.{key}: must be a whole number {span}"):
        ApproximateOptions(**{key: value})


def without_usearch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where usearch is not installed."""
    real = builtins.__import__

    def refuse(name: str, *others: Any, **more: Any) -> Any:
        if name.startswith("usearch"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def config(index: object, **others: object) -> dict[str, Any]:
    """A configuration with a prefilter whose vectors are counts of words in a file."""
    return {
        "backend": {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
        "prefilter": {"index": index, "embedder": {"kind": "precomputed", "vectors": "v.npz"}, **others},
    }


@pytest.fixture
def vectors_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v.npz in the folder where the test runs, and a cache folder there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    np.savez("v.npz", vectors=table(100), ids=np.array([str(number) for number in range(100)]))


@pytest.mark.usefixtures("vectors_file")
def test_a_missing_package_is_named_when_the_ranker_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after a catalogue was embedded; a forecast needs no package, and the exact index none either."""
    without_usearch(monkeypatch)
    with pytest.raises(SetupError, match=r"needs usearch.*pip install 'llmrank\[ann\]'"):
        build_ranker(config({"kind": "approximate"}))
    build_ranker(config({"kind": "approximate"}), unasked=True).close()
    build_ranker(config({"kind": "exact"})).close()


@pytest.mark.usefixtures("vectors_file")
@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"kind": "aproximate"}, r"prefilter\.index\.kind: unknown kind.*did you mean 'approximate'"),
        ({"kind": "exact", "connectivity": 3}, r"prefilter\.index\.connectivity: unknown key"),
        ({"kind": "approximate", "conectivity": 3}, r"prefilter\.index\.conectivity: unknown key.*'connectivity'"),
        ({"kind": "approximate", "connectivity": "3"}, r"prefilter\.index\.connectivity"),
        ("approximate", r"prefilter\.index: must be a mapping"),
    ],
)
def test_a_mistyped_section_is_named(index: object, message: str) -> None:
    """A kind, key or value that is none gives one error that says where, in a forecast, too."""
    for unasked in (False, True):
        with pytest.raises(ConfigError, match=message):
            build_ranker(config(index), unasked=unasked)


ITEMS = tuple(Item(str(number), f"word{number % 17} word{number % 23} thing") for number in range(300))


def asked(history: Sequence[int], candidates: Sequence[Item] = ITEMS) -> ResolvedRequest:
    """A request for the whole catalogue, or for a list."""
    return ResolvedRequest(
        tuple(Event(ITEMS[at]) for at in history), candidates if candidates is ITEMS else tuple(candidates), None
    )


def test_a_prefilter_finds_by_it_what_it_finds_exactly(tmp_path: Path) -> None:
    """Whole catalogue: the same items with the same scores, what was seen left out; the graph lies beside the vectors."""
    store = VectorStore(tmp_path, "bag of words")
    approximate = Prefilter(CachedEmbedder(BagEmbedder(), store), PrefilterOptions(), ITEMS, index=ApproximateOptions())
    exact = Prefilter(BagEmbedder(), PrefilterOptions(), ITEMS)
    found, expected = approximate.select(asked([3, 40])), exact.select(asked([3, 40]))
    assert [item.id for item in found.candidates] == [item.id for item in expected.candidates]
    assert found.scores == pytest.approx(expected.scores, abs=1e-6)
    assert (found.seen, found.dropped) == (("3", "40"), expected.dropped)
    assert len(list(store.path.glob("graph-*.usearch"))) == 1


def test_a_list_is_scored_without_an_index(tmp_path: Path) -> None:
    """Also a list that is most of the catalogue: nothing is built for it."""
    store = VectorStore(tmp_path, "bag of words")
    prefilter = Prefilter(CachedEmbedder(BagEmbedder(), store), PrefilterOptions(), ITEMS, index=ApproximateOptions())
    exact = Prefilter(BagEmbedder(), PrefilterOptions(), ITEMS)
    for count in (5, 290):
        found, expected = (each.select(asked([3], ITEMS[:count])) for each in (prefilter, exact))
        assert [item.id for item in found.candidates] == [item.id for item in expected.candidates]
    assert list(store.path.glob("graph-*")) == []


def test_lists_are_scored_while_an_index_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building takes minutes for a million: a request for a list does not wait for it. Closing ends it."""
    building, go_on = threading.Event(), threading.Event()
    add = graph_module._built

    def slow(*args: Any) -> Any:
        building.set()
        assert go_on.wait(10)
        return add(*args)

    monkeypatch.setattr(graph_module, "_built", slow)
    retriever = EmbeddingRetriever(BagEmbedder(), None, ITEMS, index=ApproximateOptions())
    raised: list[BackendError] = []

    def prepare() -> None:
        try:
            retriever.prepare()
        except BackendError as error:
            raised.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    assert building.wait(10)
    assert retriever.score(asked([3]), ITEMS[:5]).shape == (5,)
    retriever.close()
    go_on.set()
    thread.join(10)
    assert ["closed" in str(error) for error in raised] == [True]


@pytest.mark.usefixtures("vectors_file")
def test_an_index_of_precomputed_vectors_lies_in_the_cache_folder(tmp_path: Path) -> None:
    """Beside the file itself nothing is written: its folder may be somebody else's."""
    before = sorted(path.name for path in tmp_path.iterdir())
    embedder = PrecomputedEmbedder(PrecomputedOptions("v.npz"))
    retriever = EmbeddingRetriever(embedder, None, ITEMS[:100], index=ApproximateOptions())
    retriever.prepare()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "cache"])
    assert len(list((tmp_path / "cache" / "indexes").glob("*.usearch"))) == 1
