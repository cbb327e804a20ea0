"""Vectors on disk: kept, found, shared between processes, whole after any crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import SetupError
from llmrank.retrieval import keys as keys_module
from llmrank.retrieval import store as store_module
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.keys import KeyIndex, Keys
from llmrank.retrieval.store import VectorStore, digests
from llmrank.retrieval.vectors import Vectors
from tests.unit.bag_embedder import BagEmbedder

BAG = BagEmbedder(dimension=8)
TEXTS = ["toy story", "alien", "heat", "", "naïve 日本 🎬", "lone \ud800 surrogate"]


def embed(texts: list[str]) -> Vectors:
    """Vectors of a text's length and row, so that each can be told."""
    return np.array([[len(text), row, 1, 0, 0, 0, 0, 0] for row, text in enumerate(texts)], dtype=np.float32)


def rows_of(store: VectorStore, texts: list[str]) -> list[int]:
    """The rows that a store has for texts."""
    rows: list[int] = store.lookup(digests(texts))[0].tolist()
    return rows


def test_what_is_stored_is_found_by_another_process(tmp_path: Path) -> None:
    """Rows written here come back, exactly, from a store opened anew; unknown texts have row -1."""
    store = VectorStore(tmp_path, "m")
    store.append(digests(TEXTS), embed(TEXTS))
    rows, vectors = VectorStore(tmp_path, "m").lookup(digests([*reversed(TEXTS), "unknown"]))
    assert rows.tolist() == [5, 4, 3, 2, 1, 0, -1]
    assert np.array_equal(vectors, embed(TEXTS))
    assert not vectors.flags.writeable


def test_models_are_kept_apart(tmp_path: Path) -> None:
    """Two models never share a folder, even if their names differ only in what a file name cannot hold."""
    paths = {VectorStore(tmp_path, model).path for model in ("a/b", "a:b", "a b", "../../a b", "é", "")}
    assert len(paths) == 6
    assert all(path.parent == tmp_path for path in paths)


def test_a_reader_sees_rows_that_another_store_adds(tmp_path: Path) -> None:
    """A store that is open finds rows appended by others; a matrix handed out before stays as it was."""
    reader, writer = VectorStore(tmp_path, "m"), VectorStore(tmp_path, "m")
    assert len(reader) == 0
    assert reader.dimension is None
    writer.append(digests(["a"]), embed(["a"]))
    _, before = reader.lookup(digests(["a"]))
    writer.append(digests(["bb"]), embed(["bb"]))
    rows, after = reader.lookup(digests(["bb"]))
    assert rows.tolist() == [1]
    assert (len(before), len(after), len(reader)) == (1, 2, 2)
    assert after[1, 0] == 2


def test_a_text_is_stored_once(tmp_path: Path) -> None:
    """Texts that are there already, or twice in one batch, take no second row."""
    store = VectorStore(tmp_path, "m")
    store.append(digests(["a", "b", "a"]), embed(["a", "b", "a"]))
    store.append(digests(["c", "b"]), embed(["c", "b"]))
    store.append(digests(["c", "b"]), embed(["c", "b"]))
    assert len(store) == 3
    assert rows_of(store, ["a", "b", "c"]) == [0, 1, 2]


@given(st.integers(0, 3 * 32), st.integers(0, 3 * 16))
def test_whatever_moment_a_writer_dies_at_the_rest_is_whole(vector_bytes: int, key_bytes: int) -> None:
    """Both files may break off anywhere: rows that are whole in both stay, the torn tail goes, and writing goes on."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = VectorStore(folder, "m")
        texts = ["a", "bb", "ccc"]
        store.append(digests(texts), embed(texts))
        for name, size in (("vectors.f32", vector_bytes), ("keys.bin", key_bytes)):
            with (store.path / name).open("r+b") as file:
                file.truncate(size)
        left = min(vector_bytes // 32, key_bytes // 16)
        again = VectorStore(folder, "m")
        assert len(again) == left
        assert rows_of(again, texts) == [*range(left), *[-1] * (3 - left)]
        again.append(digests(["dddd", *texts]), embed(["dddd", *texts]))
        rows, vectors = VectorStore(folder, "m").lookup(digests([*texts, "dddd"]))
        assert vectors[rows, 0].tolist() == [1, 2, 3, 4]


def test_an_old_key_never_meets_a_new_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors lost while their keys stayed, then a writer that dies between the two files: the lost texts are unknown."""
    store = VectorStore(tmp_path, "m")
    store.append(digests(["a", "bb", "ccc"]), embed(["a", "bb", "ccc"]))
    with (store.path / "vectors.f32").open("r+b") as file:
        file.truncate(32)

    def dying(path: Path, data: Any, *, durable: bool) -> None:
        if path.name == "keys.bin":
            raise KeyboardInterrupt
        add(path, data, durable=durable)

    add = store_module._add
    monkeypatch.setattr(store_module, "_add", dying)
    with pytest.raises(KeyboardInterrupt):
        VectorStore(tmp_path, "m").append(digests(["x", "yy", "zzz"]), embed(["x", "yy", "zzz"]))
    assert rows_of(VectorStore(tmp_path, "m"), ["a", "bb", "ccc", "x"]) == [0, -1, -1, -1]


def test_a_folder_deleted_under_an_open_store_is_noticed(tmp_path: Path) -> None:
    """A store begun anew by others never has its rows mixed with those remembered from the old one."""
    store = VectorStore(tmp_path, "m")
    store.append(digests(["old", "a"]), embed(["old", "a"]))
    held = store.lookup(digests(["old"]))[1]
    shutil.rmtree(store.path)
    assert rows_of(store, ["old"]) == [-1]
    VectorStore(tmp_path, "m").append(digests(["a", "b", "new"]), embed(["a", "b", "new"]))
    assert rows_of(store, ["a", "new", "old"]) == [0, 2, -1]
    assert held[0, 0] == 3


@pytest.mark.parametrize(
    "meta",
    ["not json", '{"format": 99, "dimension": 8}', '{"format": 1, "dimension": "8"}', "[]", '{"format": 1, "dimension": 0}'],
)
def test_a_folder_that_is_no_store_is_named(tmp_path: Path, meta: str) -> None:
    """One line that names the file and the remedy."""
    path = VectorStore(tmp_path, "m").path
    path.mkdir()
    (path / "meta.json").write_text(meta)
    with pytest.raises(SetupError, match=r"meta\.json .*delete the folder"):
        VectorStore(tmp_path, "m")


def test_another_dimension_is_refused(tmp_path: Path) -> None:
    """Rows of another length would shift all others."""
    store = VectorStore(tmp_path, "m")
    store.append(digests(["a"]), np.ones((1, 8), dtype=np.float32))
    with pytest.raises(SetupError, match="8 numbers and the model now gives 9"):
        store.append(digests(["b"]), np.ones((1, 9), dtype=np.float32))
    with pytest.raises(ValueError, match="1 keys"):
        store.append(digests(["b"]), np.ones((2, 8), dtype=np.float32))


def test_a_cache_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """The folder's path and the system's reason, as a SetupError."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r"cannot read the cache folder .*Not a directory"):
        VectorStore(tmp_path / "file", "m")
    store = VectorStore(tmp_path / "folder", "m")
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(SetupError, match=r"cannot write to the cache folder .*folder"):
        store.append(digests(["a"]), embed(["a"]))


def test_a_lock_that_is_never_freed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer waits for another only so long; a reader does not wait at all."""
    from filelock import FileLock

    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.05)
    store = VectorStore(tmp_path, "m")
    store.append(digests(["a"]), embed(["a"]))
    with FileLock(store.path / "lock"):
        with pytest.raises(SetupError, match="another process has been writing"):
            store.append(digests(["b"]), embed(["b"]))
        assert rows_of(store, ["a"]) == [0]


def test_processes_and_threads_write_at_once(tmp_path: Path) -> None:
    """Writers that overlap lose nothing, tear nothing, and store shared texts once."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]);"
        "from bag_embedder import BagEmbedder; from llmrank.retrieval.cached import CachedEmbedder;"
        "from llmrank.retrieval.store import VectorStore;"
        "cached = CachedEmbedder(BagEmbedder(8), VectorStore(sys.argv[1], 'bag of words'), chunk=7);"
        "cached.embed([f'text {n}' for n in range(200)])"
    )
    here = str(Path(__file__).parent)
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), here]) for _ in range(2)]
    store = VectorStore(tmp_path, "bag of words")
    cached = CachedEmbedder(BagEmbedder(8), store, chunk=5)
    texts = [f"text {number}" for number in range(250)]
    threads = [threading.Thread(target=cached.embed, args=(texts[start:],)) for start in (0, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    assert len(store) == 250
    assert np.array_equal(cached.embed(texts), BagEmbedder(8).embed(texts))


def test_only_missing_texts_are_embedded(tmp_path: Path) -> None:
    """Each different text is embedded once, in this run and in the next, and the vectors are the embedder's own."""
    bag = BagEmbedder()
    texts = ["alien", "heat", "alien", "toy story"]
    first = CachedEmbedder(bag, VectorStore(tmp_path, bag.model)).embed(texts)
    assert bag.asked == ["alien", "heat", "toy story"]
    again = BagEmbedder()
    cached = CachedEmbedder(again, VectorStore(tmp_path, again.model))
    assert np.array_equal(cached.embed([*texts, "up"])[:4], first)
    assert again.asked == ["up"]
    assert cached.dimension == 256
    assert cached.model == bag.model
    assert cached.embed([]).shape == (0, 256)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was embedded before a failure is not embedded again, and the progress shown begins there."""

    class Breaking(BagEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            if len(self.asked) >= 6:
                raise KeyboardInterrupt
            return super().embed(texts)

    texts = [f"text {number}" for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(Breaking(), VectorStore(tmp_path, BAG.model), chunk=3).table(texts)
    bag = BagEmbedder()
    seen: list[tuple[int, int]] = []
    CachedEmbedder(bag, VectorStore(tmp_path, bag.model), chunk=3).table(texts, lambda done, total: seen.append((done, total)))
    assert bag.asked == texts[6:]
    assert seen == [(9, 10), (10, 10)]


@pytest.mark.parametrize(("foreign", "mapped"), [(0, True), (500, False)])
def test_a_table_is_memory_mapped_unless_mostly_foreign(tmp_path: Path, foreign: int, mapped: bool) -> None:
    """A catalogue is read where it lies on disk; among many rows of others it is copied. Either way the vectors are right."""
    bag = BagEmbedder()
    cached = CachedEmbedder(bag, VectorStore(tmp_path, bag.model))
    cached.embed(["before"])
    cached.embed(["x y"])
    cached.embed([f"foreign {number}" for number in range(foreign)])
    texts = ["x y", "a", "b", "a"]
    table, rows = cached.table(texts)
    assert rows is not None
    assert np.array_equal(table[rows], bag.embed(texts))
    assert rows[1] == rows[3]
    assert (not table.flags.owndata) == mapped


def test_a_store_of_another_model_is_refused(tmp_path: Path) -> None:
    """Vectors of two models must never mix."""
    with pytest.raises(ValueError, match="cannot hold"):
        CachedEmbedder(BagEmbedder(), VectorStore(tmp_path, "another"))


KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30)


@given(st.lists(KEYS, max_size=6), KEYS, st.integers(0, 10))
def test_the_key_index_is_a_dictionary(batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]], tail: int) -> None:
    """It finds what a dict would find, also where many keys share a half, sorted or still waiting to be."""
    index, reference, count = KeyIndex(), dict[tuple[int, int], int](), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_module, "TAIL", tail)
        for batch in batches:
            # A store never adds a key that it has; within that, any order.
            new = [key for key in dict.fromkeys(batch) if key not in reference]
            for key in new:
                reference[key] = count
                count += 1
            index.extend(as_keys(new))
            assert len(index) == count
            assert index.find(as_keys(asked)).tolist() == [reference.get(key, -1) for key in asked]


def as_keys(pairs: list[tuple[int, int]]) -> Keys:
    """Pairs as an array of keys."""
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


def test_the_meta_file_says_what_lies_there(tmp_path: Path) -> None:
    """A person who finds the folder can tell what it is."""
    store = VectorStore(tmp_path, "text-embedding-3-small at https://api.openai.com/v1")
    store.append(digests(["a"]), embed(["a"]))
    assert json.loads((store.path / "meta.json").read_text()) == {"format": 1, "model": store.model, "dimension": 8}
    assert sorted(path.name for path in store.path.iterdir() if path.name != "lock") == ["keys.bin", "meta.json", "vectors.f32"]
