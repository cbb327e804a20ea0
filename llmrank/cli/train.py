"""`llmrank train`: a kind of collaborative model and interactions go in, the file of a trained model comes out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrank.cli.values import pairs_of_option
from llmrank.errors import ConfigError
from llmrank.progress import progress

KINDS = "popularity, item-knn, transitions, ease, user-knn, als, bpr, pmi or learned"
"""In words, for the help: the kinds themselves lie in a module that takes time to import."""


def train(
    kind: Annotated[str, typer.Argument(help=f"What is trained: {KINDS} (all together).")],
    interactions: Annotated[
        Path, typer.Option("--interactions", "-i", help="Who chose what: JSONL, CSV, Parquet, or a MovieLens folder.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's file; its name ends in .npz. learned: a new folder.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One of the kind's options; may be given again.")
    ] = None,
    items: Annotated[Path | None, typer.Option("--items", help="learned: the item file.")] = None,
    parts: Annotated[Path | None, typer.Option("--parts", help="learned: a YAML file of what is combined, by name.")] = None,
) -> None:
    """Train a model that scores candidates by what others chose, and save it."""
    if kind == "learned":
        _learned(interactions, items, out, parts, _settings(set_))
        return
    for name, value in (("--items", items), ("--parts", parts)):
        if value is not None:
            raise ConfigError("is for `learned` alone", field=name, value=str(value), fix="leave it out")
    from llmrank.interactions import Interactions
    from llmrank.retrieval.collaborative import kind_of_model
    from llmrank.retrieval.collaborative import train as trained
    from llmrank.sections import make

    options = make(kind_of_model(kind).options_type, _settings(set_), kind)
    if out.suffix != ".npz":
        raise ConfigError("must end in .npz", field="--out", value=str(out), fix=f"write {out.with_suffix('.npz').name}")
    table = Interactions.load(interactions)
    begun = time.perf_counter()
    with progress(f"training {kind}", "items") as report:
        model = trained(kind, table, options, report)
    seconds = time.perf_counter() - begun
    model.save(out)
    learned, size = model.learned, out.stat().st_size
    for note in learned.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(
        f"{kind}: {learned.users:,} users, {learned.items:,} items, {learned.interactions:,} interactions; "
        f"{seconds:.1f} s; {size / 1e6:,.1f} MB: {out}"
    )


def _learned(interactions: Path, items: Path | None, out: Path, parts: Path | None, settings: dict[str, Any]) -> None:
    from llmrank.config import build_embedder
    from llmrank.evaluation.data.datasets import load_items
    from llmrank.evaluation.fitting.learn import LearnOptions, learn, parts_of
    from llmrank.interactions import Interactions
    from llmrank.retriever_kinds import build_retriever
    from llmrank.sections import load_yaml, make

    if items is None:
        raise ConfigError("is missing", field="--items", fix="name the item file, whose texts are read and negatives drawn")
    options = make(LearnOptions, settings, "learned")
    sections = parts_of(None if parts is None else load_yaml(parts, "--parts"))
    catalog = load_items(items)
    trained = learn(
        Interactions.load(interactions),
        catalog,
        out,
        parts=sections,
        options=options,
        embedding=lambda name, section: build_retriever(name, section, catalog.items, embedder=build_embedder),
        report=lambda text: typer.echo(text, err=True),
    )
    alone = ", ".join(f"{name} {value:.3f}" for name, value in trained["parts_apart"].items())
    gain = trained[f"ndcg@{options.k}_apart"]
    typer.echo(
        f"learned: NDCG@{options.k} {gain:.3f} for {trained['users_apart']:,} users apart ({alone}); "
        f"{trained['seconds']:.1f} s: {out}"
    )


def _settings(texts: list[str] | None) -> dict[str, Any]:
    """The keys of --set with what YAML reads their values as."""
    import yaml

    from llmrank import strict_yaml

    values: dict[str, Any] = {}
    for key, text in pairs_of_option(texts, "--set", example="neighbours=500").items():
        try:
            values[key] = strict_yaml.load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            said = f"the value is not YAML ({error})"
            raise ConfigError(said, field="--set", value=f"{key}={text}", fix="mend it") from error
    return values
