"""Make a model of random weights in the shape of Qwen3-0.6B, for measuring speed where no model can be downloaded.

``python benchmarks/random_model.py`` writes ``build/random-qwen3-v1.gguf`` (640 MB, Q8_0) once and prints its path;
``--scale 0.1`` makes a smaller one of the same kind, ``--half`` one of 16-bit floats (1.2 GB), for a llama.cpp
that cannot compute with quantised weights on this processor. It loads in llama.cpp and in transformers
(``gguf_file=``), costs what the real model costs per token, and what it writes is noise. What is left out: sense.

The vocabulary is byte-level BPE of our own: the 256 bytes, then pairs of letters, letters after a space, and words of
three or four letters. The tokens that end a reply have small embeddings, and thus logits near 0 where the best of the
others is well above: a greedy reply never ends by itself.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from numpy.typing import NDArray

from familiar.daemon.gguf_shape import add_shape

BUILD = Path(__file__).resolve().parent.parent / "build"
FORMAT = 1  # in the file's name: raise it when what is written changes

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
HEAD_WIDTH = 128
WEIGHT_STD = 0.02
END_STD = WEIGHT_STD / 100
_UNIFORM_INT8_STD = 127 / np.sqrt(3)
_Q8_0 = np.dtype([("scale", "<f2"), ("values", "i1", 32)])  # ggml's block_q8_0


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen3 model with tied embeddings."""

    layers: int = 28
    width: int = 1024
    heads: int = 16
    kv_heads: int = 8
    ffn: int = 3072
    vocab: int = 151_936
    context: int = 40_960

    @classmethod
    def scaled(cls, scale: float) -> "Shape":
        """Qwen3-0.6B's shape with every size times ``scale``; raise ValueError when it is not above 0, at most 1."""
        if not 0 < scale <= 1:
            raise ValueError(f"scale is {scale} but must be above 0 and at most 1")
        full, kv_heads = cls(), max(1, round(cls.kv_heads * scale))
        return cls(
            layers=max(2, round(full.layers * scale)),
            width=max(64, round(full.width * scale / 32) * 32),
            heads=2 * kv_heads,
            kv_heads=kv_heads,
            ffn=max(64, round(full.ffn * scale / 32) * 32),
            vocab=max(4096, round(full.vocab * scale)),
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape by its name in the file, the slowest dimension first; vectors are norms."""
        found: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab, self.width)}
        for layer in range(self.layers):
            block = {
                "attn_norm": (self.width,),
                "attn_q": (self.heads * HEAD_WIDTH, self.width),
                "attn_k": (self.kv_heads * HEAD_WIDTH, self.width),
                "attn_v": (self.kv_heads * HEAD_WIDTH, self.width),
                "attn_q_norm": (HEAD_WIDTH,),
                "attn_k_norm": (HEAD_WIDTH,),
                "attn_output": (self.width, self.heads * HEAD_WIDTH),
                "ffn_norm": (self.width,),
                "ffn_gate": (self.ffn, self.width),
                "ffn_up": (self.ffn, self.width),
                "ffn_down": (self.width, self.ffn),
            }
            found.update({f"blk.{layer}.{name}.weight": shape for name, shape in block.items()})
        return found | {"output_norm.weight": (self.width,)}


def byte_characters() -> list[str]:
    """The characters that stand for the 256 bytes in byte-level BPE, in GPT-2's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(len(others))]


def vocabulary(size: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """``size`` tokens and the merges that make them; the last three are the control tokens."""
    space = "Ġ"
    pairs = [(a, b) for a, b in itertools.product(ascii_lowercase, repeat=2)]
    syllables = [a + b for a, b in pairs]
    openings = [(space, letter) for letter in ascii_lowercase]
    short = [(space + letter, syllable) for letter in ascii_lowercase for syllable in syllables]
    wanted = size - 3 - 256 - len(pairs) - len(openings) - len(short)
    chosen = rng.choice(len(syllables) ** 2, size=max(0, wanted), replace=False)
    long = [(syllables[n // len(syllables)], syllables[n % len(syllables)]) for n in chosen.tolist()]
    merges = (pairs + openings + short + long)[: size - 3 - 256]
    tokens = byte_characters() + [left + right for left, right in merges] + [END_OF_TEXT, TURN, END_OF_TURN]
    return tokens, [f"{left} {right}" for left, right in merges]


def random_q8_0(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random weights straight as Q8_0 blocks, shape (rows, bytes of a row)."""
    rows, width = shape
    blocks = np.empty((rows, width // 32), _Q8_0)
    blocks["scale"] = WEIGHT_STD / _UNIFORM_INT8_STD
    blocks["values"] = rng.integers(-127, 128, size=(rows, width // 32, 32), dtype=np.int8)
    return blocks.view(np.uint8).reshape(rows, -1)


def random_float16(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float16]:
    """Random weights as 16-bit floats, of the same deviation."""
    weights = np.empty(shape, np.float16)
    for row in weights:  # so that there is never the whole in float32
        row[:] = WEIGHT_STD * rng.standard_normal(shape[1], np.float32)
    return weights


def write(path: Path, shape: Shape, seed: int = 0, *, half: bool = False) -> None:
    """Write the model; one tensor at a time is in memory. The file is whole or absent."""
    rng = np.random.default_rng(seed)
    tokens, merges = vocabulary(shape.vocab, rng)
    end_of_text, end_of_turn = shape.vocab - 3, shape.vocab - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    writer = GGUFWriter(part, "qwen3")
    writer.add_name(path.stem)
    add_shape(writer, context=shape.context, width=shape.width, ffn=shape.ffn, layers=shape.layers, heads=shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(1 if half else 7)  # LLAMA_FTYPE_MOSTLY_F16, LLAMA_FTYPE_MOSTLY_Q8_0
    writer.add_quantization_version(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (shape.vocab - 3) + [TokenType.CONTROL] * 3)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(end_of_turn)
    writer.add_pad_token_id(end_of_text)
    writer.add_bos_token_id(end_of_text)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    shapes = shape.tensors()
    for name, size in shapes.items():
        if len(size) == 1:
            writer.add_tensor_info(name, size, np.dtype(np.float32), size[0] * 4)
        elif half:
            writer.add_tensor_info(name, size, np.dtype(np.float16), size[0] * size[1] * 2)
        else:
            row = size[1] // 32 * _Q8_0.itemsize
            stored = (size[0], row)
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), size[0] * row, GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size in shapes.items():
        if len(size) == 1:
            writer.write_tensor_data(np.ones(size, np.float32))
            continue
        ends = [end_of_text, end_of_turn] if name == "token_embd.weight" else []
        if half:
            weights = random_float16(size, rng)
            weights[ends] *= END_STD / WEIGHT_STD
            writer.write_tensor_data(weights)
            continue
        rows = random_q8_0(size, rng)
        rows.view(_Q8_0)["scale"][ends] = END_STD / _UNIFORM_INT8_STD
        writer.write_tensor_data(rows)
    writer.close()
    part.replace(path)


def ensure(scale: float = 1.0, build: Path = BUILD, *, half: bool = False) -> Path:
    """Return the model's file, made now if it is not there."""
    size = "" if scale == 1 else f"-x{scale:g}"
    path = build / f"random-qwen3{size}{'-f16' if half else ''}-v{FORMAT}.gguf"
    if not path.is_file():
        print(f"writing {path} …", file=sys.stderr, flush=True)
        write(path, Shape.scaled(scale), half=half)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="size of everything, from above 0 to 1")
    parser.add_argument("--half", action="store_true", help="16-bit floats instead of Q8_0")
    args = parser.parse_args()
    print(ensure(args.scale, half=args.half))


if __name__ == "__main__":
    main()
