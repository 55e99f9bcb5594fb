"""The engine's places for sequences, and what is left in each for the next turn of the same conversation. Pure.

A slot's cache was computed under one adapter, for one user: it is reused only for both the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.generation import Generation
from familiar.daemon.sampling import Sampler, Sampling
from familiar.daemon.text_stream import TextStream


@dataclass(frozen=True)
class Owner:
    """Whose cache it is. An empty ``cache_key`` is nobody's: such a cache is never reused."""

    adapter: AdapterKey | None
    cache_key: str


@dataclass(frozen=True)
class Request:
    """What was asked of the engine."""

    prompt: tuple[int, ...]
    sampling: Sampling
    owner: Owner
    generation: Generation


@dataclass
class Job:
    """A request being answered: ``pending`` are the tokens still to be evaluated (prompt, or the one just chosen)."""

    request: Request
    sampler: Sampler
    pending: list[int]
    turn: int
    stream: TextStream = field(init=False)
    produced: int = 0
    restarted: bool = False

    def __post_init__(self) -> None:
        self.stream = TextStream(self.request.sampling.stop)


@dataclass
class Slot:
    """A place for one sequence: ``tokens`` are in its key-value cache, computed for ``owner``."""

    id: int
    tokens: list[int] = field(default_factory=list)
    owner: Owner | None = None
    job: Job | None = None
    last_used: int = 0

    @property
    def holds_cache(self) -> bool:
        """Whether a later request could reuse what is here."""
        return bool(self.tokens and self.owner and self.owner.cache_key)

    def reusable(self, request: Request) -> int:
        """Return how many tokens of the request's prompt are in the cache already.

        The prompt's last token is always evaluated anew, since the logits after it are needed.
        """
        if not self.holds_cache or self.owner != request.owner:
            return 0
        return common_prefix(self.tokens, request.prompt[:-1])


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    length = min(len(left), len(right))
    return next((i for i in range(length) if left[i] != right[i]), length)


def choose(free: Sequence[Slot], request: Request) -> tuple[Slot, int]:
    """Return the free slot for a request and how many of its tokens to keep.

    That is the slot that holds most of the prompt, if the prompt is there whole or goes on from at least half of what
    is there; a short common beginning (a shared system message) does not cost another conversation its cache. Otherwise
    it is a slot that holds nothing reusable, then the one that has been idle longest.
    """
    best = max(free, key=lambda slot: slot.reusable(request))
    kept = best.reusable(request)
    if kept and (kept == len(request.prompt) - 1 or 2 * kept >= len(best.tokens)):
        return best, kept
    oldest = min(free, key=lambda slot: (slot.last_used if slot.holds_cache else -1, slot.id))
    return oldest, oldest.reusable(request)
