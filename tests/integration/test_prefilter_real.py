"""The prefilter with real embedders on real titles: WordLlama, llama.cpp's /v1/embeddings, the games data if present."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llmrank.assets import weights_path
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.openai import OpenAIEmbedder, OpenAIEmbedderOptions
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.store import VectorStore
from llmrank.retrieval.wordllama import WordLlamaEmbedder, WordLlamaOptions
from llmrank.types import Event, Item, ResolvedRequest

ROOT = Path(__file__).parents[2]
GAMES = ROOT.parent / "shared" / "data" / "games"

pytestmark = pytest.mark.local

FILMS = tuple(
    Item(str(number), title)
    for number, title in enumerate(
        [
            "Star Wars: The Empire Strikes Back",
            "Return of the Jedi",
            "The Shining: a horror story in a haunted hotel",
            "Pride and Prejudice: love and marriage in England",
            "Toy Story",
            "Nightmare on Elm Street: horror and murder",
            "Star Trek: First Contact in space",
        ]
    )
)


@pytest.fixture(scope="module")
def wordllama() -> WordLlamaEmbedder:
    """The default embedder; nothing is downloaded."""
    return WordLlamaEmbedder()


def kept(prefilter: Prefilter, query: str) -> list[str]:
    """The ids that a sentence finds."""
    return [item.id for item in prefilter.select(ResolvedRequest((), FILMS, query)).candidates]


def test_a_sentence_finds_what_it_means(wordllama: WordLlamaEmbedder) -> None:
    """The three space films come before all others; so do the two of horror."""
    prefilter = Prefilter(wordllama, PrefilterOptions(keep=3), FILMS)
    assert {"2", "5"} <= set(kept(prefilter, "scary horror films"))
    assert kept(prefilter, "a romance about love and marriage")[0] == "3"
    history = ResolvedRequest((Event(FILMS[0]),), FILMS)
    assert prefilter.select(history).candidates[0].id in {"1", "6"}


def test_vectors_are_those_of_the_package_and_of_unit_length(wordllama: WordLlamaEmbedder) -> None:
    """Our sums without padding agree with the package's own `embed`, and a text's vector does not depend on its neighbours."""
    import wordllama as package

    reference = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    titles = [film.title for film in FILMS] + ["Amélie", "千と千尋の神隠し", "x"]
    vectors = wordllama.embed(titles)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(reference.embed(titles, norm=True), abs=1e-6)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(np.concatenate([wordllama.embed([title]) for title in titles]), vectors)


def test_empty_and_huge_texts(wordllama: WordLlamaEmbedder) -> None:
    """No token, no direction: zeros. A text of 200,000 words among short ones takes no memory of theirs."""
    vectors = wordllama.embed(["", "  \n", "Heat", "Heat " * 200_000, ""])
    assert not vectors[[0, 1, 4]].any()
    assert vectors[2] @ vectors[3] == pytest.approx(1.0, abs=1e-2)
    assert wordllama.embed([]).shape == (0, 256)


@pytest.mark.parametrize("dimension", [64, 128])
def test_shorter_tables_have_a_name_of_their_own(wordllama: WordLlamaEmbedder, dimension: int) -> None:
    """Their vectors must not mix with the long ones on disk."""
    short = WordLlamaEmbedder(WordLlamaOptions(dimension))
    assert short.embed(["Heat"]).shape == (1, dimension)
    assert short.dimension == dimension
    assert short.model != wordllama.model


def test_logging_stays_the_applications() -> None:
    """Importing wordllama sets up the root logger to print INFO; through us it does not."""
    code = (
        "import logging; from llmrank.retrieval.wordllama import WordLlamaEmbedder; WordLlamaEmbedder();"
        "print(logging.getLogger().handlers, logging.getLogger().level)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", str(logging.WARNING)]
    assert run.stderr == ""


@pytest.fixture(scope="module")
def games() -> tuple[dict[str, Item], list[ResolvedRequest], list[str]]:
    """The games data's items, its first 200 cases as requests, and their targets."""
    if not (GAMES / "dev400.jsonl").exists():
        pytest.skip("the games data is not on this machine")
    rows = map(json.loads, (GAMES / "items.jsonl").read_text(encoding="utf-8").splitlines())
    items = {row["id"]: Item(row["id"], row["title"]) for row in rows}
    cases = [json.loads(line) for line in (GAMES / "dev400.jsonl").read_text(encoding="utf-8").splitlines()[:200]]
    requests = [
        ResolvedRequest(
            tuple(Event(items[item_id]) for item_id in case["history"]), tuple(items[item_id] for item_id in case["candidates"])
        )
        for case in cases
    ]
    return items, requests, [case["relevant"][0] for case in cases]


def test_real_purchases_are_ranked_far_above_chance(
    games: tuple[dict[str, Item], list[ResolvedRequest], list[str]], wordllama: WordLlamaEmbedder
) -> None:
    """NDCG@10 of the first 200 games users (59.8 measured, standard error 2.6, random 22.7) stays above 52."""
    _, requests, targets = games
    prefilter = Prefilter(wordllama, PrefilterOptions(drop_seen=False))
    gained = 0.0
    for request, target in zip(requests, targets, strict=True):
        place = [item.id for item in prefilter.select(request).candidates].index(target)
        gained += float(1 / np.log2(place + 2)) if place < 10 else 0.0
    assert gained / len(requests) > 0.52


def test_a_real_catalogue_is_embedded_once_and_searched_on_disk(
    games: tuple[dict[str, Item], list[ResolvedRequest], list[str]], wordllama: WordLlamaEmbedder, tmp_path: Path
) -> None:
    """16,859 titles, 434 of them double: from disk and from memory the same 20 of all come out, equal titles side by side."""
    items, requests, _ = games
    catalog = tuple(items.values())
    from_disk = Prefilter(
        CachedEmbedder(wordllama, VectorStore(tmp_path, wordllama.model)), PrefilterOptions(), catalog_items=catalog
    )
    in_memory = Prefilter(wordllama, PrefilterOptions(), catalog_items=catalog)
    for request in requests[:5]:
        whole = ResolvedRequest(request.history, catalog)
        one, other = from_disk.select(whole), in_memory.select(whole)
        assert one.candidates == other.candidates
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
        assert len(one.candidates) == 20
        assert one.dropped == len(catalog) - 20 - len(one.seen)
        assert set(one.seen) == {item.id for item in request.history_items}


LLAMA_SERVER = """
import sys
from xllamacpp import CommonParams, Server, llama_pooling_type
params = CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.cpuparams.n_threads = sys.argv[1], 1024, 1, 2
params.embedding, params.pooling_type, params.verbosity = True, llama_pooling_type.LLAMA_POOLING_TYPE_MEAN, -1
server = Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def llama_server() -> Iterator[str]:
    """The address of a real OpenAI-compatible embedding server: llama.cpp with the embedded model's weights, mean pooling."""
    pytest.importorskip("xllamacpp")
    path = weights_path("smollm2-135m-instruct")
    if not path.exists():
        pytest.skip("the embedded model's weights are not there: run `make test`, which fetches them")
    # A process of its own: the threads of its matrix code would spin beside those of other tests.
    quiet = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", LLAMA_SERVER, str(path)],
        env=quiet,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip() + "/v1"
        process.kill()


def test_a_real_embedding_server(llama_server: str, tmp_path: Path) -> None:
    """Through /v1/embeddings, base64 and all: unit vectors in order, cached on disk, and a prefilter that works with them."""
    embedder = OpenAIEmbedder(OpenAIEmbedderOptions("smollm2", llama_server, batch_size=3))
    texts = [film.title for film in FILMS]
    vectors = embedder.embed([*texts, ""])
    assert vectors.shape == (8, embedder.dimension)
    assert embedder.dimension > 100
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 7 + [0.0], abs=1e-5)
    assert vectors[5] @ embedder.embed([texts[5]])[0] > 0.999
    prefilter = Prefilter(CachedEmbedder(embedder, VectorStore(tmp_path, embedder.model)), PrefilterOptions(keep=3), FILMS)
    first = prefilter.select(ResolvedRequest((Event(FILMS[5]),), FILMS))
    assert len(first.candidates) == 3
    assert first.scores[0] > first.scores[2]
    embedder.close()
    assert prefilter.select(ResolvedRequest((Event(FILMS[5]),), FILMS)) == first  # nothing is asked any more
