"""A small experiment over the files of the small suite: two variants that ask a server on the loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.servers.picky import PickyServer, Reply, Request, completion
from tests.unit.small_suite import KEY_ENV, labels


def experiment(folder: Path, url: str, **changes: Any) -> dict[str, Any]:
    """A control that is answered backwards and a variant that is answered forwards; `changes` replace keys."""
    return {
        "name": "forwards",
        "items": str(folder / "items.jsonl"),
        "cases": str(folder / "cases.jsonl"),
        "interactions": str(folder / "interactions.csv"),
        "variants": {"plain": variant(url, "plain"), "bold": variant(url, "bold")},
        "metrics": ["ndcg@3", "hit@1"],
        "resamples": 200,
        "prices": {"picky-1": {"input": 10.0, "output": 100.0}},
        **changes,
    }


DOMAINS = {"plain": "movies", "bold": "games", "tame": "books", "grey": "music", "flat": "products"}
"""What each variant says that the candidates are."""


def variant(url: str, name: str, template: str = "listwise/recency", **strategy: Any) -> dict[str, Any]:
    """A variant that the server can tell by its domain."""
    return {
        "backend": {"kind": "openai", "model": "picky-1", "base_url": url, "api_key_env": KEY_ENV, "max_concurrency": 2},
        "prompt": {"template": template, "variables": {"domain": DOMAINS[name]}},
        "strategy": {"kind": "listwise", **strategy},
        "limits": {"max_attempts": 1},
    }


def asks(request: Request, name: str) -> bool:
    """Whether a request is a question of this variant."""
    return request.path.endswith("/chat/completions") and DOMAINS[name] in str(request.body["messages"])


def forwards_for(name: str) -> Any:
    """A rule: this variant gets the candidates in the order shown."""

    def rule(request: Request) -> Reply | None:
        if not asks(request, name):
            return None
        order = " > ".join(f"[{label}]" for label in labels(request))
        return Reply(completion(order, usage={"prompt_tokens": 220, "completion_tokens": 20}))

    return rule


def asked(server: PickyServer) -> int:
    """How many prompts the server was sent."""
    return len(server.bodies)
