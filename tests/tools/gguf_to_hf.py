"""A GGUF file of the Llama architecture goes in, a Hugging Face folder that vLLM loads comes out.

vLLM on CPU does not load GGUF, and the only weights that a package index offers to a closed network are GGUF files. This
undoes what llama.cpp's converter did: dequantises each tensor, gives it its original name, and puts the rows of the query
and key projections back into the order that rotary embeddings have in `transformers`.

Run it with an interpreter that has gguf, torch, safetensors and transformers (the vLLM environment has them)::

    python tests/tools/gguf_to_hf.py MODEL.gguf OUT_FOLDER [bfloat16|float32]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP_LEVEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_A_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
SPECIAL_TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


def hf_name(gguf_name: str) -> str:
    """The name that a tensor has in `transformers`.

    Raises:
        KeyError: the tensor belongs to no Llama model.
    """
    if match := LAYER.fullmatch(gguf_name):
        return f"model.layers.{match[1]}.{IN_A_LAYER[match[2]]}.weight"
    return TOP_LEVEL[gguf_name]


def unpermute(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Puts a query or key projection's rows from llama.cpp's order (pairs interleaved) into `transformers`' (two halves).

    Args:
        rows: The weight, shape (heads * head_dim, hidden).
        heads: How many heads the projection has.
    """
    per_head = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return np.ascontiguousarray(per_head.swapaxes(1, 2).reshape(rows.shape))


def config_of(fields: dict[str, Any], *, dtype: str, tied: bool) -> dict[str, Any]:
    """The contents of ``config.json``, from the metadata of the GGUF file."""
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": fields["llama.context_length"],
        # GGUF stores it as float32: six digits give back the 1e-5 that was meant.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": tied,
        "vocab_size": fields["llama.vocab_size"],
        **special_tokens(fields),
    }


def special_tokens(fields: dict[str, Any]) -> dict[str, int]:
    """The ids of the first, last and padding token, as both JSON files name them."""
    return {name: fields[f"tokenizer.ggml.{key}"] for name, key in SPECIAL_TOKENS.items()}


def convert(source: Path, target: Path, dtype: str = "bfloat16") -> None:
    """Writes ``model.safetensors``, ``config.json``, ``generation_config.json`` and the tokenizer's files into `target`."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    target.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(str(source))
    # The vocabulary itself is left to transformers, which reads it from the same file below.
    fields = {
        key: field.contents()
        for key, field in reader.fields.items()
        if not key.startswith("tokenizer.ggml.") or key.endswith("_id")
    }
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    tensors = {}
    for tensor in reader.tensors:
        weight = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type)).astype(np.float32)
        match = LAYER.fullmatch(tensor.name)
        if match and match[2] in heads:
            weight = unpermute(weight, heads[match[2]])
        tensors[hf_name(tensor.name)] = torch.from_numpy(weight).to(getattr(torch, dtype))
    save_file(tensors, str(target / "model.safetensors"), metadata={"format": "pt"})

    config = config_of(fields, dtype=dtype, tied="lm_head.weight" not in tensors)
    (target / "config.json").write_text(json.dumps(config, indent=1))
    (target / "generation_config.json").write_text(json.dumps(special_tokens(fields)))
    AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name).save_pretrained(str(target))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: gguf_to_hf.py MODEL.gguf OUT_FOLDER [bfloat16|float32]")
    convert(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
