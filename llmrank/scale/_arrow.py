"""pyarrow as `pa` and `pq`, or an error that says how to install it."""

from __future__ import annotations

from llmrank.errors import SetupError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    raise SetupError("pyarrow is not installed; run: pip install 'llmrank[data]'") from missing

__all__ = ["pa", "pq"]
