"""Collaborative models, whatever their kind: what every one of them keeps to, and their files."""

from __future__ import annotations

import builtins
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError, DatasetError, SetupError
from llmrank.interactions import Interactions
from llmrank.protocols import Retriever
from llmrank.retrieval.collaborative import MODEL_KINDS, load_model, train
from llmrank.retrieval.collaborative.items import WORTH_REMEMBERING, ItemIndex
from llmrank.retrieval.collaborative.storage import text_arrays, texts_of
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.types import Item
from tests.unit.collaborative_data import asked, of_histories, options_of, random_interactions, scores, trained

TABLE = random_interactions(60, 24)
KINDS = sorted(MODEL_KINDS)
IDS = st.sampled_from([f"i{number}" for number in range(24)] + ["unknown", "new", ""])

MODELS = {kind: trained(kind, TABLE) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(
    history=st.lists(IDS, max_size=12), candidates=st.lists(IDS, min_size=1, unique=True), user=st.sampled_from(["u3", None])
)
def test_scores_are_finite_and_unknown_items_stand_at_the_floor(
    kind: str, history: list[str], candidates: list[str], user: str | None
) -> None:
    """For any history, known or not; one float32 a candidate; what the model does not know scores the floor exactly."""
    found = scores(MODELS[kind], history, candidates, user)
    assert found.dtype == np.float32
    assert found.shape == (len(candidates),)
    assert np.isfinite(found).all()
    unknown = [at for at, item in enumerate(candidates) if item not in TABLE.items]
    assert (found[unknown] == MODELS[kind].floor).all()


@pytest.mark.parametrize("kind", KINDS)
@given(history=st.lists(IDS, max_size=8), order=st.permutations(range(24)))
def test_the_order_of_candidates_changes_no_score(kind: str, history: list[str], order: list[int]) -> None:
    """A permutation of the candidates permutes the scores."""
    candidates = [f"i{number}" for number in range(24)]
    expected = scores(MODELS[kind], history, candidates)
    assert scores(MODELS[kind], history, [candidates[at] for at in order]) == pytest.approx(expected[order], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_candidate_scores_the_same_in_a_list_and_in_the_whole_catalogue(kind: str) -> None:
    """A catalogue's tuple, asked for twice, gives the scores of lists of one."""
    catalog = tuple(Item(f"i{number}", "") for number in range(WORTH_REMEMBERING + 10))
    request = asked(["i3", "i5", "i14"], catalog, "stranger")
    model = MODELS[kind]
    whole = [model.score(request, catalog) for _ in range(2)]
    one_by_one = [float(model.score(request, [item])[0]) for item in catalog[:30]]
    assert whole[0].tolist() == whole[1].tolist()
    assert whole[0][:30] == pytest.approx(one_by_one, abs=1e-6)
    assert not whole[0][24:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_model(kind: str, tmp_path: Path) -> None:
    """Options, what was learned from, and every score to the last bit; nothing beside the file is left behind."""
    path = tmp_path / "models" / f"{kind}.npz"
    MODELS[kind].save(path)
    loaded = load_model(path, name="crowd")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert (type(loaded), loaded.options, loaded.learned) == (type(MODELS[kind]), MODELS[kind].options, MODELS[kind].learned)
    assert (loaded.name, load_model(path).name) == ("crowd", kind)
    candidates = [*TABLE.items, "new"]
    for history in ([], ["i1"], ["i20", "i2", "i20"], ["new"]):
        for user in (None, "u4"):
            before, after = (scores(model, history, candidates, user) for model in (MODELS[kind], loaded))
            assert before.tolist() == after.tolist()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "popularity"])
def test_the_history_of_the_request_decides_and_not_the_training(kind: str) -> None:
    """Two users whose histories are in different halves get different orders; a stranger gets what a known user would."""
    candidates = [f"i{number}" for number in range(24) if number not in (1, 2, 3, 13, 14, 15)]
    low = scores(MODELS[kind], ["i1", "i2", "i3"], candidates, "stranger")
    high = scores(MODELS[kind], ["i13", "i14", "i15"], candidates, "stranger")
    own = np.array([int(each[1:]) < 12 for each in candidates])
    assert low[own].mean() > low[~own].mean()
    assert high[own].mean() < high[~own].mean()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "popularity"])
@pytest.mark.parametrize("history", [[], ["new", "unknown"]], ids=["none", "unknown"])
def test_where_nothing_is_known_of_the_history_all_stand_at_the_floor(kind: str, history: list[str]) -> None:
    """So that a union of retrievers takes nothing from it, and a fusion learns nothing."""
    assert not scores(MODELS[kind], history, TABLE.items, "u1").any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_a_retriever_and_has_its_kinds_name_until_it_is_given_one(kind: str) -> None:
    """`named` leaves the model itself as it is."""
    model = MODELS[kind]
    assert isinstance(model, Retriever)
    assert (model.name, model.named("crowd").name, model.name) == (kind, "crowd", kind)
    assert train(kind, TABLE, options_of(kind), name="mine").name == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_training_twice_gives_the_same_model(kind: str) -> None:
    """Equal data, options and seeds give equal arrays."""
    again = trained(kind, TABLE).arrays()
    for name, array in MODELS[kind].arrays().items():
        assert array.tolist() == again[name].tolist(), name


@pytest.mark.parametrize("kind", KINDS)
def test_one_user_with_one_item_is_enough(kind: str) -> None:
    """The least that can be learned from gives finite scores."""
    model = trained(kind, of_histories({"u": ["a"]}))
    assert np.isfinite(scores(model, ["a"], ["a", "b"])).all()


def test_what_was_learned_from_is_told() -> None:
    """Numbers of users, items and interactions; other data has another digest, the same has the same."""
    learned = MODELS["item-knn"].learned
    assert (learned.users, learned.items, learned.interactions) == (60, len(TABLE.items), len(TABLE))
    assert trained("popularity", TABLE).learned.digest == learned.digest
    assert trained("popularity", random_interactions(60, 24, seed=1)).learned.digest != learned.digest


def test_the_prefilter_unites_what_a_model_finds() -> None:
    """What scores above the floor is found, and what stands in the history is left out."""
    catalog = tuple(Item(each, "") for each in ("a", "b", "c", "d", "new"))
    model = trained("item-knn", of_histories({"1": ["a", "b"], "2": ["a", "b", "c"], "3": ["d"]}))
    selection = Prefilter(None, PrefilterOptions(keep=4), catalog, [model]).select(asked(["a"], catalog))
    assert [item.id for item in selection.candidates][:2] == ["b", "c"]
    assert selection.seen == ("a",)


def test_progress_is_told_up_to_the_end() -> None:
    """Every kind that takes time says how far it is, and the last word is that all is done."""
    for kind in ("item-knn", "transitions", "ease", "als", "bpr"):
        told: list[tuple[int, int]] = []
        train(kind, TABLE, options_of(kind), progress=lambda done, total, told=told: told.append((done, total)))  # type: ignore[misc]
        assert told, kind
        assert told[-1][0] == told[-1][1], kind


def test_a_mistyped_kind_is_answered_with_the_nearest() -> None:
    """And options of another kind are refused."""
    with pytest.raises(ConfigError, match=r"did you mean 'item-knn'\?"):
        train("item-kn", TABLE)
    with pytest.raises(ConfigError, match=r"give EaseOptions\(...\)"):
        train("ease", TABLE, options_of("item-knn"))


def test_nothing_cannot_be_learned_from() -> None:
    """No interactions: one line that says so."""
    with pytest.raises(DatasetError, match="holds no interactions"):
        train("popularity", Interactions.of([]))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("popularity", {"half_life_days": 0}, "popularity.half_life_days: must be a number above 0"),
        ("item-knn", {"neighbours": 0}, "item-knn.neighbours: must be a whole number of at least 1"),
        ("item-knn", {"decay": 1.5}, "item-knn.decay: must be a number above 0 and at most 1"),
        ("item-knn", {"shrinkage": -1}, "item-knn.shrinkage: must be a number of at least 0"),
        ("item-knn", {"last": True}, "item-knn.last: must be a whole number of at least 1, or null"),
        ("transitions", {"backward": 2}, "transitions.backward: must be a number of at least 0 and at most 1"),
        ("ease", {"l2": 0}, "ease.l2: must be a number above 0"),
        ("ease", {"l2": float("nan")}, "ease.l2: must be a number above 0"),
        ("user-knn", {"neighbours": 2.5}, "user-knn.neighbours: must be a whole number of at least 1"),
        ("als", {"factors": 0}, "als.factors: must be a whole number of at least 1"),
        ("bpr", {"seed": -1}, "bpr.seed: must be a whole number of at least 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    """The key, what it may be, and what it was."""
    with pytest.raises(ConfigError) as caught:
        options_of(kind, **changes)
    assert str(caught.value).startswith(said)
    assert f"(got {next(iter(changes.values()))!r})" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "package"), [("item-knn", "scipy"), ("ease", "scipy"), ("als", "implicit"), ("bpr", "implicit")]
)
def test_a_missing_package_is_named_with_the_remedy(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training says what to install."""
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(SetupError, match=rf"needs {package}.*pip install 'llmrank\[collaborative\]'"):
        trained(kind, TABLE)


def test_a_file_is_used_without_the_packages_that_trained_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring imports neither scipy nor implicit."""
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        assert name.partition(".")[0] not in ("scipy", "implicit"), name
        return real(name, *rest, **named)

    for kind in KINDS:
        MODELS[kind].save(tmp_path / f"{kind}.npz")
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(importlib, "import_module", without)
    for kind in KINDS:
        assert len(scores(load_model(tmp_path / f"{kind}.npz"), ["i1"], ["i2", "i3"])) == 2


def written(path: Path, kind: str = "item-knn", **changes: Any) -> Path:
    """A model's file with some of its arrays changed; None leaves one out."""
    MODELS[kind].save(path)
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def header(**changes: Any) -> np.ndarray:
    """The header of a model's file with some of it changed."""
    said = {"format": "llmrank collaborative model", "version": 1, "kind": "item-knn", "options": {}}
    learned = {"users": 1, "items": 1, "interactions": 1, "digest": "", "notes": []}
    return np.frombuffer(json.dumps({**said, "learned": learned, **changes}).encode(), dtype=np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": None},
        {"header": header(format="something else")},
        {"header": header(version=2)},
        {"header": header(kind="item-kn")},
        {"header": header(options={"neighbourhood": 3})},
        {"header": header(options={"decay": 7})},
        {"header": header(learned=None)},
        {"header": np.frombuffer(b"[1]", dtype=np.uint8)},
        {"header": np.frombuffer(b"{", dtype=np.uint8)},
        {"model_values": None},
        {"model_values": np.ones(3, dtype=np.float32)},
        {"model_values": np.array([object()])},
        {"model_columns": np.full(MODELS["item-knn"].arrays()["columns"].shape, 99, dtype=np.int32)},
        {"model_starts": MODELS["item-knn"].arrays()["starts"][::-1].copy()},
        {"model_values": np.full(MODELS["item-knn"].arrays()["values"].shape, np.nan, dtype=np.float32)},
        {"item_ids_ends": np.arange(3)},
        {"item_ids_ends": np.arange(3) + 0.5},
        {"item_ids_ends": np.array(3)},
        {"header": header(learned={"users": 1, "items": 1, "interactions": 1, "digest": "", "notes": 7})},
    ],
    ids=str,
)
def test_a_file_of_something_else_is_refused_in_one_line(changes: dict[str, Any], tmp_path: Path) -> None:
    """Whatever is wrong in it: the file is named, and what to do; nothing is unpickled."""
    path = written(tmp_path / "model.npz", **changes)
    with pytest.raises(ConfigError) as caught:
        load_model(path)
    assert str(caught.value).startswith("model: ")
    assert "model.npz" in str(caught.value)
    assert "llmrank train" in str(caught.value)


@given(data=st.data())
def test_a_damaged_file_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut anywhere, or bytes replaced: one ConfigError; or finite scores, where nothing was hit that counts."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    MODELS["als"].save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = scores(load_model(path), ["i1"], ["i2"])
    except ConfigError:
        return
    assert np.isfinite(found).all()


def test_a_missing_file_and_a_lone_array_are_refused(tmp_path: Path) -> None:
    """No such file; an ``.npy`` under another name."""
    with pytest.raises(ConfigError, match=r"model: cannot be read .*No such file"):
        load_model(tmp_path / "model.npz")
    with (tmp_path / "lone.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ConfigError, match="not the file of a model"):
        load_model(tmp_path / "lone.npz")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the old file stays as it is, with nothing beside it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot write"):
        MODELS["popularity"].save(tmp_path / "file" / "model.npz")
    path = tmp_path / "model.npz"
    MODELS["popularity"].save(path)
    whole = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match="No space left on device"):
        MODELS["item-knn"].save(path)
    assert path.read_bytes() == whole
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "model.npz"]


@given(st.lists(st.text(st.characters(codec=None), max_size=5)))
def test_ids_are_kept_as_they_are(texts: list[str]) -> None:
    """Also zeros at an end, which NumPy's own texts lose, half surrogates, and nothing at all."""
    assert texts_of("x", text_arrays("x", texts)) == texts


def test_a_catalogue_is_looked_up_once() -> None:
    """The same tuple again costs no look at its items; a list, which may change, is looked at each time."""
    looked_up = 0

    class Counting(ItemIndex):
        def columns_of(self, ids: Any) -> Any:
            nonlocal looked_up
            looked_up += 1
            return super().columns_of(ids)

    index = Counting(["b", "a"])
    catalog = tuple(Item(each, "") for each in ["a", "b", *map(str, range(WORTH_REMEMBERING))])
    others = [tuple(catalog[:count]) for count in (1000, 1001)]
    for _ in range(3):
        assert index.columns(catalog)[:3].tolist() == [1, 0, -1]
    assert looked_up == 1
    assert index.columns(list(catalog)).tolist() == index.columns(catalog).tolist()
    assert looked_up == 2
    for other in others:
        assert len(index.columns(other)) == len(other)
    assert index.columns(catalog)[:3].tolist() == [1, 0, -1]  # it had to make room, and is looked up again
    assert looked_up == 5
