"""Replies that were served, as rollouts: which of them count, and that it is known how likely they were."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.adapters.protocols import Completion, Draw, silent
from familiar.daemon import learner_served
from familiar.daemon.oracle import Oracle
from familiar.daemon.prompt import with_memories
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, LearningRun, Memory, Message, Used, asked

BASE = "b" * 64
PROMPTS = [asked("How do I make tea?"), asked("How can I sleep better?")]
RULE = "Be very brief."
WARM = 0.7
"""The temperature that replies are served at where the client names none."""


def rollouts(store: Store, data_dir: Path, oracle: Oracle) -> dict[int, tuple[Completion, ...]]:
    user = store.default_user()
    return learner_served.rollouts(store, data_dir, user, BASE, PROMPTS, oracle, silent)


def served(
    store: Store,
    oracle: Oracle,
    prompt: tuple[Message, ...],
    *shown: Memory,
    adapter: Path | None = None,
    seed: int = 0,
    **fields: Any,
) -> Completion:
    """Draw a reply as the service does, and log it."""
    told = with_memories(prompt, shown)
    how = Draw(group=32, max_tokens=96, temperature=WARM, seed=seed)
    (replies,) = oracle.sample(adapter, [told], how)
    reply = next(each for each in replies if each.finish_reason == "stop" and _reads_alike(oracle, each))
    exchange = Exchange(
        f"chatcmpl-{seed}",
        store.default_user(),
        10.0 + seed,
        "familiar",
        prompt,
        reply.text,
        used=tuple(Used(memory.id, "always") for memory in shown),
        prompt_tokens=len(oracle.encode(told, "")[0]),
        completion_tokens=len(reply.ids) - 1,
    )
    store.add_exchange(replace(exchange, **fields))
    return reply


def _reads_alike(oracle: Oracle, reply: Completion) -> bool:
    """Whether its text is read as the tokens that were drawn: a text can be spelt in several ways."""
    return tuple(oracle.encode((), reply.text)[1]) == reply.ids if reply.text.strip() else False


@pytest.fixture
def rule(store: Store) -> Memory:
    return store.put_memory(Memory("mem-1", store.default_user(), 1.0, "rule", RULE), 1.0)


def test_it_is_known_how_likely_a_served_reply_was(store: Store, data_dir: Path, oracle: Oracle, rule: Memory) -> None:
    plain = served(store, oracle, PROMPTS[0], seed=1)
    told = served(store, oracle, PROMPTS[1], rule, seed=2, sampling={"temperature": WARM, "top_p": 0.9})
    found = rollouts(store, data_dir, oracle)
    assert sorted(found) == [0, 1]
    for number, drawn in ((0, plain), (1, told)):
        (reply,) = found[number]
        assert reply.ids == drawn.ids
        assert np.allclose(reply.logps, drawn.logps, atol=0.05), "as it was drawn: at its temperature, told what it was"


def test_one_of_an_adapter_is_scored_under_that_adapter(
    store: Store, data_dir: Path, oracle: Oracle, write_lora: Callable[..., Path], tmp_path: Path
) -> None:
    version = promoted(store, data_dir, write_lora, tmp_path)
    gguf = data_dir / version.folder / registry.GGUF
    drawn = served(store, oracle, PROMPTS[0], adapter=gguf, seed=3, adapter_version=version.number)
    ((reply,),) = rollouts(store, data_dir, oracle).values()
    assert np.allclose(reply.logps, drawn.logps, atol=0.05)
    (plain,) = oracle.top_logps(None, [(PROMPTS[0], drawn.ids)], 1, temperature=WARM)
    assert not np.allclose(plain.picked_T, drawn.logps, atol=0.05), "the base model alone would have said it otherwise"
    gguf.write_bytes(b"damaged")
    assert rollouts(store, data_dir, oracle) == {}


def promoted(store: Store, data_dir: Path, write_lora: Callable[..., Path], folder: Path) -> AdapterVersion:
    run = LearningRun("run-1", store.default_user(), 1.0, "running", {}, "fingerprint")
    store.add_run(run)
    write_lora(registry.GGUF, seed=1, strength=0.2)
    for name in registry.PEFT_FILES:
        (folder / name).write_text("{}")
    return registry.promote(
        store, data_dir, run, folder, base_sha256=BASE, feedback_ids=[], report=Report(True, ()), now=2.0
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": {"temperature": 0}},
        {"sampling": {"repeat_penalty": 1.2}},
        {"sampling": {"logit_bias": "[[5, 1.0]]"}},
        {"sampling": {"stop": '["."]'}},
        {"finish_reason": "length"},
        {"model": "ft:familiar:mine"},
        {"adapter_version": 7},
        {"prompt_tokens": 3},
        {"completion_tokens": 3},
        {"messages": asked("What is for supper?")},
    ],
    ids=lambda fields: " ".join(fields.get("sampling", fields)),
)
def test_what_is_not_the_models_own_whole_draw_is_left_out(
    fields: dict[str, Any], store: Store, data_dir: Path, oracle: Oracle
) -> None:
    served(store, oracle, PROMPTS[0], seed=1, **fields)
    assert rollouts(store, data_dir, oracle) == {}


def test_what_was_said_with_a_memory_that_is_another_now_is_left_out(
    store: Store, data_dir: Path, oracle: Oracle, rule: Memory
) -> None:
    served(store, oracle, PROMPTS[0], rule, seed=1)
    assert list(rollouts(store, data_dir, oracle)) == [0]
    store.edit_memory(store.default_user(), rule.id, 100.0, text="Be very short.")
    assert rollouts(store, data_dir, oracle) == {}
    store.forget(store.default_user(), [rule.id])
    assert rollouts(store, data_dir, oracle) == {}


def test_replies_of_the_base_model_count_as_long_as_there_was_but_one(
    store: Store, data_dir: Path, oracle: Oracle, write_lora: Callable[..., Path], tmp_path: Path
) -> None:
    served(store, oracle, PROMPTS[0], seed=1)
    version = promoted(store, data_dir, write_lora, tmp_path)
    assert list(rollouts(store, data_dir, oracle)) == [0]
    other = learner_served.rollouts(store, data_dir, store.default_user(), "c" * 64, PROMPTS, oracle, silent)
    assert version.base_sha256 != "c" * 64
    assert other == {}, "it may have been said by the model of before"
