"""A YAML file or a dict goes in, a Ranker comes out; a mistyped key or a wrong value gives one error that names it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from llmrank.backends.guard import Limits
from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, LLMRankError, nearest
from llmrank.fusion import Fusion
from llmrank.protocols import Backend, Embedder
from llmrank.ranker import Ranker
from llmrank.retrieval.text import check_fields
from llmrank.strategies.likelihood import Likelihood, LikelihoodOptions
from llmrank.strategies.listwise import Listwise, ListwiseOptions
from llmrank.template import Templates
from llmrank.types import Capability
from llmrank.writer import PromptOptions, PromptWriter

T = TypeVar("T")

KEYS = ("backend", "prompt", "strategy", "prefilter", "fusion", "limits", "cache", "catalog")

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
    _refuse_unknown(config, KEYS, "")
    return dict(config)


def load_yaml(path: str | Path, field: str) -> Any:
    """What a YAML file holds.

    Args:
        path: The file.
        field: What messages call it.

    Raises:
        ConfigError: the file is missing or no YAML, or one of its mappings has a key twice.
    """
    import yaml

    from llmrank import strict_yaml

    path = Path(path)
    try:
        return strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", field=field, value=str(path), fix="check the path") from error
    except strict_yaml.TwiceError as error:
        raise ConfigError(str(error), field=field, value=str(path), fix="keep one of them") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date such as 2020-13-01
        raise ConfigError(f"not YAML ({error})", field=field, value=str(path), fix="mend the file") from error


def build_ranker(
    config: str | Path | Mapping[str, Any],
    *,
    catalog: Catalog | str | Path | None = None,
    default_cache: str | Path | None = None,
    around: Callable[[Backend], Backend] | None = None,
) -> Ranker:
    """Builds a Ranker; `Ranker.from_config` says more.

    Args:
        config: A path, or the configuration itself.
        catalog: Where ids are looked up.
        default_cache: The answer cache if the configuration names none and records nothing.
        around: Puts something of the caller's own around the bare backend, inside of retries and cache.
    """
    sections = load_config(config)
    if not sections.get("backend"):
        raise ConfigError("is missing", field="backend", fix="say which model ranks, e.g. backend: {kind: local}")
    limits = _section(sections, "limits")
    on_error = limits.pop("on_error", "raise")
    limits_options = make(Limits, limits, "limits", also=("on_error",))
    prompt = _section(sections, "prompt")
    strategy = _section(sections, "strategy") or {"kind": "listwise"}
    backend_section = _section(sections, "backend")
    max_concurrency = _take_concurrency(backend_section, "backend")
    cache = make(_Cache, _section(sections, "cache"), "cache")
    if backend_section.get("record") and cache.path:
        raise ConfigError(
            "answers that come from the cache would be missing in the recording",
            field="cache.path",
            value=cache.path,
            fix="leave it out while recording",
        )
    cache_path = default_cache if cache.path is None and not backend_section.get("record") else cache.path
    found = _catalog(sections, catalog)
    fusion = _fusion(sections)
    built_strategy = build_strategy(strategy, prompt)
    if found is not None:
        fields = make(PromptOptions, prompt, "prompt").fields
        check_fields(fields, found.items, where="prompt.fields")
    prefilter = None
    if sections.get("prefilter") is not None:
        from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions

        prefilter_section = _section(sections, "prefilter")
        embedder = build_embedder(_mapping(prefilter_section.pop("embedder", None), "prefilter.embedder"))
        if "fields" in prompt:
            prefilter_section.setdefault("fields", prompt["fields"])  # what tells the model something tells the embedder, too
        options = make(PrefilterOptions, prefilter_section, "prefilter", also=("embedder",))
        prefilter = Prefilter(embedder, options, found.items if found else None)
    backend = build_backend(backend_section)  # last: it may hold a model in memory, which no later mistake should leave there
    if "deadline_s" not in limits and not backend.remote:
        # An engine in this process never goes missing; a long list just takes long.
        limits_options = dataclasses.replace(limits_options, deadline_s=None)
    return Ranker(
        backend if around is None else around(backend),
        built_strategy,
        catalog=found,
        prefilter=prefilter,
        owns_prefilter=True,
        fusion=fusion,
        limits=limits_options,
        cache=cache_path,
        max_concurrency=max_concurrency,
        on_error=on_error,
    )


def build_strategy(section: Mapping[str, Any], prompt: Mapping[str, Any] | None = None) -> Listwise | Likelihood:
    """Builds a strategy from the sections `strategy` and `prompt`."""
    options = dict(section)
    kind = _kind(options, "strategy", ("listwise", "likelihood"))
    prompt = dict(prompt or {})
    if kind == "likelihood":
        writer = _writer({"template": "likelihood/next-line", "history": 10, **prompt})
        return Likelihood(writer, make(LikelihoodOptions, options, "strategy", also=("kind",)))
    writer = _writer(prompt)
    listwise = make(ListwiseOptions, options, "strategy", also=("kind",))
    repairer = None
    if listwise.repair:
        repairer = _writer({**prompt, "template": "listwise/repair"})
    return Listwise(writer, listwise, repairer=repairer)


def build_backend(section: Mapping[str, Any]) -> Backend:
    """Builds a backend from the section `backend`, without `max_concurrency`. Its SDK is imported here, not before."""
    options = dict(section)
    kind = _kind(options, "backend", (*CAPABILITIES, "replay"))
    return _BACKENDS[kind](options)


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
    kind = _kind(options, where, ("wordllama", "openai", "precomputed"))
    if kind != "precomputed":
        return _build_model_embedder(kind, options, where)
    from llmrank.retrieval.precomputed import PrecomputedEmbedder, PrecomputedOptions

    fallback = _take(options, "fallback").get("fallback")
    precomputed = make(PrecomputedOptions, options, where, also=("kind", "fallback"))
    if fallback is None:
        return PrecomputedEmbedder(precomputed)
    where += ".fallback"
    options = _mapping(fallback, where)
    return PrecomputedEmbedder(
        precomputed, _build_model_embedder(_kind(options, where, ("wordllama", "openai")), options, where)
    )


def _build_model_embedder(kind: str, options: dict[str, Any], where: str) -> Embedder:
    """An embedder with a model, from the section `where` without its `kind`."""
    from llmrank.assets import cache_dir
    from llmrank.retrieval.cached import CachedEmbedder
    from llmrank.retrieval.store import VectorStore

    store = make(_Store, {"store": str(cache_dir() / "embeddings"), **_take(options, "store")}, where).store
    embedder: Embedder
    if kind == "openai":
        from llmrank.retrieval.openai import OpenAIEmbedder, OpenAIEmbedderOptions

        embedder = OpenAIEmbedder(make(OpenAIEmbedderOptions, options, where, also=("kind", "store")))
    else:
        from llmrank.retrieval.wordllama import WordLlamaEmbedder, WordLlamaOptions

        embedder = WordLlamaEmbedder(make(WordLlamaOptions, options, where, also=("kind", "store")))
    return embedder if store is None else CachedEmbedder(embedder, VectorStore(store, embedder.model))


def make(cls: type[T], values: Mapping[str, Any], where: str, *, also: tuple[str, ...] = ()) -> T:
    """An options class from a mapping.

    Args:
        cls: A dataclass.
        values: Its fields; unknown ones are refused.
        where: The section's name, for messages.
        also: Keys of the section that are read elsewhere, so that a typo of them finds its way too.

    Raises:
        ConfigError: an unknown key (the nearest is named) or a wrong value. A truth value or a text is no number.
    """
    import pydantic

    names = [each.name for each in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass by contract
    _refuse_unknown(values, (*names, *also), where)
    place = [where]
    try:
        # Strictly, or pydantic would read `true` as 1 and "5" as 5. Not the whole class: lists would be no tuples then.
        for name, hint in get_type_hints(cls).items():
            if name in values and set(get_args(hint) or (hint,)) <= _SCALARS:
                place = [where, name]
                pydantic.TypeAdapter(hint).validate_python(values[name], strict=True)
        place = [where]
        return pydantic.TypeAdapter(cls).validate_python(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if isinstance(own := first.get("ctx", {}).get("error"), LLMRankError):
            raise own from error  # the class refused the value itself, in its own words
        missing = first["type"] == "missing"
        raise ConfigError(
            "is missing" if missing else first["msg"],
            field=".".join([*place, *map(str, first["loc"])]),
            value=None if missing else first["input"],
            fix="give it a value" if missing else "docs/configuration.md says what it may be",
        ) from error


_SCALARS = frozenset({int, float, bool, str, type(None)})


@dataclasses.dataclass(frozen=True, slots=True)
class _Cache:
    path: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Store:
    store: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Concurrency:
    max_concurrency: int | None = None


def _section(sections: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _mapping(sections.get(name), name)


def _mapping(value: object, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError("must be a mapping", field=name, value=value, fix=f"write {name}: {{key: value}}, or null")
    return dict(value)


def _take(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: section.pop(name) for name in names if name in section}


def _take_concurrency(section: dict[str, Any], where: str) -> int | None:
    """Takes `max_concurrency` out of a backend's section; that of a recorded backend's own section comes first."""
    outer = make(_Concurrency, _take(section, "max_concurrency"), where).max_concurrency
    if section.get("record") is None:
        return outer
    section["record"] = _mapping(section["record"], f"{where}.record")
    inner = _take_concurrency(section["record"], f"{where}.record")
    return outer if inner is None else inner


def _kind(options: dict[str, Any], where: str, known: tuple[str, ...]) -> str:
    if "kind" not in options:
        _refuse_unknown({key: None for key in options if difflib.get_close_matches(str(key), ["kind"])}, ("kind",), where)
    kind = options.pop("kind", None)
    if kind not in known:
        fix = f"use one of: {', '.join(known)}" if kind is None else nearest(str(kind), known)
        raise ConfigError("is missing" if kind is None else "unknown kind", field=f"{where}.kind", value=kind, fix=fix)
    return str(kind)


def _refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in values:
        if key not in known:
            field = f"{where}.{key}" if where else str(key)
            raise ConfigError("unknown key", field=field, fix=nearest(str(key), known))


def _catalog(sections: Mapping[str, Any], given: Catalog | str | Path | None) -> Catalog | None:
    if given is None:
        section = _section(sections, "catalog")
        if not section:
            return None
        given = make(_CatalogFile, section, "catalog").path
    return given if isinstance(given, Catalog) else Catalog.load(given)


@dataclasses.dataclass(frozen=True, slots=True)
class _CatalogFile:
    path: str


def _fusion(sections: Mapping[str, Any]) -> Fusion | None:
    weights = _section(sections, "fusion")
    return Fusion(weights) if weights else None


def _writer(prompt: Mapping[str, Any]) -> PromptWriter:
    options = make(PromptOptions, prompt, "prompt")
    return PromptWriter(options, Templates(*options.directories))


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
    inner = _mapping(replay.record, "backend.record")
    return RecordingBackend(build_backend(inner), replay.path)


_EVERY = ("kind", "max_concurrency")
_BACKENDS: Mapping[str, Callable[[dict[str, Any]], Backend]] = {
    "openai": _openai,
    "vllm": _vllm,
    "vllm-inprocess": _vllm_inprocess,
    "local": _local,
    "replay": _replay,
}
