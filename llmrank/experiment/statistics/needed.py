"""The name of a scipy module goes in, the module comes out, or one error that says how to install it."""

from __future__ import annotations

import importlib
from typing import Any

from llmrank.errors import SetupError


def scipy_module(name: str) -> Any:
    """Imports it only now: tests of p values need it, assigning users to variants does not.

    Args:
        name: Such as ``scipy.special``.

    Raises:
        SetupError: scipy is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SetupError(f"the statistics of experiments need scipy ({error}): pip install 'llmrank[eval]'") from error
