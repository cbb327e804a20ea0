"""The path of a file of requests goes in, one that can be read more than once comes out, whatever stands behind it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmrank.errors import DatasetError


@contextmanager
def rereadable(cases: Path) -> Iterator[Path]:
    """The file itself, or, for what can be read only once (a pipe), a copy of it."""
    with ExitStack() as stack:
        try:
            # Some systems give one read position to all who open /dev/stdin: then even a file is read only once there.
            if cases.is_file() and cases.parts[:2] != ("/", "dev"):
                path = cases
            else:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmrank-")), "cases.jsonl")
                with cases.open("rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
        except OSError as error:
            reason = error.strerror or error
            raise DatasetError(f"cannot be read ({reason})", field="--cases", value=str(cases), fix="check the path") from error
        yield path
