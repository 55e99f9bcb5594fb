"""What this folder's tests share: plain llama.cpp to measure against, small random adapters, and running services."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from gguf import GGUFWriter
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray
from openai import OpenAI

from familiar.adapters.gguf_file import read_header
from familiar.daemon import llama, server, settings, state
from familiar.daemon.engine import Engine, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Model
from familiar.daemon.oracle import Oracle
from familiar.daemon.state import State
from familiar.memory.store import Store

WriteLora = Callable[..., Path]


class PlainLlama:
    """llama.cpp's C API called as its own simplest example does: one sequence, one context, at most one adapter."""

    def __init__(self, path: Path, adapter: Path | None = None, *, flash: bool = False) -> None:
        loading = c.llama_model_default_params()
        loading.use_extra_bufts = llama._may_repack(path)  # another layout of the weights is another order of sums
        self.model = c.llama_model_load_from_file(os.fsencode(path), loading)
        params = c.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = c.llama_init_from_model(self.model, params)
        self.n_vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        if adapter:
            handle = c.llama_adapter_lora_init(self.model, os.fsencode(adapter))
            handles = (c.llama_adapter_lora_p_ctypes * 1)(handle)
            assert c.llama_set_adapters_lora(self.context, handles, 1, (ctypes.c_float * 1)(1.0)) == 0

    def feed(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Evaluate more tokens, 512 at a time; return the logits after the last."""
        for at in range(0, len(ids), 512):
            piece = (c.llama_token * len(ids[at : at + 512]))(*ids[at : at + 512])
            assert c.llama_decode(self.context, c.llama_batch_get_one(piece, len(piece))) == 0
        pointer = c.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,)).copy()

    def close(self) -> None:
        c.llama_free(self.context)
        c.llama_model_free(self.model)


@pytest.fixture
def plain(model_path: Path) -> Iterator[Callable[..., PlainLlama]]:
    """Open plain llama.cpp on the built-in model, as often as wanted: ``plain(adapter=None, flash=False)``."""
    opened: list[PlainLlama] = []

    def open_plain(adapter: Path | None = None, *, flash: bool = False) -> PlainLlama:
        opened.append(PlainLlama(model_path, adapter, flash=flash))
        return opened[-1]

    yield open_plain
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[Model]:
    """The built-in model, loaded."""
    loaded = Model(model_path)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def oracle(model_path: Path) -> Iterator[Oracle]:
    """The built-in model, as the learner asks it."""
    with Oracle.open(model_path, threads=1) as opened:
        yield opened


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    """An empty store, in the data folder."""
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def endless(model: Model) -> Sampling:
    """Greedy, and never choosing a token that ends the reply: it runs until the context is full."""
    ends = [token for token in range(model.vocab.size) if model.vocab.ends_generation(token)]
    return Sampling(temperature=0, logit_bias=tuple((token, -1000.0) for token in ends))


@pytest.fixture
def write_lora(model_path: Path, tmp_path: Path) -> WriteLora:
    """Write a random adapter for the built-in model; ``width`` makes it one for another model."""

    def write(
        name: str, *, seed: int = 0, strength: float = 1.0, width: int | None = None, architecture: str | None = None
    ) -> Path:
        header, path = read_header(model_path), tmp_path / name
        rank, rng = 4, np.random.default_rng(seed)
        writer = GGUFWriter(path, architecture or header.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(rank))
        for tensor in header.tensors.values():
            if tensor.name.endswith(("attn_v.weight", "ffn_down.weight")):
                inner, outer = tensor.shape
                a = rng.normal(size=(rank, width or inner)) / np.sqrt(inner)
                b = rng.normal(size=(outer, rank)) * strength
                writer.add_tensor(tensor.name + ".lora_a", a.astype(np.float32))
                writer.add_tensor(tensor.name + ".lora_b", b.astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@dataclass(frozen=True)
class Service:
    """A service on a real socket: its address without ``/v1``, its parts, and clients of it."""

    url: str
    parts: State
    http: httpx.Client
    openai: OpenAI
    stop: Callable[[], None]


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    """The built-in model with four slots, for tests that only ask it things."""
    with Engine.open(model_path, EngineOptions(slots=4, threads=1)) as opened:
        yield opened


@contextmanager
def _serve(data_dir: Path, engine: Engine, grace_s: float = server.GRACE_S, **flags: object) -> Iterator[Service]:
    """Serve ``engine`` over a store in ``data_dir`` on a free port; the engine stays open at the end."""
    chosen = settings.load({"data_dir": data_dir, **flags}, {})
    store = Store.open(chosen.database)
    parts = state.make(chosen, store, engine)
    web = server.build_server(parts, grace_s)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=web.run, args=([listener],))
        thread.start()

        def stop() -> None:
            web.should_exit = True
            thread.join()

        try:
            with (
                httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
                OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as openai,
            ):
                yield Service(url, parts, http, openai, stop)
        finally:
            stop()
            parts.preparation.close()
            parts.workers.shutdown()
            parts.identify.close()
            store.close()


@pytest.fixture(scope="session")
def serve() -> Callable[..., object]:
    """``with serve(data_dir, engine, **settings) as service:`` runs a service for a block."""
    return _serve


@pytest.fixture
def service(data_dir: Path, engine: Engine) -> Iterator[Service]:
    """A service with an empty store."""
    with _serve(data_dir, engine) as running:
        yield running
