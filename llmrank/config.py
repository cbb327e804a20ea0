"""A YAML file or a dict goes in, a Ranker comes out; a mistyped key or a wrong value gives one error that names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrank.backends.guard import Limits
from llmrank.backends.lending import BackendPool
from llmrank.backends.unasked import UnaskedBackend
from llmrank.catalog import Catalog
from llmrank.embedder_kinds import KINDS as EMBEDDERS
from llmrank.errors import ConfigError, nearest
from llmrank.fusion import PARTS
from llmrank.fusion_kinds import fusion_of
from llmrank.protocols import Backend, Embedder, Retriever
from llmrank.ranker import Ranker
from llmrank.retrieval.text import check_fields
from llmrank.retrieval.unasked import UnaskedEmbedder
from llmrank.retriever_kinds import build_retrievers
from llmrank.sections import kind_of, load_yaml, make, mapping_of, refuse_unknown, section_of, take
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Capability, Item
from llmrank.writer import PromptOptions

if TYPE_CHECKING:
    from llmrank.retrieval.embedding import EmbeddingRetriever
    from llmrank.retrieval.graph import ApproximateOptions
    from llmrank.retrieval.prefilter import Prefilter
    from llmrank.understanding import Understanding

KEYS = (
    "backend",
    "prompt",
    "strategy",
    "retrievers",
    "prefilter",
    "understanding",
    "fusion",
    "limits",
    "cache",
    "catalog",
)

CAPABILITIES: Mapping[str, frozenset[Capability]] = {
    "openai": frozenset({"generate", "label_logprobs"}),
    "vllm": frozenset({"generate", "score", "label_logprobs"}),
    "vllm-inprocess": frozenset({"generate", "score", "label_logprobs"}),
    "local": frozenset({"generate", "score", "label_logprobs"}),
}
"""What each kind of backend can do. A recording can do what the backend that was recorded could."""


def kinds_that_can(needs: frozenset[Capability]) -> tuple[str, ...]:
    """The kinds of backend that have all these capabilities."""
    return tuple(kind for kind, can in CAPABILITIES.items() if needs <= can)


def load_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Reads a configuration and checks its top-level keys.

    Raises:
        ConfigError: the file is missing or no YAML, it is no mapping, or a key is unknown.
    """
    if isinstance(config, str | Path):
        config = load_yaml(config, "config")
    if not isinstance(config, Mapping):
        raise ConfigError("must be a mapping of sections", field="config", value=config, fix=f"its keys: {', '.join(KEYS)}")
    refuse_unknown(config, KEYS, "")
    return dict(config)


def build_ranker(
    config: str | Path | Mapping[str, Any],
    *,
    catalog: Catalog | str | Path | None = None,
    default_cache: str | Path | None = None,
    around: Callable[[Backend], Backend] | None = None,
    unasked: bool = False,
    pool: BackendPool | None = None,
) -> Ranker:
    """Builds a Ranker; `Ranker.from_config` says more.

    Args:
        config: A path, or the configuration itself.
        catalog: Where ids are looked up.
        default_cache: The answer cache if the configuration names none and records nothing.
        around: Puts something of the caller's own around the bare backend, inside of retries and cache.
        unasked: True builds one that can be forecast, but not asked: without keys, servers, weights and SDKs.
        pool: Where the backend is borrowed, shared with all whose section is equal; None for one of its own.
    """
    sections = load_config(config)
    if not sections.get("backend"):
        raise ConfigError("is missing", field="backend", fix="say which model ranks, e.g. backend: {kind: local}")
    limits = section_of(sections, "limits")
    on_error = limits.pop("on_error", "raise")
    limits_options = make(Limits, limits, "limits", also=("on_error",))
    prompt = section_of(sections, "prompt")
    strategy = section_of(sections, "strategy") or {"kind": "listwise"}
    backend_section = section_of(sections, "backend")
    max_concurrency = _take_concurrency(backend_section, "backend")
    cache = make(_Cache, section_of(sections, "cache"), "cache")
    if backend_section.get("record") and cache.path:
        raise ConfigError(
            "answers that come from the cache would be missing in the recording",
            field="cache.path",
            value=cache.path,
            fix="leave it out while recording",
        )
    cache_path = default_cache if cache.path is None and not backend_section.get("record") else cache.path
    found = catalog_of(sections, catalog)
    built_strategy = build_strategy(strategy, prompt)
    if found is not None:
        fields = make(PromptOptions, prompt, "prompt").fields
        check_fields(fields, found.items, where="prompt.fields")
    items = found.items if found else None
    make_embedder = _unasked_embedder if unasked else build_embedder
    retrievers = build_retrievers(section_of(sections, "retrievers"), items, embedder=make_embedder, unasked=unasked)
    prefilter = _prefilter(sections, prompt, items, retrievers, make_embedder, unasked=unasked)
    fusion = fusion_of(section_of(sections, "fusion"), (*PARTS, *retrievers))
    understanding = _understanding(sections, prompt, found)
    build = build_unasked_backend if unasked else build_backend
    # Last: it may hold a model in memory, which no later mistake should leave there.
    lent = None
    if pool is not None:
        lent = pool.borrow(section_of(sections, "backend"), max_concurrency, lambda: build(backend_section))
    backend = build(backend_section) if lent is None else lent.backend
    if "deadline_s" not in limits and not backend.remote:
        # An engine in this process never goes missing; a long list just takes long.
        limits_options = dataclasses.replace(limits_options, deadline_s=None)
    try:
        return Ranker(
            backend if around is None else around(backend),
            built_strategy,
            catalog=found,
            retrievers=tuple(retrievers.values()),
            prefilter=prefilter,
            owns_retrieval=True,
            understanding=understanding,
            fusion=fusion,
            limits=limits_options,
            cache=cache_path,
            max_concurrency=max_concurrency,
            on_error=on_error,
            lent=lent,
        )
    except BaseException:
        if lent is not None:
            lent.backend.give_back()  # nobody was built who would; it was not asked anything yet, so there is nothing to close
        raise


def build_backend(section: Mapping[str, Any]) -> Backend:
    """Builds a backend from the section `backend`, without `max_concurrency`. Its SDK is imported here, not before."""
    options = dict(section)
    kind = kind_of(options, "backend", (*CAPABILITIES, "replay"))
    return _BACKENDS[kind](options)


def build_unasked_backend(section: Mapping[str, Any]) -> Backend:
    """What stands for a backend where nothing is asked; its section is checked all the same. A replay is what it is.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    options = dict(section)
    kind = kind_of(options, "backend", (*CAPABILITIES, "replay"))
    if kind == "replay":
        recorded = options.get("record")
        return _replay(options) if recorded is None else build_unasked_backend(mapping_of(recorded, "backend.record"))
    module, name = _OPTIONS[kind]
    found: Any = make(getattr(import_module(module), name), options, "backend", also=_EVERY)
    model = str(found.model or "")
    return UnaskedBackend(kind, Path(model).stem if getattr(found, "is_path", False) else model, CAPABILITIES[kind], found)


def build_embedder(section: Mapping[str, Any]) -> Embedder:
    """Builds an embedder from the section `prefilter.embedder`.

    Its `kind` is ``wordllama`` (the default), ``openai`` or ``precomputed``. Computed vectors are kept on disk in `store`, by
    default in the user's cache folder, so that a catalogue is embedded once; ``store: null`` keeps none. Precomputed vectors
    may name a `fallback`, a section of one of the other kinds, for the texts that they lack: queries, mostly.

    Raises:
        ConfigError: a key or value is wrong, or the fallback's vectors are of another length.
        BackendError: the fallback's server could not be asked for that length.
    """
    where = "prefilter.embedder"
    options = {"kind": "wordllama", **section}
    kind = kind_of(options, where, EMBEDDERS)
    if kind != "precomputed":
        return _build_model_embedder(kind, options, where)
    from llmrank.retrieval.precomputed import PrecomputedEmbedder, PrecomputedOptions

    fallback = take(options, "fallback").get("fallback")
    precomputed = make(PrecomputedOptions, options, where, also=("kind", "fallback"))
    if fallback is None:
        return PrecomputedEmbedder(precomputed)
    where += ".fallback"
    options = mapping_of(fallback, where)
    return PrecomputedEmbedder(
        precomputed, _build_model_embedder(kind_of(options, where, ("wordllama", "openai")), options, where)
    )


def _build_model_embedder(kind: str, options: dict[str, Any], where: str) -> Embedder:
    """An embedder with a model, from the section `where` without its `kind`."""
    from llmrank.assets import cache_dir
    from llmrank.retrieval.cached import CachedEmbedder
    from llmrank.retrieval.store import VectorStore

    store = make(_Store, {"store": str(cache_dir() / "embeddings"), **take(options, "store")}, where).store
    embedder: Embedder
    if kind == "openai":
        from llmrank.retrieval.openai import OpenAIEmbedder, OpenAIEmbedderOptions

        embedder = OpenAIEmbedder(make(OpenAIEmbedderOptions, options, where, also=("kind", "store")))
    else:
        from llmrank.retrieval.wordllama import WordLlamaEmbedder, WordLlamaOptions

        embedder = WordLlamaEmbedder(make(WordLlamaOptions, options, where, also=("kind", "store")))
    return embedder if store is None else CachedEmbedder(embedder, VectorStore(store, embedder.model))


@dataclasses.dataclass(frozen=True, slots=True)
class _Cache:
    path: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Store:
    store: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Concurrency:
    max_concurrency: int | None = None


def _take_concurrency(section: dict[str, Any], where: str) -> int | None:
    """Takes `max_concurrency` out of a backend's section; that of a recorded backend's own section comes first."""
    outer = make(_Concurrency, take(section, "max_concurrency"), where).max_concurrency
    if section.get("record") is None:
        return outer
    section["record"] = mapping_of(section["record"], f"{where}.record")
    inner = _take_concurrency(section["record"], f"{where}.record")
    return outer if inner is None else inner


def catalog_of(sections: Mapping[str, Any], given: Catalog | str | Path | None) -> Catalog | None:
    """The catalogue that is given, or else that of the section `catalog`; None if there is neither."""
    if given is None:
        section = section_of(sections, "catalog")
        if not section:
            return None
        given = make(_CatalogFile, section, "catalog").path
    return given if isinstance(given, Catalog) else Catalog.load(given)


@dataclasses.dataclass(frozen=True, slots=True)
class _CatalogFile:
    path: str


def _prefilter(
    sections: Mapping[str, Any],
    prompt: Mapping[str, Any],
    items: Sequence[Item] | None,
    retrievers: Mapping[str, Retriever],
    make_embedder: Callable[[Mapping[str, Any]], Embedder],
    *,
    unasked: bool = False,
) -> Prefilter | None:
    if sections.get("prefilter") is None:
        return None
    from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions

    section = section_of(sections, "prefilter")
    by = section.pop("by", [EMBEDDING])
    if not isinstance(by, list | tuple):
        raise ConfigError("must be a list of names", field="prefilter.by", value=by, fix=f"write [{EMBEDDING}]")
    embedder_section = mapping_of(section.pop("embedder", None), "prefilter.embedder")
    index = _index(section.pop("index", None), unasked=unasked)
    if "fields" in prompt:
        section.setdefault("fields", prompt["fields"])  # what tells the model something tells the embedder, too
    options = make(PrefilterOptions, section, "prefilter", also=("embedder", "by", "index"))
    known = (EMBEDDING, *retrievers)
    for name in by:
        if name not in known:
            raise ConfigError("there is no such retriever", field="prefilter.by", value=name, fix=nearest(str(name), known))
    embedder = make_embedder(embedder_section) if EMBEDDING in by else None
    return Prefilter(embedder, options, items, [retrievers[name] for name in by if name != EMBEDDING], index=index)


def build_embedding(sections: Mapping[str, Any], items: Sequence[Item]) -> EmbeddingRetriever:
    """The embeddings of a prefilter, with the embedder, store and index that a Ranker of the same configuration has.

    Args:
        sections: From `load_config`; without a section `prefilter`, its defaults.
        items: The catalogue's.

    Raises:
        ConfigError: a key or value is wrong, or the prefilter goes by something else.
        SetupError: a package that the embedder or the index needs is missing.
    """
    section = section_of(sections, "prefilter")
    named = {**sections, "retrievers": None, "prefilter": {**section, "by": [EMBEDDING]}}
    prefilter = _prefilter(named, section_of(sections, "prompt"), items, {}, build_embedder)
    if prefilter is None or prefilter.embedding is None or EMBEDDING not in section.get("by", [EMBEDDING]):
        raise ConfigError("does not name the embeddings", field="prefilter.by", value=section["by"], fix=f"add {EMBEDDING}")
    return prefilter.embedding


def _index(section: object, *, unasked: bool) -> ApproximateOptions | None:
    """Options of an approximate index from the section `prefilter.index`; None for the exact one."""
    where = "prefilter.index"
    options = {"kind": "exact", **mapping_of(section, where)}
    if kind_of(options, where, ("exact", "approximate")) == "exact":
        refuse_unknown(options, ("kind",), where)
        return None
    from llmrank.retrieval.graph import ApproximateOptions, check_installed

    made = make(ApproximateOptions, options, where, also=("kind",))
    if not unasked:
        check_installed()  # here, and not after a million titles have been embedded
    return made


EMBEDDING = "embedding"
"""What `prefilter.by` calls the embeddings that the prefilter's own keys are about."""


def _unasked_embedder(section: Mapping[str, Any]) -> Embedder:
    return UnaskedEmbedder()


def _understanding(sections: Mapping[str, Any], prompt: Mapping[str, Any], catalog: Catalog | None) -> Understanding | None:
    """What reads queries, if the section `understanding` is there."""
    if sections.get("understanding") is None:
        return None
    from llmrank.understanding import Understanding, UnderstandingOptions

    section = section_of(sections, "understanding")
    if "fields" in prompt:
        shown = make(PromptOptions, prompt, "prompt").fields
        section.setdefault("attributes", [name for name in shown if name != "title"])
    options = make(UnderstandingOptions, section, "understanding")
    if catalog is not None:
        check_fields(options.attributes, catalog.items, where="understanding.attributes")
    if "title" in options.attributes:
        fix = "name attributes such as year and genres"
        raise ConfigError("titles cannot be constrained", field="understanding.attributes", value="title", fix=fix)
    return Understanding(options, make(PromptOptions, prompt, "prompt"))


def _openai(options: dict[str, Any]) -> Backend:
    from llmrank.backends.openai import OpenAIBackend, OpenAIOptions

    return OpenAIBackend(make(OpenAIOptions, options, "backend", also=_EVERY))


def _vllm(options: dict[str, Any]) -> Backend:
    from llmrank.backends.vllm import VLLMBackend, VLLMOptions

    return VLLMBackend(make(VLLMOptions, options, "backend", also=_EVERY))


def _vllm_inprocess(options: dict[str, Any]) -> Backend:
    from llmrank.backends.vllm_inprocess import VLLMInProcessBackend, VLLMInProcessOptions

    return VLLMInProcessBackend(make(VLLMInProcessOptions, options, "backend", also=_EVERY))


def _local(options: dict[str, Any]) -> Backend:
    from llmrank.backends.local import LocalBackend, LocalOptions

    return LocalBackend(make(LocalOptions, options, "backend", also=_EVERY))


def _replay(options: dict[str, Any]) -> Backend:
    from llmrank.backends.replay import RecordingBackend, ReplayBackend, ReplayOptions

    replay = make(ReplayOptions, options, "backend", also=_EVERY)
    if replay.record is None:
        return ReplayBackend(replay.path)
    inner = mapping_of(replay.record, "backend.record")
    return RecordingBackend(build_backend(inner), replay.path)


_EVERY = ("kind", "max_concurrency")
_OPTIONS: Mapping[str, tuple[str, str]] = {
    "openai": ("llmrank.backends.openai", "OpenAIOptions"),
    "vllm": ("llmrank.backends.vllm", "VLLMOptions"),
    "vllm-inprocess": ("llmrank.backends.vllm_inprocess", "VLLMInProcessOptions"),
    "local": ("llmrank.backends.local", "LocalOptions"),
}
_BACKENDS: Mapping[str, Callable[[dict[str, Any]], Backend]] = {
    "openai": _openai,
    "vllm": _vllm,
    "vllm-inprocess": _vllm_inprocess,
    "local": _local,
    "replay": _replay,
}
