"""`llmrank embed`: the vectors and the index lie where a Ranker of the same configuration looks for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from llmrank.cli import main
from llmrank.config import build_ranker
from llmrank.retrieval import graph as graph_module
from llmrank.retrieval.wordllama import WordLlamaEmbedder

TITLES = ["toy story", "toy story two", "alien", "heat", "toy story", *(f"space film number {number}" for number in range(40))]
YEARS = [1995 + number % 3 for number in range(len(TITLES))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an item file and a ranker's configuration, where the commands run."""
    pytest.importorskip("wordllama", reason="the default embedder is in the extra `local`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    rows = [
        {"id": str(number), "title": title, "year": year}
        for number, (title, year) in enumerate(zip(TITLES, YEARS, strict=True))
    ]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_config({})
    return tmp_path


def write_config(prefilter: dict[str, object], **others: object) -> None:
    """Writes ranker.yaml."""
    config = {
        "backend": {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
        "prefilter": prefilter,
        "catalog": {"path": "items.jsonl"},
        **others,
    }
    Path("ranker.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `llmrank embed`."""
    monkeypatch.setattr("sys.argv", ["llmrank", "embed", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are embedded from here on."""
    texts: list[str] = []
    embed = WordLlamaEmbedder.embed

    def counted(self: WordLlamaEmbedder, asked: Sequence[str]) -> np.ndarray:
        texts.extend(asked)
        return embed(self, asked)

    monkeypatch.setattr(WordLlamaEmbedder, "embed", counted)
    return texts


def test_each_text_is_embedded_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, embedded: list[str], folder: Path
) -> None:
    """It says how many texts there were already and where the vectors lie; a second run embeds nothing."""
    status, out, err = run(capsys, monkeypatch, "--items", "items.jsonl")
    assert status == 0
    assert out.startswith("45 items, 44 different texts: 0 were there, 44 embedded; vectors in ")
    (store,) = (folder / "cache" / "embeddings").iterdir()
    assert out.strip().endswith(str(store))
    assert "embedding the catalogue" in err
    assert sorted(embedded) == sorted(set(TITLES))
    embedded.clear()
    _, out, _ = run(capsys, monkeypatch, "--items", "items.jsonl")
    assert "44 were there, 0 embedded" in out
    assert embedded == []


@pytest.mark.parametrize(
    ("prefilter", "others", "arguments"),
    [
        ({}, {}, []),
        ({"fields": ["title", "year"]}, {}, ["--fields", "title, year"]),
        ({"embedder": {"kind": "wordllama", "dimension": 64}}, {}, ["--embedder", "{kind: wordllama, dimension: 64}"]),
        ({"embedder": {"store": "mine"}, "index": {"kind": "approximate"}}, {}, None),
        ({"embedder": {"kind": "wordllama"}, "index": {"kind": "approximate", "connectivity": 8}}, {}, None),
        ({"index": {"kind": "approximate"}}, {}, ["--index", "approximate", "--embedder", "wordllama"]),
        ({}, {"prompt": {"fields": ["title", "year"]}}, None),
    ],
)
def test_a_ranker_of_the_same_keys_finds_all_of_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    embedded: list[str],
    prefilter: dict[str, object],
    others: dict[str, object],
    arguments: list[str] | None,
) -> None:
    """By options or by the same file: after it a Ranker embeds no item and builds no index."""
    write_config(prefilter, **others)
    given = ["--config", "ranker.yaml"] if arguments is None else ["--items", "items.jsonl", *arguments]
    status, out, err = run(capsys, monkeypatch, *given)
    assert status == 0
    approximate = "index" in prefilter
    assert ("approximate index in " in out) == approximate
    assert ("preparing the approximate index" in err) == approximate
    embedded.clear()
    monkeypatch.setattr(graph_module, "_built", _must_not)
    with build_ranker("ranker.yaml") as ranker:
        assert ranker.prefilter is not None
        ranker.prefilter.prepare()
    assert embedded == []


def _must_not(*arguments: object) -> None:
    raise AssertionError("the index is built again")


def test_options_come_before_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """What is said on the command line takes the place of the configuration's key; its other keys stay."""
    write_config({"fields": ["title"], "keep": 5, "embedder": {"store": "mine"}, "index": {"kind": "approximate"}})
    status, out, _ = run(capsys, monkeypatch, "-c", "ranker.yaml", "--fields", "title,year", "--index", "exact")
    assert status == 0
    assert "45 items, 45 different texts" in out
    assert "index" not in out
    assert (folder / "mine").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"--items: are needed"),
        (["--items", "items.jsonl", "--fields", "titel"], r"prefilter\.fields: .*did you mean 'title'"),
        (["--items", "items.jsonl", "--embedder", "wordlama"], r"prefilter\.embedder\.kind: .*did you mean 'wordllama'"),
        (["--items", "items.jsonl", "--index", "{kind: [}"], r"--index: not YAML"),
        (["--items", "items.jsonl", "--index", "[exact]"], r"--index: must be a kind or a mapping"),
        (["--items", "items.jsonl", "--embedder", "{kind: wordllama, store: null}"], r"prefilter\.embedder: keeps no vectors"),
        (["--items", "nothing.jsonl"], r"nothing\.jsonl"),
        (["--config", "crowd.yaml"], r"prefilter\.by: does not name the embeddings"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Status 2 and one line that names what is wrong."""
    crowd = {"prefilter": {"by": ["crowd"]}, "catalog": {"path": "items.jsonl"}}
    Path("crowd.yaml").write_text(yaml.safe_dump(crowd), encoding="utf-8")
    status, out, err = run(capsys, monkeypatch, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    import re

    assert re.search(message, err)


def test_precomputed_vectors_are_indexed_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """There is nothing to embed, which is said, unless an index is asked for."""
    random = np.random.default_rng(0)
    np.savez("v.npz", vectors=random.standard_normal((45, 8)), ids=np.array([str(number) for number in range(45)]))
    given = ["--items", "items.jsonl", "--embedder", "{kind: precomputed, vectors: v.npz}"]
    status, _, err = run(capsys, monkeypatch, *given)
    assert status == 2
    assert "vectors that are precomputed may be indexed" in err
    status, out, _ = run(capsys, monkeypatch, *given, "--index", "approximate")
    assert status == 0
    assert out == f"approximate index in {folder / 'cache' / 'indexes'}\n"
    assert len(list((folder / "cache" / "indexes").glob("*.usearch"))) == 1
