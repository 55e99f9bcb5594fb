"""A BERT sentence model as Hugging Face keeps it, written as the GGUF file that llama.cpp embeds with.

Wanted is a folder as sentence-transformers writes it, of a model with lower-cased WordPiece, learned positions, and
vectors that are the mean over the tokens. Needs numpy and ``gguf``, not torch. What is left out: every other kind of
BERT (cased, rotary, pooled by its first token), which is refused.

Matrices become float16, the rest stays float32. Q8_0 is half the size, but llama.cpp multiplies it by instructions that
end the process where it was built for another processor, and nobody has asked for this model by name.

Sources: Devlin et al. 2018 for the layers; ggml's docs/gguf.md and gguf's own table of names for the file.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from familiar.daemon.gguf_shape import add_shape
from familiar.memory.errors import BadFile

if TYPE_CHECKING:
    from gguf import GGUFWriter

WEIGHTS, VOCABULARY, CONFIG = "model.safetensors", "vocab.txt", "config.json"
_POOLING, _TOKENIZER = "1_Pooling/config.json", "tokenizer_config.json"
FILES = (WEIGHTS, VOCABULARY, CONFIG, _POOLING, _TOKENIZER)
"""What of the folder is read."""
_FIRST, _LAST, _PADDING, _UNKNOWN, _MASK = _SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
_WORD_BEGINS = "\u2581"
"""Before every piece that begins a word: llama.cpp marks beginnings where BERT marks what goes on, by ``##``."""
_MOST_HEADER_BYTES = 10_000_000


@dataclass(frozen=True)
class Config:
    """The numbers of a BERT model: ``layers`` blocks of width ``width``, with ``heads`` heads each."""

    layers: int
    width: int
    heads: int
    ffn: int
    positions: int
    vocabulary: int
    segments: int
    norm_epsilon: float


def convert(source: Path, target: Path, *, name: str, license: str) -> None:
    """Write the model in the folder ``source`` to the file ``target``, as ``general.name`` ``name``.

    Raises BadFile when a file of the folder is missing or is not what it should be; ``target`` may then hold a part.
    """
    from gguf import GGUFWriter

    config = _read_config(source)
    pieces = _read_vocabulary(source / VOCABULARY, config.vocabulary)
    weights = _Weights(source / WEIGHTS)
    writer = GGUFWriter(target, "bert")
    try:
        writer.add_name(name)
        writer.add_license(license)
        _add_config(writer, config)
        _add_vocabulary(writer, pieces, config.segments)
        for tensor, found, shape in _tensors(config):
            writer.add_tensor(tensor, _typed(tensor, weights.read(found, shape)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _read_config(source: Path) -> Config:
    """The folder's configuration, once it is seen to be of the one kind of model that this module writes."""
    config, pooling, tokenizer = (_read_json(source / name) for name in (CONFIG, _POOLING, _TOKENIZER))
    wanted = (
        (CONFIG, config, "model_type", "bert"),
        (CONFIG, config, "hidden_act", "gelu"),
        (CONFIG, config, "position_embedding_type", "absolute"),
        (_POOLING, pooling, "pooling_mode_mean_tokens", True),
        (_TOKENIZER, tokenizer, "do_lower_case", True),
    )
    for file, values, key, value in wanted:
        if values.get(key) != value:
            raise BadFile(f"{source / file}: {key} is {values.get(key)!r}, but only {value!r} can be converted.")
    try:
        return Config(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            ffn=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            vocabulary=int(config["vocab_size"]),
            segments=int(config["type_vocab_size"]),
            norm_epsilon=float(config["layer_norm_eps"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{source / CONFIG} is not the configuration of a BERT model ({error!r}).") from error


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} cannot be read ({error}): the model's folder is incomplete or damaged.") from error
    if not isinstance(values, dict):
        raise BadFile(f"{path} is not a JSON object: the model's folder is damaged.")
    return values


def _read_vocabulary(path: Path, size: int) -> list[str]:
    """The vocabulary's pieces, in the order of their ids."""
    try:
        pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} cannot be read ({error}): the model's folder is incomplete or damaged.") from error
    if len(pieces) != size or len(set(pieces)) != size or not set(pieces) >= set(_SPECIAL):
        raise BadFile(
            f"{path} is not this model's vocabulary: {size} different pieces are wanted, among them "
            f"{', '.join(_SPECIAL)}, but it has {len(set(pieces))}."
        )
    return pieces


def _add_config(writer: "GGUFWriter", config: Config) -> None:
    from gguf import LlamaFileType, PoolingType

    add_shape(
        writer, context=config.positions, width=config.width, ffn=config.ffn, layers=config.layers, heads=config.heads
    )
    writer.add_layer_norm_eps(config.norm_epsilon)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)


def _add_vocabulary(writer: "GGUFWriter", pieces: list[str], segments: int) -> None:
    from gguf import TokenType

    kinds = dict.fromkeys(_SPECIAL, TokenType.CONTROL) | {_UNKNOWN: TokenType.UNKNOWN}
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(segments)
    writer.add_token_list([_spelling(piece) for piece in pieces])
    writer.add_token_types([kinds.get(piece, TokenType.NORMAL) for piece in pieces])
    writer.add_bos_token_id(pieces.index(_FIRST))
    writer.add_sep_token_id(pieces.index(_LAST))
    writer.add_pad_token_id(pieces.index(_PADDING))
    writer.add_unk_token_id(pieces.index(_UNKNOWN))
    writer.add_mask_token_id(pieces.index(_MASK))
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(True)


def _spelling(piece: str) -> str:
    """A piece as llama.cpp wants it: what begins a word is marked, what goes on is bare, ``[…]`` stands for itself."""
    if piece.startswith("[") and piece.endswith("]") and len(piece) > 2:
        return piece
    return piece[2:] if piece.startswith("##") and len(piece) > 2 else _WORD_BEGINS + piece


def _tensors(config: Config) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Each tensor's name in the file, its name among the weights, and its shape: ``(out, in)`` for a matrix."""
    d, f = config.width, config.ffn
    for name, found, rows in (
        ("token_embd", "word_embeddings", config.vocabulary),
        ("position_embd", "position_embeddings", config.positions),
        ("token_types", "token_type_embeddings", config.segments),
    ):
        yield f"{name}.weight", f"embeddings.{found}.weight", (rows, d)
    yield from _with_bias("token_embd_norm", "embeddings.LayerNorm", (d,))
    for layer in range(config.layers):
        to, of = f"blk.{layer}", f"encoder.layer.{layer}"
        yield from _with_bias(f"{to}.attn_q", f"{of}.attention.self.query", (d, d))
        yield from _with_bias(f"{to}.attn_k", f"{of}.attention.self.key", (d, d))
        yield from _with_bias(f"{to}.attn_v", f"{of}.attention.self.value", (d, d))
        yield from _with_bias(f"{to}.attn_output", f"{of}.attention.output.dense", (d, d))
        yield from _with_bias(f"{to}.attn_output_norm", f"{of}.attention.output.LayerNorm", (d,))
        yield from _with_bias(f"{to}.ffn_up", f"{of}.intermediate.dense", (f, d))
        yield from _with_bias(f"{to}.ffn_down", f"{of}.output.dense", (d, f))
        yield from _with_bias(f"{to}.layer_output_norm", f"{of}.output.LayerNorm", (d,))


def _with_bias(name: str, found: str, shape: tuple[int, ...]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    yield f"{name}.weight", f"{found}.weight", shape
    yield f"{name}.bias", f"{found}.bias", shape[:1]


def _typed(name: str, values: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.float16]:
    """A tensor's values as they are written. The small tables that are added to every token stay whole."""
    whole = values.ndim == 1 or name.startswith(("position_embd", "token_types"))
    return np.ascontiguousarray(values) if whole else values.astype(np.float16)


class _Weights:
    """The tensors of a safetensors file: eight bytes of length, a header of JSON, and the numbers, little-endian."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(min(length, _MOST_HEADER_BYTES)))
            self._bytes = np.memmap(path, np.uint8, "r", offset=8 + length)
        except (OSError, ValueError, struct.error) as error:
            raise BadFile(f"{path} cannot be read as safetensors ({error}): it is missing or damaged.") from error
        self._header = header if isinstance(header, dict) else {}

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A tensor; raise BadFile where there is none of that name, of this shape, of float32, and whole."""
        entry = self._header.get(name, {})
        try:
            start, end = entry["data_offsets"]
            if entry["dtype"] == "F32" and entry["shape"] == list(shape):
                return self._bytes[start:end].view("<f4").reshape(shape)
        except (KeyError, TypeError, ValueError):
            pass
        raise BadFile(f"{self._path} has no {name} of shape {shape} in float32: it is damaged, or of another model.")
