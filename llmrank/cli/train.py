"""`llmrank train`: a kind of collaborative model and interactions go in, the file of a trained model comes out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from llmrank.errors import ConfigError
from llmrank.progress import progress

KINDS = "popularity, item-knn, transitions, ease, user-knn, als, bpr or pmi"
"""In words, for the help: the kinds themselves lie in a module that takes time to import."""


def train(
    kind: Annotated[str, typer.Argument(help=f"What is trained: {KINDS}.")],
    interactions: Annotated[
        Path, typer.Option("--interactions", "-i", help="Who chose what: JSONL, CSV, Parquet, or a MovieLens folder.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's file; its name ends in .npz.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One of the kind's options; may be given again.")
    ] = None,
) -> None:
    """Train a model that scores candidates by what others chose, and save it."""
    from llmrank.interactions import Interactions
    from llmrank.retrieval.collaborative import kind_of_model
    from llmrank.retrieval.collaborative import train as trained
    from llmrank.sections import make

    options = make(kind_of_model(kind).options_type, dict(map(_setting, set_ or [])), kind)
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


def _setting(text: str) -> tuple[str, Any]:
    """A key and what YAML reads its value as."""
    import yaml

    from llmrank import strict_yaml

    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError("is no key and value", field="--set", value=text, fix="write KEY=VALUE: neighbours=500")
    try:
        return key, strict_yaml.load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value is not YAML ({error})", field="--set", value=text, fix="mend it") from error
