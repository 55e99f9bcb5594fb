"""Embeddings on the engine's thread, beside replies."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.daemon.embedder import embedder_name
from familiar.daemon.engine import Engine, EngineClosed, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Model
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

ROUNDING = 2e-3  # of a vector of length 1: sums are taken in another order in batches of another shape
TEXTS = ["a", "The tea is ready.", "Owls fly by night. " * 20, "Rivers run to the sea. " * 60]


def alike(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    return float(np.linalg.norm(left - right)) < ROUNDING


def test_vectors_do_not_depend_on_what_is_embedded_beside_them(engine: Engine) -> None:
    alone = [engine.embed([text])[0][0] for text in TEXTS]
    texts = TEXTS * 7  # more than are evaluated together, by number and by tokens
    together, tokens = engine.embed(texts)
    assert tokens == sum(engine.count_tokens(text) for text in texts)
    assert all(alike(vector, alone[i % 4]) for i, vector in enumerate(together))
    assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-6) for vector in together)
    assert not any(alike(alone[i], alone[j]) for i in range(4) for j in range(i))
    as_tokens, _ = engine.embed([engine.encode_text(text) for text in TEXTS])
    assert all(alike(vector, other) for vector, other in zip(as_tokens, alone, strict=True))


def test_replies_and_embeddings_go_on_beside_one_another_and_both_end_right(
    engine: Engine, endless: Sampling, write_lora: Callable[..., Path]
) -> None:
    alone = [engine.embed([text])[0][0] for text in TEXTS]
    prompt = engine.encode_prompt([Message(role="user", content="Tell me about rivers.")])
    sampling = Sampling(temperature=0, max_tokens=150, logit_bias=endless.logit_bias)
    expected = engine.generate(prompt, sampling, exact=True).text()
    lora = write_lora("a.gguf", strength=3.0)
    running = engine.generate(prompt, sampling, exact=True)
    chunks = iter(running)
    text = next(chunks).text
    adapted = engine.generate(prompt, sampling, adapter=lora)
    before = running.completion_tokens
    with ThreadPoolExecutor(3) as pool:
        for vectors, _ in pool.map(engine.embed, [TEXTS * 3] * 6):
            assert all(alike(vector, alone[i % 4]) for i, vector in enumerate(vectors))
    assert running.completion_tokens > before
    assert text + "".join(chunk.text for chunk in chunks) == expected
    assert adapted.text() not in ("", expected)


def test_inputs_that_cannot_be_embedded_are_named(engine: Engine, model: Model) -> None:
    most = min(model.trained_context_tokens, 2048)
    inputs: dict[str, list[Any]] = {
        r"input\[0\] is 0 tokens": [[]],
        r"input\[1\] is 0 tokens": ["a", ""],
        rf"input\[0\] is {most + 1} tokens but must be 1 to {most}": [[5] * (most + 1)],
        rf"input\[2\] has token {model.vocab.size} but": ["a", "b", [1, model.vocab.size]],
        r"input\[0\] has token -1": [[-1]],
    }
    for message, given in inputs.items():
        with pytest.raises(InvalidInput, match=message) as caught:
            engine.embed(given)
        assert caught.value.param == "input"
    vectors, tokens = engine.embed([[5] * most])
    assert (len(vectors), tokens) == (1, most)
    assert engine.embed([]) == ([], 0)


def test_closing_ends_embeddings_that_wait(model_path: Path) -> None:
    engine = Engine.open(model_path, EngineOptions(slots=1, threads=1))
    engine.embed(["a"])  # the embedder is there
    ended: list[BaseException] = []

    def embed() -> None:
        try:
            engine.embed(TEXTS * 200)
        except EngineClosed as error:
            ended.append(error)

    threads = [threading.Thread(target=embed) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not engine._embeddings:
        threading.Event().wait(0.001)
    engine.close()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(ended) == 3


def test_a_short_text_need_not_wait_for_many_long_ones(engine: Engine) -> None:
    many = ["Owls fly by night. " * 20] * 30
    done = threading.Event()

    def embed_many() -> None:
        engine.embed(many)
        done.set()

    thread = threading.Thread(target=embed_many)
    thread.start()
    while not engine._embeddings:
        threading.Event().wait(0.001)
    for _ in range(5):
        engine.embed(["a"])
    assert not done.is_set()
    thread.join()


def test_the_embedder_is_named_by_its_file(model_path: Path, tmp_path: Path, engine: Engine) -> None:
    assert engine.embedder_name == embedder_name(model_path)
    assert engine.embedder_name.startswith("Familiar Base@")
    assert engine.embedding_dimensions == len(engine.embed(["a"])[0][0])
    data = model_path.read_bytes()
    names = set()
    for file, content in {"same": data, "end": data[:-1] + bytes([data[-1] ^ 1]), "longer": data + b"\0"}.items():
        (tmp_path / file).write_bytes(content)
        names.add(embedder_name(tmp_path / file))
    assert len(names) == 3
    assert engine.embedder_name in names
    (tmp_path / "odd.gguf").write_bytes(b"of another kind")
    assert embedder_name(tmp_path / "odd.gguf").startswith("odd@")


def test_it_is_loaded_in_the_background(model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def warmed() -> None:
        for thread in threading.enumerate():
            if thread.name == "embedder":
                thread.join()

    with Engine.open(model_path, EngineOptions(slots=1, threads=1)) as engine:
        engine.warm_embedder()
        warmed()
        assert engine._embedder is not None
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF")
    with Engine.open(
        model_path, EngineOptions(slots=1, threads=1), embedding_model=tmp_path / "damaged.gguf"
    ) as engine:
        engine.warm_embedder()
        warmed()
        assert "damaged.gguf could not be loaded" in caplog.text
        with pytest.raises(BadFile, match="could not be loaded"):
            engine.embed(["a"])
    engine = Engine.open(model_path, EngineOptions(slots=1, threads=1))
    engine.warm_embedder()
    engine.close()
    warmed()
