"""What the engine has done since it was opened, for ``/metrics`` and ``/v1/status``."""

from dataclasses import dataclass


@dataclass
class Counters:
    """Totals, written by the engine's thread alone. Prompt tokens include the cached ones, which were not evaluated."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    decoded_batches: int = 0
    adapter_swaps: int = 0


@dataclass(frozen=True)
class EngineStats:
    """The engine at one moment: totals, and how many requests wait, how many run in how many slots."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    decoded_batches: int
    adapter_swaps: int
    waiting: int
    running: int
    slots: int
    adapters_loaded: int
