"""Write a checkpoint as a GGUF file with its tokenizer and chat template.

``python tools/base_model/export_gguf.py --run RUN --stage tune --out daemon/models/familiar-base.gguf``

For the Llama architecture llama.cpp rotates neighbouring pairs where Hugging Face rotates halves, so the rows of q and
k are reordered per head, as llama.cpp's own converter does. Matrices are float16, norms float32.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from format import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from model import Config, Llama
from numpy.typing import NDArray
from tokenizer import PRE_TOKENIZER
from tokenizers import Tokenizer

from familiar.daemon.gguf_shape import add_shape

NAME = "Familiar Base"


def to_llama_cpp_rows(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder the rows of a (heads * E, D) projection from rotate-halves to rotate-pairs."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write(model: Llama, tokenizer: Tokenizer, path: Path, description: str) -> None:
    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name(NAME)
    writer.add_description(description)
    writer.add_license("Apache-2.0")
    add_shape(
        writer, context=config.context, width=config.width, ffn=config.ffn, layers=config.layers, heads=config.heads
    )
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab)
    writer.add_file_type(1)

    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([TokenType.CONTROL if t in SPECIAL_TOKENS else TokenType.NORMAL for t, _ in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    end = tokenizer.token_to_id(END)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_bos_token_id(end)
    writer.add_pad_token_id(tokenizer.token_to_id(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    def add(name: str, weight: torch.Tensor, heads: int | None = None) -> None:
        array = weight.detach().float().numpy()
        if heads:
            array = to_llama_cpp_rows(array, heads)
        if array.ndim == 2:
            writer.add_tensor(name, np.ascontiguousarray(array.astype(np.float16)))
        else:
            writer.add_tensor(name, array, raw_dtype=GGMLQuantizationType.F32)

    state = model.state_dict()
    add("token_embd.weight", state["embed_tokens.weight"])
    add("output_norm.weight", state["norm.weight"])
    for i in range(config.layers):
        source, target = f"layers.{i}", f"blk.{i}"
        add(f"{target}.attn_norm.weight", state[f"{source}.input_layernorm.weight"])
        add(f"{target}.attn_q.weight", state[f"{source}.self_attn.q_proj.weight"], config.heads)
        add(f"{target}.attn_k.weight", state[f"{source}.self_attn.k_proj.weight"], config.kv_heads)
        add(f"{target}.attn_v.weight", state[f"{source}.self_attn.v_proj.weight"])
        add(f"{target}.attn_output.weight", state[f"{source}.self_attn.o_proj.weight"])
        add(f"{target}.ffn_norm.weight", state[f"{source}.post_attention_layernorm.weight"])
        add(f"{target}.ffn_gate.weight", state[f"{source}.mlp.gate_proj.weight"])
        add(f"{target}.ffn_up.weight", state[f"{source}.mlp.up_proj.weight"])
        add(f"{target}.ffn_down.weight", state[f"{source}.mlp.down_proj.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--stage", choices=["pretrain", "tune", "policy"], default="tune")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--before", type=float, default=0, help="tokens of the file that the run started --from")
    args = parser.parse_args()
    saved = torch.load(args.run / f"{args.stage}.pt", map_location="cpu", weights_only=True)
    model = Llama(Config(**saved["config"]))
    model.load_state_dict(saved["model"])
    tokens = args.before + saved["tokens"]
    text = f"Demonstration and test model of Familiar, {tokens / 1e6:.0f} M tokens of {args.stage}."
    write(model, Tokenizer.from_file(str(args.run / "tokenizer.json")), args.out, text)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
