"""Parts for the adapters' tests: a tiny Llama with random weights, the built-in model in torch and in llama.cpp."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from familiar.adapters import base_model, lora
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded

Logits = Callable[[Path | None, Sequence[int]], NDArray[np.float32]]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads only wait for one another on models this small, and for whatever else the machine is doing."""
    torch.set_num_threads(1)


TinyModel = Callable[..., PreTrainedModel]


@pytest.fixture(scope="session")
def tiny_model() -> TinyModel:
    """``tiny_model(config_class, **more)``: a two-layer model in float64 with random weights, its KV heads shared."""

    def make(kind: type[PreTrainedConfig] = LlamaConfig, **more: object) -> PreTrainedModel:
        shape: dict[str, object] = {
            "vocab_size": 64,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
            "tie_word_embeddings": True,
        }
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**(shape | more))).double().eval()
        model.requires_grad_(False)
        return model

    return make


@pytest.fixture
def tiny(tiny_model: TinyModel) -> PreTrainedModel:
    """A two-layer Llama in float64 with random weights, so that equal sums are equal to many digits."""
    return tiny_model()


@pytest.fixture
def rows() -> list[Encoded]:
    """Nine rows of different lengths; every third has no rejected reply."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(1, 64, length))

    return [Encoded(f"row-{i}", ids(3 + i), ids(2 + i % 4), None if i % 3 == 2 else ids(1 + i % 5)) for i in range(9)]


@pytest.fixture(scope="session")
def base(model_path: Path) -> PreTrainedModel:
    """The built-in model as torch has it. Shared: give it back as it was."""
    return base_model.load(model_path)


@pytest.fixture(scope="session")
def random_adapter(base: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT folder with a large random LoRA on all seven projections of the built-in model."""
    folder = tmp_path_factory.mktemp("random-adapter")
    with lora.new_adapter(base, Recipe(rank=4, alpha=12)) as model:
        generator = torch.Generator().manual_seed(2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05, generator=generator)
        lora.write(model, folder)
    return folder


@pytest.fixture(scope="session")
def served_logits(model_path: Path) -> Iterator[Logits]:
    """Logits (T, V) of llama.cpp for token ids, on one live context, with an adapter file or with none."""
    model = llama_cpp.Llama(str(model_path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    loaded: dict[Path, ctypes.c_void_p] = {}

    def logits(adapter: Path | None, ids: Sequence[int]) -> NDArray[np.float32]:
        if adapter is not None and adapter not in loaded:
            loaded[adapter] = llama_cpp.llama_adapter_lora_init(model._model.model, str(adapter).encode())
            assert loaded[adapter]
        chosen = [loaded[adapter]] if adapter is not None else []
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * len(chosen))(*chosen)
        scales = (ctypes.c_float * len(chosen))(*[1.0] * len(chosen))
        assert llama_cpp.llama_set_adapters_lora(model.ctx, pointers, len(chosen), scales) == 0
        model.reset()
        model.eval(list(ids))
        return np.array(model.scores[: len(ids)], dtype=np.float32)

    yield logits
    model.close()


@pytest.fixture(scope="session")
def token_ids() -> list[int]:
    """Sixty ids of the built-in model's vocabulary, as of a chat of two turns."""
    rng = np.random.default_rng(3)
    return [2, *map(int, rng.integers(5, 4096, 20)), 1, 3, *map(int, rng.integers(5, 4096, 36)), 1, 4]
