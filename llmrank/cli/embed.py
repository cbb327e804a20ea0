"""`llmrank embed`: an item file goes in; its vectors, and perhaps their index, lie where the prefilter looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.catalog import Catalog
from llmrank.cli.values import section_of_option
from llmrank.config import build_embedding, catalog_of, load_config
from llmrank.errors import ConfigError, RequestError
from llmrank.progress import progress
from llmrank.retrieval.text import item_text
from llmrank.sections import section_of

if TYPE_CHECKING:
    from llmrank.retrieval.embedding import EmbeddingRetriever


def embed(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A ranker's YAML file: its sections prefilter and catalog count.")
    ] = None,
    items: Annotated[Path | None, typer.Option("--items", help="Item file: JSONL, CSV or Parquet with id and title.")] = None,
    fields: Annotated[
        str | None, typer.Option("--fields", help="What of an item is embedded, with commas between: title,year.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option("--embedder", help="prefilter.embedder: a kind, or YAML: '{kind: openai, model: NAME}'.")
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", help="prefilter.index: exact, approximate, or YAML: '{kind: approximate, ...}'.")
    ] = None,
) -> None:
    """Embed a whole catalogue now, so that no request has to wait for it. Goes on where it was when it was interrupted."""
    sections: dict[str, Any] = {} if config is None else load_config(config)
    section = section_of(sections, "prefilter")
    if fields is not None:
        section["fields"] = [field.strip() for field in fields.split(",")]
    for key, given in (("embedder", embedder), ("index", index)):
        if given is not None:
            section[key] = section_of_option(given, f"--{key}")
    catalog = catalog_of(sections, items)
    if catalog is None:
        raise RequestError("are needed", field="--items", fix="name an item file here or under `catalog` of the configuration")
    embedding = build_embedding({**sections, "prefilter": section}, catalog.items)
    try:
        _embed(embedding, catalog)
    finally:
        embedding.close()


def prepare(embedding: EmbeddingRetriever) -> None:
    """Embeds a catalogue, and builds or opens an approximate index of it, each with a progress bar of its own."""
    with progress("embedding the catalogue", "items") as report:
        embedding.prepare_vectors(report)
    if embedding.index_options is not None:
        with progress("preparing the approximate index", "items") as report:
            embedding.prepare(report)


def _embed(embedding: EmbeddingRetriever, catalog: Catalog) -> None:
    from llmrank.retrieval.cached import CachedEmbedder
    from llmrank.retrieval.vectors import folder_of

    folder = folder_of(embedding.embedder)
    cached = embedding.embedder if isinstance(embedding.embedder, CachedEmbedder) else None
    if folder is None or (cached is None and embedding.index_options is None):
        field, fix = (
            "prefilter.embedder",
            "name another kind, or give store a folder; vectors that are precomputed may be indexed",
        )
        raise ConfigError("keeps no vectors of its own", field=field, value=embedding.embedder.model, fix=fix)
    texts = [item_text(item, embedding.options.fields) for item in catalog.items]
    there, total = (0, 0) if cached is None else cached.stored(texts)
    prepare(embedding)
    if cached is not None:
        said = f"{len(texts):,} items, {total:,} different texts: {there:,} were there, {total - there:,} embedded"
        typer.echo(f"{said}; vectors in {folder}")
    if embedding.index_options is not None:
        typer.echo(f"approximate index in {folder}")
