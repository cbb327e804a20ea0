"""Templates go in, every version of them comes out again: an append-only file of what was asked, when, and with what result.

A line of the file is a version of a template with the text of every file it was made of, a note, or a result; a version can be
rendered for ever as it was, whatever becomes of the files. Lines are only ever added, by one process at a time, and each is on
disk before the next. What a kill left of a line is cut off by the next who writes, who says so.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from llmrank.errors import ConfigError, DatasetError, InputError, TemplateError, nearest
from llmrank.template import Template, Templates, fingerprint

DEFAULT = "prompts.registry.jsonl"
"""The registry that commands use, in the working directory."""

FEWEST_DIGITS = 4
"""So many digits of a fingerprint are needed to name a version."""

WAIT_S = 30.0
"""How long a write waits for that of another process."""

_DIGITS = re.compile(rf"[0-9a-f]{{{FEWEST_DIGITS},12}}")


@dataclass(frozen=True, slots=True)
class Result:
    """What a version came to in one experiment and one measure.

    Attributes:
        experiment: The experiment's name.
        measure: For instance ``ndcg@10``.
        value: The version's mean.
        interval: Of the value, or None if it is not known.
        users: From how many.
        date: When (ISO time).
    """

    experiment: str
    measure: str
    value: float
    interval: tuple[float, float] | None
    users: int
    date: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a template.

    Attributes:
        name: The template's.
        fingerprint: 12 hexadecimal digits.
        time: When it was registered (ISO time, UTC).
        sources: The text of every file it is made of, by file name.
        notes: In the order in which they were written.
        results: In the order in which they came; of one experiment and measure the last one.
    """

    name: str
    fingerprint: str
    time: str
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()

    @property
    def reference(self) -> str:
        """What names it: ``listwise/recency@d3618c46b8e9``."""
        return f"{self.name}@{self.fingerprint}"

    @property
    def intact(self) -> bool:
        """True if the texts are still those that the fingerprint was taken of."""
        return fingerprint(self.sources) == self.fingerprint

    @property
    def best_known(self) -> Result | None:
        """The result that is known best: that from most users, of several the last one. None if there is none."""
        return max(reversed(self.results), key=lambda result: result.users, default=None)


class Registry:
    """The registry in a file, which need not be there before something is added. Every call reads it anew.

    Args:
        path: The file.

    Attributes:
        told: What was repaired when this object wrote, a sentence each.
    """

    def __init__(self, path: str | Path = DEFAULT) -> None:
        self.path = Path(path)
        self.told: list[str] = []

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """The versions of a template, or of all, in the order in which they were registered.

        Raises:
            DatasetError: the file cannot be read, or a line of it is no entry.
        """
        return tuple(version for version in self._read().values() if name is None or version.name == name)

    def find(self, reference: str) -> Version:
        """The version of that name.

        Args:
            reference: ``NAME@FINGERPRINT``, or the fingerprint alone; its first digits do if no other version has the same.

        Raises:
            InputError: no version, or more than one, is named so.
            DatasetError: as for `versions`.
        """
        name, _, digits = reference.rpartition("@")
        if not _DIGITS.fullmatch(digits):
            fix = f"write NAME@FINGERPRINT, with at least {FEWEST_DIGITS} of its 12 hexadecimal digits"
            raise InputError("no version of a template", field="registry", value=reference, fix=fix)
        known = self.versions()
        found = [each for each in known if each.fingerprint.startswith(digits) and name in ("", each.name)]
        if len(found) == 1:
            return found[0]
        if found:
            fix = f"give more digits: {', '.join(each.reference for each in found)}"
            raise InputError("more than one version begins so", field="registry", value=reference, fix=fix)
        there = [each.reference for each in known if each.name == name]
        if there:
            fix = f"of {name} it has {', '.join(there)}"
        elif known:
            fix = nearest(name, {each.name for each in known}) if name else "llmrank prompts history lists what it has"
        else:
            fix = "it is empty: llmrank prompts register NAME"
        raise InputError(f"no such version in {self.path}", field="registry", value=reference, fix=fix)

    def template(self, version: Version | str) -> Template:
        """The template as it was: it renders what it rendered then.

        Args:
            version: A version, or what names it (see `find`).

        Raises:
            InputError: as for `find`.
            DatasetError: its entry is damaged: the texts are not those of the fingerprint; or as for `versions`.
        """
        if isinstance(version, str):
            version = self.find(version)
        damaged = DatasetError(
            f"the entry of {version.reference} in {self.path} is damaged: its texts are not those of its fingerprint",
            field="registry",
            fix="restore the file from a copy, or delete the line and register the template anew",
        )
        if not version.intact:
            raise damaged
        try:
            template = Templates.of_sources(version.sources, self.path).get(version.name)
        except TemplateError as error:
            raise damaged from error
        if template.fingerprint != version.fingerprint:
            raise damaged
        return template

    def add(self, template: Template, note: str = "") -> Version:
        """Registers a template as it is now.

        Args:
            template: Any; a version that is there already is not added again.
            note: What is to be remembered of it; added to an earlier one unless it is the same.

        Returns:
            The version as it is in the file.

        Raises:
            DatasetError: the file cannot be written, or as for `versions`.
        """
        # Half a surrogate pair, as a shell may hand on, cannot be written.
        note = note.strip().encode(errors="replace").decode()
        key = (template.name, template.fingerprint)
        with self._writing() as (file, known):
            if key not in known:
                sources = {file: template.sources[file] for file in sorted(template.sources)}
                self._append(file, _entry("version", *key, sources=sources, note=note))
            elif note and note not in known[key].notes:
                self._append(file, _entry("note", *key, note=note))
        return self._read()[key]

    def result(
        self,
        reference: str,
        *,
        experiment: str,
        measure: str,
        value: float,
        users: int,
        interval: tuple[float, float] | None = None,
        date: str | None = None,
    ) -> Version:
        """Notes what a version came to. The same result again is not added; another of the same experiment and measure counts
        in place of the earlier one, which stays in the file.

        Args:
            reference: What names the version; see `find`.
            experiment, measure, value, users, interval: See `Result`.
            date: When; now if it is not said.

        Returns:
            The version as it is in the file.

        Raises:
            InputError: as for `find`.
            ConfigError: the value is not a finite number, or there are no users.
            DatasetError: the file cannot be written, or as for `versions`.
        """
        for field, number in (("value", value), *(("interval", end) for end in interval or ())):
            if not math.isfinite(number):
                raise ConfigError("must be a finite number", field=field, value=number, fix="note only what is known")
        if users < 1:
            raise ConfigError("must be at least 1", field="users", value=users, fix="say from how many users it is")
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        found = Result(experiment, measure, float(value), ends, int(users), date or _now())
        version = self.find(reference)
        key = (version.name, version.fingerprint)
        with self._writing() as (file, known):
            if not any(_same(each, found) for each in known[key].results):
                record = {name: getattr(found, name) for name in Result.__slots__}
                self._append(file, _entry("result", *key, **record))
        return self._read()[key]

    def _read(self) -> dict[tuple[str, str], Version]:
        """All versions, by name and fingerprint; a last line without an end is not there yet."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._broken(f"cannot be read ({error.strerror})", "check the path") from error
        return self._versions(data)

    def _versions(self, data: bytes) -> dict[tuple[str, str], Version]:
        found: dict[tuple[str, str], Version] = {}
        # Line feeds only: a text may hold any other character that ends a line for someone.
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            if line.strip():
                try:
                    _take(json.loads(line), found)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    fix = "restore the file from a copy, or delete that line"
                    raise self._broken(f"line {number} is no entry of a registry", fix) from error
        return found

    def _broken(self, problem: str, fix: str) -> DatasetError:
        return DatasetError(f"{self.path}: {problem}", field="registry", fix=fix)

    @contextmanager
    def _writing(self) -> Iterator[tuple[IO[bytes], dict[tuple[str, str], Version]]]:
        """The file, open for this process alone and whole to its end, and what is in it."""
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with (
                FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=WAIT_S),
                self.path.open("a+b", buffering=0) as file,
            ):
                self._mend(file)
                file.seek(0)
                yield file, self._versions(file.read())
        except Timeout as error:
            raise self._broken("another process is writing there", "wait for it to end") from error
        except OSError as error:
            raise self._broken(f"cannot be written ({error.strerror})", "check the path") from error

    def _mend(self, file: IO[bytes]) -> None:
        """A last line that lacks its end only gets it; one that was torn was promised to nobody, and is cut off."""
        file.seek(0)
        whole, feed, torn = file.read().rpartition(b"\n")
        if not torn:
            return
        try:
            _take(json.loads(torn), self._versions(whole + feed))
        except (ValueError, KeyError, TypeError, RecursionError):
            file.truncate(len(whole) + len(feed))
            self.told.append(f"{self.path}: cut off a last line that was not written to its end ({len(torn):,} bytes)")
        else:
            _write(file, b"\n")
            self.told.append(f"{self.path}: gave the last line the end that it lacked")
        os.fsync(file.fileno())

    def _append(self, file: IO[bytes], entry: Mapping[str, Any]) -> None:
        end = file.seek(0, os.SEEK_END)
        try:
            _write(file, (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode())
            os.fsync(file.fileno())
        except OSError:  # a full disk: what was written of the line goes again
            file.truncate(end)
            raise


def _write(file: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _entry(kind: str, name: str, digits: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "fingerprint": digits, "time": _now(), **more}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _same(one: Result, other: Result) -> bool:
    return replace(one, date="") == replace(other, date="")


def _take(entry: Any, found: dict[tuple[str, str], Version]) -> None:
    """Takes one line into account. Raises ValueError, KeyError or TypeError if it is no entry."""
    key = (_text(entry["name"]), _text(entry["fingerprint"]))
    kind = entry["kind"]
    if kind == "version":
        sources = {_text(file): _text(text) for file, text in _mapping(entry["sources"]).items()}
        note = _text(entry["note"])
        found.setdefault(key, Version(*key, _text(entry["time"]), sources, (note,) if note else ()))
    elif kind == "note":
        version = found[key]
        found[key] = replace(version, notes=(*version.notes, _text(entry["note"])))
    elif kind == "result":
        version = found[key]
        ends = entry["interval"]
        result = Result(
            _text(entry["experiment"]),
            _text(entry["measure"]),
            float(entry["value"]),
            None if ends is None else (float(ends[0]), float(ends[1])),
            int(entry["users"]),
            _text(entry["date"]),
        )
        others = [each for each in version.results if (each.experiment, each.measure) != (result.experiment, result.measure)]
        found[key] = replace(version, results=(*others, result))
    else:
        raise ValueError(kind)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _mapping(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("not a mapping")
    return value
