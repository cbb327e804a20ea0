"""Whom a learned retriever asks for vectors: the server that its user names, never one that the folder names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmrank import Catalog, Item, Ranker
from llmrank.config import build_embedder
from llmrank.errors import ConfigError
from llmrank.evaluation.fitting.learn import LearnOptions, embedder_of, learn, parts_of
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import RunOptions, evaluate
from llmrank.evaluation.running.baselines import build_baseline
from llmrank.protocols import Retriever
from llmrank.retrieval.learned import FILE
from llmrank.retriever_kinds import build_retriever
from tests.unit.collaborative_data import asked, of_histories
from tests.unit.embedding_server import Server

KEY = "LLMRANK_TEST_EMBEDDING_KEY"
CATALOG = Catalog(Item(f"{group}{number}", f"{group} {number}") for group in ("noir", "space") for number in range(6))
ITEMS = CATALOG.items
HISTORIES = {f"u{user}": [f"{('noir', 'space')[user % 2]}{(user + place) % 6}" for place in range(4)] for user in range(60)}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """That of who trained, and that of who uses the folder."""
    theirs, mine = Server(), Server()
    yield theirs, mine
    theirs.close()
    mine.close()


def at(server: Server, **more: Any) -> dict[str, Any]:
    """The section of an embedder that asks a server."""
    quick = {"max_attempts": 1, "deadline_s": 5.0, "store": None}
    return {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": KEY, **quick, **more}


def sections(embedder: dict[str, Any] | None) -> dict[str, Any]:
    """Two parts, one of which embeds texts."""
    text = {"kind": "embedding", "last": 3} | ({} if embedder is None else {"embedder": embedder})
    return {"crowd": {"kind": "item-knn"}, "text": text}


def train(out: Path, embedder: dict[str, Any] | None) -> Path:
    """Trains a folder."""
    learn(
        of_histories(HISTORIES),
        CATALOG,
        out,
        parts=parts_of(sections(embedder)),
        options=LearnOptions(users=60, negatives=5, rounds=5),
        embedding=lambda name, section: build_retriever(name, section, ITEMS, embedder=build_embedder),
    )
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, servers: tuple[Server, Server]) -> Path:
    """One that was trained with a server's vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY, "the trainer's key")
        out = train(tmp_path_factory.mktemp("learned") / "model", at(servers[0]))
    assert servers[0].requests
    return out


@pytest.fixture(autouse=True)
def nothing_asked(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test begins with servers that were not asked, a key of its own, and a cache folder of its own."""
    monkeypatch.setenv(KEY, "my own key")
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    for server in servers:
        server.requests.clear()
        server.keys.clear()


def built(folder: Path, **more: Any) -> Retriever:
    """The retriever of a folder, by the way a configuration takes."""
    return build_retriever("all", {"kind": "learned", "path": str(folder), **more}, ITEMS, embedder=build_embedder)


def score(retriever: Retriever) -> list[float]:
    """Of a user of one group."""
    return [float(value) for value in retriever.score(asked(["noir0", "noir1"], ITEMS), ITEMS)]


def rewritten(folder: Path, out: Path, **text: Any) -> Path:
    """The same folder with other keys in the section of the part that embeds."""
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    document["parts"]["text"] |= text
    out.mkdir()
    for path in folder.glob("*.npz"):
        (out / path.name).write_bytes(path.read_bytes())
    (out / FILE).write_text(json.dumps(document), encoding="utf-8")
    return out


def test_the_folder_tells_vectors_and_no_places(folder: Path, servers: tuple[Server, Server]) -> None:
    """Model and fields are in it; the server's address, the key's name and the store are not."""
    text = (folder / FILE).read_text(encoding="utf-8")
    assert json.loads(text)["parts"]["text"] == {"kind": "embedding", "last": 3, "embedder": {"kind": "openai", "model": "m"}}
    for place in (servers[0].url, KEY, "store", "deadline_s"):
        assert place not in text


def test_the_users_own_server_is_asked(folder: Path, servers: tuple[Server, Server]) -> None:
    """With the user's own key, and nobody else."""
    theirs, mine = servers
    assert len(set(score(built(folder, embedder=at(mine))))) > 1
    assert set(mine.keys) == {"Bearer my own key"}
    assert not theirs.requests


def test_a_strangers_folder_asks_no_server(folder: Path, servers: tuple[Server, Server], tmp_path: Path) -> None:
    """It names a server, a variable and a store, as folders of older versions do: none of them is looked at."""
    theirs, mine = servers
    strange = rewritten(folder, tmp_path / "strange", embedder=at(theirs, store=str(tmp_path / "their-store")))
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embedder: is missing: ") as caught:
        built(strange)
    assert theirs.url not in str(caught.value)
    assert len(set(score(built(strange, embedder=at(mine))))) > 1
    assert mine.requests
    assert not theirs.requests
    assert not (tmp_path / "their-store").exists()


def test_a_strangers_folder_reads_no_vectors(folder: Path, tmp_path: Path) -> None:
    """A path to a file of vectors is not opened: the message is that the user names none, whatever lies there."""
    embedder = {"kind": "precomputed", "vectors": str(tmp_path / "absent.npz")}
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embedder: is missing: .*absent\.npz.*a file of vectors"):
        built(rewritten(folder, tmp_path / "strange", embedder=embedder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "n"}, r"^retrievers\.all\.embedder\.model: is not what the folder was made with \(got 'n'\)"),
        ({"dimensions": 4}, r"^retrievers\.all\.embedder\.dimensions: is not what the folder was made with \(got 4\)"),
        ({"timeout": 4}, r"^retrievers\.all\.embedder\.timeout: unknown key; did you mean 'timeout_s'"),
        ({"timeout_s": -1.0}, r"^retrievers\.all\.embedder\.timeout_s: must be positive"),
    ],
)
def test_an_embedder_that_does_not_fit_is_refused(
    folder: Path, servers: tuple[Server, Server], change: dict[str, Any], message: str
) -> None:
    """Under the key that the user wrote, before anything is asked."""
    with pytest.raises(ConfigError, match=message):
        built(folder, embedder=at(servers[1], **change))
    assert not servers[1].requests


def test_a_mistake_of_the_folder_is_the_parts_own(folder: Path, servers: tuple[Server, Server], tmp_path: Path) -> None:
    """It is named under the part, not under what the user wrote."""
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.text\.decay: must be a number above 0"):
        built(rewritten(folder, tmp_path / "odd", decay=0), embedder=at(servers[1]))
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.text\.embedder: must be a mapping"):
        built(rewritten(folder, tmp_path / "odder", embedder=3), embedder=at(servers[1]))


def test_a_folder_with_static_vectors_needs_no_embedder(tmp_path: Path) -> None:
    """One that an older version wrote neither: it named none, or one with a store, which is not used."""
    pytest.importorskip("wordllama", reason="the default embedder is in the extra `local`")
    own = train(tmp_path / "model", None)
    expected = score(built(own))
    older = {"kind": "wordllama", "store": str(tmp_path / "their-store")}
    assert score(built(rewritten(own, tmp_path / "older", embedder=older))) == expected
    assert score(built(rewritten(own, tmp_path / "oldest", embedder=None))) == expected
    assert not (tmp_path / "their-store").exists()
    assert score(built(own, embedder={"kind": "wordllama", "store": str(tmp_path / "mine")})) == expected
    assert (tmp_path / "mine").exists()


def test_an_embedder_that_no_part_uses_is_refused(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """Who names a server expects that it is asked."""
    pytest.importorskip("wordllama", reason="the default embedder is in the extra `local`")
    own = train(tmp_path / "model", None)
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embedder\.kind: is not what the folder was made with"):
        built(own, embedder=at(servers[1]))
    document = json.loads((own / FILE).read_text(encoding="utf-8"))
    document["parts"]["text"] = document["parts"]["crowd"]
    (own / FILE).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embedder: no part of the folder embeds anything"):
        built(own, embedder=at(servers[1]))


def test_a_ranker_takes_the_embedder_beside_the_path(folder: Path, servers: tuple[Server, Server]) -> None:
    """From its configuration; where nothing is asked, its section is checked all the same."""
    config: dict[str, Any] = {
        "backend": {"kind": "openai", "model": "m", "base_url": servers[1].url, "api_key_env": KEY},
        "retrievers": {"all": {"kind": "learned", "path": str(folder), "embedder": at(servers[1])}},
        "fusion": {"llm": 1.0, "all": 1.0},
    }
    with Ranker.from_config(config, catalog=CATALOG):
        pass
    config["retrievers"]["all"]["embedder"] = "openai"
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embedder: must be a mapping"):
        Ranker.from_config(config, catalog=CATALOG)
    config["retrievers"]["all"]["embeder"] = config["retrievers"]["all"].pop("embedder")
    with pytest.raises(ConfigError, match=r"^retrievers\.all\.embeder: unknown key; did you mean 'embedder'"):
        Ranker.from_config(config, catalog=CATALOG)


def test_a_baseline_takes_it_too(folder: Path, servers: tuple[Server, Server]) -> None:
    """`{baseline: learned}` with a path of one's own."""
    section = {"baseline": "learned", "path": str(folder), "embedder": at(servers[1])}
    baseline = build_baseline(section, catalog=CATALOG, popularity=None, seed=0)
    baseline.close()
    with pytest.raises(ConfigError, match=r"^baseline\.embedder: is missing: "):
        build_baseline({"baseline": "learned", "path": str(folder)}, catalog=CATALOG, popularity=None, seed=0)


def test_a_run_that_trains_asks_the_suites_own_server(servers: tuple[Server, Server], tmp_path: Path) -> None:
    """What it trained tells no server; the parts of the suite do, as a baseline and as a retriever."""
    theirs, mine = servers
    items = ({"id": item.id, "title": item.title} for item in ITEMS)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    rows = [f"{user},{item},{place}" for user, ids in HISTORIES.items() for place, item in enumerate(ids)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]), encoding="utf-8")
    learned = {"parts": sections(at(mine)), "users": 60, "negatives": 5, "rounds": 5}
    asked: dict[str, Any] = {
        "items": str(tmp_path / "items.jsonl"),
        "interactions": str(tmp_path / "log.csv"),
        "protocol": {"split": "leave-last-out", "candidates": {"source": "sampled", "n": 5}},
        "rankers": {
            "alone": {"baseline": "learned", **learned},
            "with-others": {"baseline": "fusion", "retrievers": {"all": {"kind": "learned", **learned}}},
        },
        "metrics": ["ndcg@3"],
        "resamples": 200,
    }
    done = evaluate(asked, tmp_path / "run", RunOptions(report=False, limit=4))
    assert done.failures == 0
    assert mine.requests
    assert not theirs.requests
    (model,) = RunFolder(tmp_path / "run").models_path.iterdir()
    assert mine.url not in (model / FILE).read_text(encoding="utf-8")
    assert evaluate(asked, tmp_path / "run", RunOptions(report=False)).failures == 0


def test_parts_share_one_server(servers: tuple[Server, Server]) -> None:
    """Who uses the folder names one embedder: two are refused before anything is trained, also of one model."""
    theirs, mine = servers
    two: dict[str, Any] = {"a": {"kind": "embedding", "embedder": at(theirs)}, "b": {"kind": "embedding", "embedder": at(mine)}}
    with pytest.raises(ConfigError, match=r"^parts\.b\.embedder: is another embedder than that of a "):
        parts_of(two)
    two["b"]["embedder"] = at(theirs)
    two["c"] = {"kind": "embedding", "embedder": {"kind": "wordllama", "dimension": 64}}
    assert embedder_of(parts_of(two)) == at(theirs)
    assert embedder_of(parts_of({"c": two["c"]})) == {"kind": "wordllama", "dimension": 64}
    assert embedder_of(parts_of(None)) is None
    with pytest.raises(ConfigError, match=r"^parts\.a\.embedder\.kind: unknown kind \(got 'opnai'\)"):
        parts_of({"a": {"kind": "embedding", "embedder": {"kind": "opnai"}}})
