"""A LoRA between PEFT's folder and llama.cpp's GGUF file, exactly, both ways.

For the Llama architecture llama.cpp rotates neighbouring pairs of a head's rows where transformers rotates its halves,
so GGUF keeps the rows of q and k in another order. A LoRA's B has those rows too and is reordered with them; its A has
not. What is left out: anything but plain LoRA on the seven projections (no DoRA, rsLoRA, embeddings or biases).
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.extras import require_learn
from familiar.adapters.folders import disk_errors
from familiar.adapters.gguf_file import F16, F32, FLOAT32, Header, read_header, read_tensor
from familiar.memory.errors import BadFile

Array = NDArray[np.float32]

ADAPTER_NAME = "Familiar adapter"
"""``general.name`` of the files written here."""

_TYPES = (F32, F16, 8, 30)
"""The tensor types that adapters are written in: 8 is Q8_0, 30 is BF16. llama.cpp aborts on some others."""

_GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PEFT_NAMES = {gguf: peft for peft, gguf in _GGUF_NAMES.items()}
_PEFT_KEY = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")
_GGUF_KEY = re.compile(r"blk\.(\d+)\.(\w+)\.weight\.lora_([ab])")


def to_gguf(peft_folder: Path, gguf_out: Path, base_gguf: Path) -> None:
    """Write a PEFT LoRA as a GGUF adapter (F32) for the model in ``base_gguf``; the file appears whole or not at all.

    Raises BadFile when the adapter is unreadable, not plain LoRA, holds values that are not finite, or does not fit
    the model; NoSpace; MissingExtra.
    """
    require_learn()
    from gguf import GGUFWriter

    base = read_header(base_gguf)
    tensors, alpha = _read_peft(peft_folder)
    with disk_errors(gguf_out):
        temporary = gguf_out.with_name(f".{gguf_out.name}.tmp")
        writer = GGUFWriter(temporary, base.architecture)
        writer.add_type("adapter")
        writer.add_name(ADAPTER_NAME)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for (layer, module, side), array in sorted(tensors.items()):
            name = _GGUF_NAMES[module]
            rows = _to_llama_cpp(array, _rotated_heads(base, name)) if side == "b" else array
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{side}", np.ascontiguousarray(rows))
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            check_adapter(temporary, base_gguf)
            os.replace(temporary, gguf_out)
        finally:
            writer.close()
            temporary.unlink(missing_ok=True)


def to_peft(gguf: Path, folder: Path, base_gguf: Path) -> None:
    """Write a GGUF adapter for the model in ``base_gguf`` as a PEFT folder, the inverse of ``to_gguf``.

    Raises BadFile when the adapter is damaged or does not fit the model; NoSpace; MissingExtra.
    """
    require_learn()
    from peft import LoraConfig
    from safetensors.numpy import save_file

    base = read_header(base_gguf)
    header = check_adapter(gguf, base_gguf)
    tensors: dict[str, Array] = {}
    ranks = set()
    modules = set()
    for key in header.tensors:
        layer, name, side = _gguf_key(header, key)
        array = read_tensor(header, key)
        if side == "b":
            array = _from_llama_cpp(array, _rotated_heads(base, name))
        ranks.add(array.shape[0] if side == "a" else array.shape[1])
        modules.add(_PEFT_NAMES[name].partition(".")[2])
        prefix = f"base_model.model.model.layers.{layer}.{_PEFT_NAMES[name]}"
        tensors[f"{prefix}.lora_{side.upper()}.weight"] = np.ascontiguousarray(array)
    if len(ranks) != 1:
        raise BadFile(f"{gguf} mixes the ranks {sorted(ranks)}: only adapters of one rank can be converted.")
    alpha = header.number("adapter.lora.alpha")
    config = LoraConfig(
        r=ranks.pop(),
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=0.0,
        target_modules=sorted(modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_gguf.stem,
        inference_mode=True,
    )
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        config.save_pretrained(folder)


def check_lora(gguf: Path, architecture: str) -> Header:
    """Return the header of a whole GGUF LoRA for models of ``architecture``. Raises BadFile.

    llama.cpp reports most damage as a failed load, but a value of an unexpected type makes it abort, and the service
    with it; so files are looked through before it gets them. Whether the shapes fit the model it reports without harm:
    ``check_adapter`` says more of that. Needs neither torch nor the ``gguf`` package.
    """
    header = read_header(gguf)
    if header.text("general.type") != "adapter" or header.text("adapter.type") != "lora":
        raise BadFile(f"{gguf} is not a LoRA adapter.")
    if header.architecture != architecture:
        raise BadFile(
            f"{gguf} is not for this model: its architecture is {header.architecture} and the model's {architecture}. "
            "Use the model that it was trained on."
        )
    key = "adapter.lora.alpha"
    if header.types.get(key) != FLOAT32 or not math.isfinite(header.number(key)):
        raise BadFile(f"{gguf} has no usable adapter.lora.alpha.")
    if not header.tensors:
        raise BadFile(f"{gguf} holds no tensors.")
    for name, info in header.tensors.items():
        if info.type not in _TYPES or len(info.shape) != 2 or 0 in info.shape:
            raise BadFile(f"{gguf} is damaged: {name} has type {info.type} and shape {info.shape}.")
    return header


def check_adapter(gguf: Path, base_gguf: Path) -> Header:
    """Return a GGUF adapter's header once it is whole and fits the model in ``base_gguf``. Raises BadFile."""
    base = read_header(base_gguf)
    header = check_lora(gguf, base.architecture)
    for name in header.tensors:
        target = name.rpartition(".lora_")[0]
        a, b = header.tensors.get(f"{target}.lora_a"), header.tensors.get(f"{target}.lora_b")
        weight = base.tensors.get(target)
        if a is None or b is None or weight is None:
            raise BadFile(f"{gguf} has {name}, which has no counterpart in {base_gguf.name} or in the adapter itself.")
        if len(weight.shape) != 2 or a.shape[0] != weight.shape[0] or b.shape[1:] != weight.shape[1:]:
            raise BadFile(f"{gguf} does not fit {base_gguf.name}: {name} has another width than {target}.")
        if a.shape[1] != b.shape[0]:
            raise BadFile(f"{gguf} is damaged: the two halves of {target} have different ranks.")
    return header


def _read_peft(folder: Path) -> tuple[dict[tuple[int, str, str], Array], float]:
    """Return a PEFT folder's matrices by (layer, module, "a" or "b"), and its alpha."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        loaded: Mapping[str, Array] = load_file(folder / "adapter_model.safetensors")
        alpha = float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadFile(f"{folder} is not a readable PEFT adapter ({error}).") from error
    extras = [key for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern") if config.get(key)]
    if config.get("peft_type") != "LORA" or extras:
        raise BadFile(f"{folder} is not a plain LoRA ({', '.join(extras) or config.get('peft_type')}).")
    tensors = {}
    for key, array in loaded.items():
        match = _PEFT_KEY.fullmatch(key)
        if not match or match[2] not in _GGUF_NAMES:
            raise BadFile(f"{folder} adapts {key}, which cannot be served: adapt only the seven projections.")
        if not np.isfinite(array).all():
            raise BadFile(f"{folder} holds values in {key} that are not finite numbers.")
        tensors[int(match[1]), match[2], match[3].lower()] = array.astype(np.float32)
    return tensors, alpha


def _gguf_key(header: Header, key: str) -> tuple[int, str, str]:
    match = _GGUF_KEY.fullmatch(key)
    if not match or match[2] not in _PEFT_NAMES:
        raise BadFile(f"{header.path} adapts {key}, which PEFT cannot hold: only the seven projections are known.")
    return int(match[1]), match[2], match[3]


def _rotated_heads(base: Header, name: str) -> int:
    """Return how many heads of a projection are reordered: 0 when GGUF keeps transformers' order."""
    if base.architecture != "llama" or name not in ("attn_q", "attn_k"):
        return 0
    heads = base.number("llama.attention.head_count")
    return int(heads if name == "attn_q" else base.number("llama.attention.head_count_kv", heads))


def _to_llama_cpp(rows: Array, heads: int) -> Array:
    if not heads:
        return rows
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _from_llama_cpp(rows: Array, heads: int) -> Array:
    if not heads:
        return rows
    return rows.reshape(heads, len(rows) // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
