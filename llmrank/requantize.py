"""A GGUF file goes in, the same model with its weights in another number format comes out (package gguf, pure Python).

Number formats differ in speed more than in size: llama.cpp computes with 8-bit blocks (``Q8_0``) much faster on a CPU than with
the older 4-bit ones (``Q4_1``), in which small models are often published.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final, Literal, TypeAlias

from llmrank.errors import SetupError
from llmrank.progress import Report

NumberFormat: TypeAlias = Literal["Q8_0"]
"""What can be converted to. Q8_0: blocks of 32 weights, 8 bits each, and a 16-bit scale."""

FILE_TYPES: Final[dict[NumberFormat, int]] = {"Q8_0": 7}
"""llama.cpp's number of a file whose weights are mostly of this format (``general.file_type``, enum llama_ftype)."""

MISSING: Final = "this model is converted once, which needs gguf, which is not installed; run: pip install 'llmrank[local]'"


def check_requantize() -> None:
    """Raises SetupError if the package that converts is missing: to be asked before anything is downloaded."""
    if importlib.util.find_spec("gguf") is None:
        raise SetupError(MISSING)


def requantize(source: Path, target: Path, form: NumberFormat, report: Report) -> None:
    """Writes a model with its weights in another number format; names, vocabulary and chat template stay.

    What is kept in full precision (norms) stays so, and so does what has the format already. A weight moves by half a step
    of its new block at most, which with Q8_0 is 1/254 of the block's largest.

    Args:
        source: A GGUF file, of any format that gguf can read.
        target: Where to write. Not whole before this returns.
        form: The number format.
        report: Told how many tensors are done.

    Raises:
        SetupError: gguf is missing.
    """
    check_requantize()
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    wanted = gguf.GGMLQuantizationType[form]
    as_they_are = {wanted, gguf.GGMLQuantizationType.F32}
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":  # the writer's own
            continue
        value = FILE_TYPES[form] if name == "general.file_type" else entry.contents()
        element = entry.types[-1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, entry.types[0], element)
    for done, tensor in enumerate(reader.tensors, start=1):
        if tensor.tensor_type in as_they_are:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            numbers = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
            writer.add_tensor(tensor.name, gguf.quantize(numbers, wanted), raw_dtype=wanted)
        report(done, len(reader.tensors))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
