"""Replies that were served, as rollouts: what graders judge need not have been sampled by the learner.

Who said it is known, an adapter version and the memories beside the request, and so how likely it was. Importance
weights then make up for the difference from the adapter that learns (``policy_losses.grpo_loss``).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from familiar.adapters import registry
from familiar.adapters.protocols import Completion, ProgressCallback
from familiar.daemon.model_ids import DEFAULT
from familiar.daemon.oracle import Oracle
from familiar.daemon.prompt import with_memories
from familiar.daemon.sampling import Sampling
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Message

LOOKED_AT = 500
"""The newest exchanges that are looked through."""
MOST = 64
"""The newest replies that are learnt from."""
TRUNCATING = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens")
"""The knobs under which a reply is still the model's own draw: leaving out unlikely tokens makes the others a little
likelier than they are taken for, which the cap on the weights covers."""


@dataclass(frozen=True)
class _Served:
    """A reply to the prompt of this number, the request with what was shown, and what it was drawn by."""

    number: int
    told: tuple[Message, ...]
    reply: str
    tokens: tuple[int, int]
    """Of the prompt and of the reply, as it was served."""
    adapter: Path | None
    temperature: float


def rollouts(
    store: Store,
    data_dir: Path,
    user_id: int,
    base_sha256: str,
    prompts: Sequence[Sequence[Message]],
    oracle: Oracle,
    progress: ProgressCallback,
) -> dict[int, tuple[Completion, ...]]:
    """The replies that were served to each of ``prompts``, by its number, newest first.

    Left out are those that were not drawn from the model as it is (greedy ones, and those under a grammar, a bias or
    penalties), those that did not end by themselves or are too long to be scored, and those whose adapter or prompt is
    not what it was any more.
    """
    found = _served(store, data_dir, user_id, base_sha256, prompts)[:MOST]
    drawn_alike: dict[tuple[Path | None, float], list[_Served]] = defaultdict(list)
    for each in found:
        drawn_alike[each.adapter, each.temperature].append(each)
    replies: dict[int, list[Completion]] = defaultdict(list)
    for (adapter, temperature), those in drawn_alike.items():
        rows = []
        for each in those:
            prompt_ids, ids = oracle.encode(each.told, each.reply)
            fits = len(prompt_ids) + len(ids) <= oracle.scorer.context_tokens
            if fits and (len(prompt_ids), len(ids) - 1) == each.tokens:
                rows.append((each, ids))
        judged = [(each.told, ids) for each, ids in rows]
        tops = oracle.top_logps(adapter, judged, 1, progress, temperature=temperature)
        for (each, ids), top in zip(rows, tops, strict=True):
            logps = tuple(map(float, top.picked_T))
            replies[each.number].append(Completion(tuple(ids), logps, each.reply, "stop"))
    return {number: tuple(each) for number, each in replies.items()}


def _served(
    store: Store, data_dir: Path, user_id: int, base_sha256: str, prompts: Sequence[Sequence[Message]]
) -> list[_Served]:
    numbers = {json.dumps(list(messages)): number for number, messages in enumerate(prompts)}
    versions = {version.number: version for version in store.versions(user_id)}
    # An exchange does not say which base model it was served on.
    is_one_base = all(version.base_sha256 == base_sha256 for version in versions.values())
    memories = {memory.id: memory for memory in store.memories(user_id)}
    files: dict[int, Path | None] = {}
    found = []
    for exchange in store.exchanges(user_id, limit=LOOKED_AT):
        number = numbers.get(json.dumps(list(exchange.messages)))
        temperature = _temperature(exchange)
        if number is None or temperature is None or exchange.model.partition(":")[0] != DEFAULT:
            continue
        shown = [memories[id] for id in exchange.memory_ids if id in memories]
        if len(shown) < len(exchange.memory_ids) or any(each.created_at > exchange.created_at for each in shown):
            continue
        version = exchange.adapter_version
        if version is not None and version not in files:
            files[version] = _file(versions.get(version), data_dir, base_sha256)
        adapter = None if version is None else files[version]
        if adapter or (version is None and is_one_base):
            told = tuple(with_memories(exchange.messages, shown))
            tokens = (exchange.prompt_tokens, exchange.completion_tokens)
            found.append(_Served(number, told, exchange.completion, tokens, adapter, temperature))
    return found


def _temperature(exchange: Exchange) -> float | None:
    """The temperature that a reply was drawn at; None where it is not the model's own draw, or not whole."""
    knobs = {name: value for name, value in exchange.sampling.items() if name not in TRUNCATING}
    plain = all(value in (None, getattr(Sampling(), name, None)) for name, value in knobs.items())
    temperature = exchange.sampling.get("temperature", Sampling().temperature)
    if not plain or exchange.finish_reason != "stop" or not exchange.completion.strip():
        return None
    return float(temperature) if isinstance(temperature, int | float) and temperature > 0 else None


def _file(version: AdapterVersion | None, data_dir: Path, base_sha256: str) -> Path | None:
    """A version's adapter, if it is of this base model and whole."""
    return registry.usable(data_dir, version) if version and version.base_sha256 == base_sha256 else None
