"""The section `retrievers` of a configuration goes in, a Retriever for each name comes out.

::

    retrievers:
      crowd:   {kind: item-knn, path: crowd.npz}                    # what `llmrank train item-knn` wrote
      similar: {kind: embedding, fields: [title, genres], embedder: {kind: wordllama}}
      saved:   {kind: lists, path: lists.jsonl}                     # the users' own lists
      all:     {kind: learned, path: learned, embedder: {kind: openai, model: NAME}}  # embedder: if its parts ask a server
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrank.embedder_kinds import asks_others, embedder_for, other_vectors, vectors_of
from llmrank.errors import ConfigError
from llmrank.fusion import PARTS
from llmrank.fusion_kinds import RESERVED as FUSION_KEYS
from llmrank.protocols import Retriever
from llmrank.retrieval.unasked import UnaskedRetriever
from llmrank.sections import kind_of, make, mapping_of, take
from llmrank.types import Item

LEARNING = ("popularity", "item-knn", "transitions", "ease", "user-knn", "als", "bpr", "pmi", "learned")
"""The kinds that learn from interactions. In an evaluation they need no `path`: the run trains them."""

KINDS = ("embedding", "lists", *LEARNING)

RESERVED = (*PARTS, "embedding", *FUSION_KEYS, "up_to", "history_length")
"""Names that mean something else in `fusion` and `prefilter.by`."""

BuildEmbedder = Callable[[Mapping[str, Any]], Any]


def build_retrievers(
    section: Mapping[str, Any], catalog_items: Sequence[Item] | None, *, embedder: BuildEmbedder, unasked: bool = False
) -> dict[str, Retriever]:
    """Builds all retrievers of a configuration, by name.

    Args:
        section: The section `retrievers`.
        catalog_items: The catalogue's items, or None if every request brings its own.
        embedder: Builds an embedder from its section.
        unasked: True builds what stands for them where nothing is asked.

    Raises:
        ConfigError: a name is taken, a kind unknown (the nearest is named), a key or value wrong, or a file no model.
        SetupError: a package that one needs is missing.
    """
    built: dict[str, Retriever] = {}
    for name, inner in section.items():
        where = f"retrievers.{name}"
        if not isinstance(name, str) or not name or name in RESERVED:
            raise ConfigError("is taken for something else", field=where, value=name, fix="choose another name")
        built[name] = build_retriever(name, mapping_of(inner, where), catalog_items, embedder=embedder, unasked=unasked)
    return built


def build_retriever(
    name: str,
    section: Mapping[str, Any],
    catalog_items: Sequence[Item] | None,
    *,
    embedder: BuildEmbedder,
    unasked: bool = False,
    where: str | None = None,
) -> Retriever:
    """Builds one retriever; `build_retrievers` says more.

    Args:
        name: What its part in a fusion is called.
        section: Its `kind`, and options beside it.
        catalog_items: The catalogue's items.
        embedder: Builds an embedder from its section.
        unasked: True builds what stands for it where nothing is asked.
        where: The section's name, for messages.
    """
    where = where or f"retrievers.{name}"
    options = dict(section)
    kind = kind_of(options, where, KINDS)
    if kind == "embedding":
        return _embedding(name, options, catalog_items, embedder, where, unasked=unasked)
    if kind == "lists":
        from llmrank.retrieval.lists import ListsOptions, ListsRetriever

        path = make(_File, take(options, "path"), where, also=("kind",)).path
        own = make(ListsOptions, options, where, also=("kind", "path"))
        return UnaskedRetriever(name) if unasked else ListsRetriever.load(path, own, name=name)
    if "path" not in options:
        raise ConfigError(
            "is missing: this kind learns from interactions first",
            field=f"{where}.path",
            fix=f"run `llmrank train {kind} --interactions FILE --out MODEL` and name MODEL",
        )
    if kind == "learned":
        return _learned(name, options, catalog_items, embedder, where, unasked=unasked)
    path = make(_File, options, where, also=("kind",)).path
    if unasked:
        return UnaskedRetriever(name)
    from llmrank.retrieval.collaborative import load_model

    model = load_model(path, name=name)
    if model.kind != kind:
        raise ConfigError(f"is a model of kind {model.kind!r}", field=f"{where}.kind", value=kind, fix=f"write {model.kind}")
    return model


def _learned(
    name: str,
    options: dict[str, Any],
    catalog_items: Sequence[Item] | None,
    embedder: BuildEmbedder,
    where: str,
    *,
    unasked: bool,
) -> Retriever:
    """A learned retriever. Its folder may be a stranger's: what embeds the texts is only what the configuration names."""
    from llmrank.retrieval.learned import load_learned

    named = take(options, "embedder").get("embedder")
    path = make(_File, options, where, also=("kind", "embedder")).path
    place = f"{where}.embedder"
    own = None if named is None else mapping_of(named, place)
    if unasked:
        return UnaskedRetriever(name)
    unlike: list[Mapping[str, Any]] = []
    alike = 0

    def build(part: str, inner: Mapping[str, Any]) -> Retriever:
        nonlocal alike
        if inner.get("kind") != "embedding":
            return build_retriever(part, inner, catalog_items, embedder=embedder, where=f"{where}.{part}")
        made_with = mapping_of(inner.get("embedder"), f"{where}.{part}.embedder")
        fits = own is not None and vectors_of(own, place) == vectors_of(made_with, place)
        # Beside a server for some parts, others may go by static vectors.
        section = embedder_for(made_with, own if fits or asks_others(made_with, place) else None, place)
        inner = {**inner, "embedder": section}
        if not fits:
            unlike.append(made_with)
            return build_retriever(part, inner, catalog_items, embedder=embedder, where=f"{where}.{part}")
        alike += 1
        try:
            return build_retriever(part, inner, catalog_items, embedder=embedder, where=where)
        except ConfigError as error:
            if error.field.startswith(place):
                raise
            field = error.field.replace(where, f"{where}.{part}", 1)  # a mistake of the folder's own
            raise ConfigError(error.message, field=field, value=error.value, fix=error.fix) from error

    learned = load_learned(path, build, name=name)
    if own is not None and not alike:
        learned.close()
        if unlike:
            raise other_vectors(unlike[0], own, place)
        raise ConfigError("no part of the folder embeds anything", field=place, value=own, fix="leave it out")
    return learned


def _embedding(
    name: str,
    options: dict[str, Any],
    catalog_items: Sequence[Item] | None,
    embedder: BuildEmbedder,
    where: str,
    *,
    unasked: bool,
) -> Retriever:
    from llmrank.retrieval.embedding import EmbeddingOptions, EmbeddingRetriever

    inner = mapping_of(options.pop("embedder", None), f"{where}.embedder")
    try:
        checked = make(EmbeddingOptions, options, where, also=("kind", "embedder"))
        if unasked:
            return UnaskedRetriever(name)
        return EmbeddingRetriever(embedder(inner), checked, catalog_items, name=name)
    except ConfigError as error:
        section, dot, key = error.field.partition(".")
        if section != "prefilter":
            raise
        raise ConfigError(error.message, field=f"{where}{dot}{key}", value=error.value, fix=error.fix) from error


@dataclass(frozen=True, slots=True)
class _File:
    path: str
