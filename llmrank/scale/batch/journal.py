"""A batch's folder goes in, what it belongs to comes out: `batch.json`, begun by the first run, checked by every later one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from llmrank.backends._negotiation import Dialect
from llmrank.codec import canonical
from llmrank.errors import ConfigError
from llmrank.files import write_whole

FORMAT: Final = 1
_FIELDS: Final = {"format", "identity", "counter", "window", "id", "dialects"}


class Journal:
    """What must stay the same from run to run, for a prompt to find the answer that was paid for.

    Args:
        folder: The batch's folder.

    Raises:
        ConfigError: `batch.json` is there and cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "batch.json"
        self._document: dict[str, Any] = self._read() if self._path.exists() else {}

    @property
    def begun(self) -> bool:
        """True if an earlier run began it."""
        return bool(self._document)

    @property
    def id(self) -> str:
        """What names this folder among all the batches of an account."""
        return str(self._document["id"])

    @property
    def window(self) -> int | None:
        """The window that the prompts are written for, in tokens; None if nobody named one."""
        window: int | None = self._document["window"]
        return window

    @property
    def dialects(self) -> list[Dialect]:
        """The dialects that requests were put in, in the order in which they were learned."""
        return [_dialect(each) for each in self._document["dialects"]]

    def begin(self, identity: Mapping[str, Any], counter: str, window: int | None, dialects: Sequence[Dialect]) -> None:
        """Begins it, or checks that it was begun with the same.

        Args:
            identity: The backend's.
            counter: The name of what counts tokens.
            window: Kept by the first run.
            dialects: Kept by the first run; see `learn`.

        Raises:
            ConfigError: it was begun with another model, other settings or another counter.
        """
        belongs: dict[str, Any] = json.loads(canonical({"format": FORMAT, "identity": dict(identity), "counter": counter}))
        if not self._document:
            self._document = {**belongs, "window": window, "id": secrets.token_hex(8), "dialects": []}
            self.learn(dialects)
        for name in ("format", "identity", "counter"):
            value = belongs[name]
            if self._document.get(name) != value:
                raise ConfigError(
                    f"was begun with another {name}: {json.dumps(self._document.get(name))}, now {json.dumps(value)}",
                    field="batch",
                    value=str(self._path.parent),
                    fix="go on as it was begun, or begin in a new folder",
                )

    def learn(self, dialects: Sequence[Dialect]) -> None:
        """Keeps the dialects, if there are more of them than are kept."""
        if len(dialects) > len(self._document["dialects"]):
            self._document["dialects"] = json.loads(json.dumps([asdict(dialect) for dialect in dialects]))
            write_whole(self._path, [json.dumps(self._document, indent=1) + "\n"])

    def _read(self) -> dict[str, Any]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if missing := _FIELDS - set(document):
                raise ValueError(f"{', '.join(sorted(missing))} missing")
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"cannot be read ({error})", field="batch", value=str(self._path), fix="begin in a new folder"
            ) from error
        return dict(document)


def _dialect(document: Mapping[str, Any]) -> Dialect:
    """What `asdict` made of one, after JSON, which knows no tuples."""
    ways: dict[str, Any] = {name: tuple(way) if isinstance(way, list) else way for name, way in document.items()}
    return Dialect(**ways)
