"""Read a GGUF file that ``export_gguf.py`` wrote: the model and its tokenizer, to train on from a released file.

The inverse of the export, so q and k get their rows back in Hugging Face's order. What is left out: the optimizers'
state, which no GGUF holds.
"""

import json
from pathlib import Path

import numpy as np
import torch
from format import SPECIAL_TOKENS
from gguf import GGUFReader
from model import Config, Llama
from numpy.typing import NDArray
from tokenizer import untrained
from tokenizers import AddedToken, Tokenizer

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}


def from_llama_cpp_rows(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a (heads * E, D) projection from rotate-pairs to rotate-halves."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def read_model(path: Path) -> Llama:
    """Return the model in float32, its size read from the header."""
    reader = GGUFReader(path)

    def header(key: str) -> float:
        value: float = reader.fields[f"llama.{key}"].contents()
        return value

    config = Config(
        vocab=int(header("vocab_size")),
        width=int(header("embedding_length")),
        layers=int(header("block_count")),
        heads=int(header("attention.head_count")),
        kv_heads=int(header("attention.head_count_kv")),
        ffn=int(header("feed_forward_length")),
        context=int(header("context_length")),
        rope_theta=header("rope.freq_base"),
        norm_eps=header("attention.layer_norm_rms_epsilon"),
    )
    state = {}
    for tensor in reader.tensors:
        weight = np.asarray(tensor.data, dtype=np.float32)
        if tensor.name in TOP_NAMES:
            name = TOP_NAMES[tensor.name]
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"layers.{layer}.{LAYER_NAMES[part]}.weight"
            if part in ("attn_q", "attn_k"):
                weight = from_llama_cpp_rows(weight, config.heads if part == "attn_q" else config.kv_heads)
        state[name] = torch.from_numpy(weight.copy())
    model = Llama(config)
    model.load_state_dict(state)
    return model


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer that the file's vocabulary and merges describe."""
    fields = GGUFReader(path).fields
    vocabulary: list[str] = fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = fields["tokenizer.ggml.merges"].contents()
    tokenizer = untrained()
    # The library's model takes no new merges once it is built, but its JSON form does.
    whole = json.loads(tokenizer.to_str())
    whole["model"]["vocab"] = {token: i for i, token in enumerate(vocabulary)}
    whole["model"]["merges"] = [merge.split(" ") for merge in merges]
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer
