"""The embedder that a folder was made with, and the one that its user names, go in; the section that is built comes out.

Folders are handed on: a learned retriever, a run, an experiment. What such a folder tells of its embedder is which vectors it
was made with (`vectors_of`). Where these are had, an address, the variable that holds a key, a file, is for those who use the
folder to say, in a section of their own: a stranger's folder would otherwise send a key and users' histories where the
stranger likes. Only the static vectors of ``wordllama``, which ask nobody, need nothing said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError
from llmrank.sections import kind_of

KINDS = ("wordllama", "openai", "precomputed")

ALONE = "wordllama"
"""The kind whose vectors are the same everywhere, and come from nowhere else."""


def vectors_of(section: Mapping[str, Any], where: str = "embedder") -> dict[str, Any]:
    """What of an embedder's section shapes its vectors: the kind, and model, dimensions and what is sent beside the texts.

    It is itself a section of an embedder, but for the places: two embedders for which it is equal give the same vectors.

    Args:
        section: A section like `prefilter.embedder`; ``{}`` is the default embedder. Of its other keys nothing is looked at.
        where: The section's name, for messages.

    Raises:
        ConfigError: the kind is unknown.
    """
    options = {"kind": ALONE, **section}
    kind = kind_of(options, where, KINDS)
    if kind == ALONE:
        from llmrank.retrieval.wordllama import WordLlamaOptions

        found = {"dimension": options.get("dimension", WordLlamaOptions().dimension)}
    elif kind == "openai":
        found = {name: options.get(name) for name in ("model", "dimensions", "extra_body")}
    else:
        # As the embedder calls itself. A fallback is the same model by contract.
        found = {"model": options.get("model") or Path(str(options.get("vectors", ""))).name}
    told = {name: value for name, value in found.items() if value not in (None, {})}
    return {"kind": kind, **json.loads(json.dumps(told, default=str))}


def asks_others(section: Mapping[str, Any], where: str = "embedder") -> bool:
    """Whether an embedder needs a server or a file. Raises ConfigError if its kind is unknown."""
    return str(vectors_of(section, where)["kind"]) != ALONE


def embedder_for(made_with: Mapping[str, Any], own: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """The section to build for vectors like those that a folder was made with.

    Args:
        made_with: What the folder says of its embedder. Nothing of it but `vectors_of` is believed.
        own: The section of who uses the folder; None if there is none.
        where: What that section is called, for messages.

    Returns:
        `own`, or without one the folder's own if that asks nobody.

    Raises:
        ConfigError: the folder needs a server or a file and `own` names none, or `own` makes other vectors.
    """
    wanted = vectors_of(made_with, where)
    if own is not None:
        if vectors_of(own, where) != wanted:
            raise other_vectors(made_with, own, where)
        return dict(own)
    if wanted["kind"] != ALONE:
        raise ConfigError(
            f"is missing: the folder was made with {json.dumps(wanted)}, and whom to ask for such vectors is yours to say",
            field=where,
            fix=f"name it, with {_PLACES[wanted['kind']]} of yours (docs/configuration.md, prefilter.embedder)",
        )
    return wanted


def other_vectors(made_with: Mapping[str, Any], own: Mapping[str, Any], where: str) -> ConfigError:
    """The error for a section that makes other vectors than those that a folder was made with; the first key is named."""
    wanted, given = vectors_of(made_with, where), vectors_of(own, where)
    key = next((name for name in {**wanted, **given} if wanted.get(name) != given.get(name)), "kind")
    return ConfigError(
        "is not what the folder was made with",
        field=f"{where}.{key}",
        value=given.get(key),
        fix=f"write {key}: {json.dumps(wanted[key])}" if key in wanted else "leave it out",
    )


_PLACES: Mapping[str, str] = {"openai": "a base_url and api_key_env", "precomputed": "a file of vectors"}
