"""The value of an option goes in, nothing comes out if it may stand; else the one error that names the key and a remedy."""

from __future__ import annotations

import math

from llmrank.errors import ConfigError


def check_whole(field: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Raises ConfigError for what is no whole number of at least `least` (nor None, where that may be)."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        other = ", or null" if optional else ""
        raise ConfigError(f"must be a whole number of at least {least}{other}", field=field, value=value, fix="try 100")


def check_number(
    field: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = math.inf,
    above: bool = False,
    optional: bool = False,
    fix: str = "leave it out",
) -> None:
    """Raises ConfigError for what is no finite number from `least` to `most`; `above`: `least` itself may not be."""
    if optional and value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most or (above and value == least):  # type: ignore[operator]  # it is a number
        span = f"above {least:g}" if above else f"of at least {least:g}"
        span += "" if math.isinf(most) else f" and at most {most:g}"
        raise ConfigError(f"must be a number {span}", field=field, value=value, fix=fix)
