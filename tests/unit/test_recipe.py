"""What a ranking is made with, as digests: the contents of files count, their places do not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from llmrank import Catalog, Item
from llmrank.errors import ConfigError
from llmrank.scale.recipe import content_digests, make_recipe, without_files

CATALOG = Catalog([Item("1", "One")])


def config(folder: Path) -> dict[str, Any]:
    """A ranker with a model's file, a learned retriever's folder, lists, and vectors from elsewhere."""
    (folder / "all").mkdir(parents=True)
    for name in ("crowd.npz", "all/learned.json", "all/pmi.npz", "lists.jsonl", "vectors.npy", "items.jsonl"):
        (folder / name).write_text(name)
    vectors = {"kind": "precomputed", "vectors": str(folder / "vectors.npy"), "keys": str(folder / "items.jsonl")}
    return {
        "backend": {"kind": "local"},
        "retrievers": {
            "crowd": {"kind": "item-knn", "path": str(folder / "crowd.npz")},
            "all": {"kind": "learned", "path": str(folder / "all")},
            "saved": {"kind": "lists", "path": str(folder / "lists.jsonl"), "rrf_k": 10},
            "text": {"kind": "embedding", "embedder": dict(vectors)},
        },
        "prefilter": {"by": ["embedding"], "embedder": dict(vectors)},
    }


def digest(sections: dict[str, Any]) -> str | None:
    """That of a configuration."""
    return make_recipe(sections, CATALOG).digests["config"]


def test_moving_the_files_changes_no_digest(tmp_path: Path) -> None:
    """A run's folder may be moved, or be mounted elsewhere on another machine: its shards go on."""
    before = config(tmp_path / "here")
    told = digest(before)
    after = config(tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert digest(after) == told
    with pytest.raises(ConfigError, match=r"retrievers\.crowd\.path: cannot be read"):
        digest(before)


@pytest.mark.parametrize("name", ["crowd.npz", "all/learned.json", "all/pmi.npz", "lists.jsonl", "vectors.npy", "items.jsonl"])
def test_a_file_that_changed_changes_the_digest(name: str, tmp_path: Path) -> None:
    """Whatever a retriever was trained to, lists or vectors of somebody else's: with other contents, rankings are others."""
    sections = config(tmp_path / "data")
    before = digest(sections)
    (tmp_path / "data" / name).write_text("other")
    assert digest(sections) != before


def test_all_files_are_named_by_their_keys(tmp_path: Path) -> None:
    """So that a difference can be told; the sections without them keep all else, and the configuration is not touched."""
    sections = config(tmp_path / "data")
    assert set(content_digests(sections)["files"]) == {
        "retrievers.crowd.path",
        "retrievers.all.path",
        "retrievers.saved.path",
        "retrievers.text.embedder.vectors",
        "retrievers.text.embedder.keys",
        "prefilter.embedder.vectors",
        "prefilter.embedder.keys",
    }
    bare = without_files(sections)
    assert bare["retrievers"]["saved"] == {"kind": "lists", "rrf_k": 10}
    assert str(tmp_path) not in str(bare)
    assert sections["retrievers"]["crowd"]["path"] == str(tmp_path / "data" / "crowd.npz")


def test_a_baselines_model_counts_too(tmp_path: Path) -> None:
    """A baseline names its model at the top; where no file is named there is nothing to tell."""
    (tmp_path / "model.npz").write_text("model")
    assert set(content_digests({"baseline": "ease", "path": str(tmp_path / "model.npz")})["files"]) == {"path"}
    assert content_digests({"backend": {"kind": "local"}, "retrievers": {"crowd": {"kind": "ease"}}}) == {}
