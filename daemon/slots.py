"""The engine's places for sequences, and what is left in each for the next turn of the same conversation. Pure.

A slot's cache was computed under one adapter, for one user: it is reused only for both the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.generation import Chunk, Generation, TokenLogprob
from familiar.daemon.sampling import Sampler, Sampling
from familiar.daemon.text_stream import TextStream

_COPY_MIN_TOKENS, _COPY_MIN_SHARE = 32, 64


def least_worth_copying(context_tokens: int) -> int:
    """How long a beginning must be, in tokens, to be copied from another slot rather than computed anew.

    llama.cpp copies a slot's whole memory, however little of it is filled: with 0.6 B parameters and 8,192 tokens that
    is a gigabyte, which takes as long as computing some 50 tokens.
    """
    return max(_COPY_MIN_TOKENS, context_tokens // _COPY_MIN_SHARE)


@dataclass(frozen=True)
class Owner:
    """Whose cache it is. An empty ``cache_key`` is nobody's: such a cache is never reused."""

    adapter: AdapterKey | None
    cache_key: str


class Family:
    """The choices of one request (``n``): they begin alike, so the prompt is evaluated for the first and then copied.

    Alone in its family, a request is simply itself.
    """


@dataclass(frozen=True)
class Request:
    """What was asked of the engine. ``exact`` runs alone and reuses nothing (see ``engine``).

    ``whole``: nobody reads along, so the text is handed over at the end.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    owner: Owner
    generation: Generation
    exact: bool = False
    whole: bool = False
    family: Family = field(default_factory=Family)

    @property
    def group(self) -> "Group":
        """What may be evaluated in one batch: requests of the same adapter; an exact one only by itself."""
        return (self.owner.adapter, id(self) if self.exact else 0)


Group = tuple[AdapterKey | None, int]


@dataclass
class Job:
    """A request being answered: ``pending`` are the tokens still to be evaluated (prompt, or the one just chosen).

    ``shown`` are the control tokens that are left in its text. ``held`` are the logprobs of tokens whose text is not
    out yet, each with the reply's length in bytes before it. ``unsaid`` is what a whole reply has so far.
    """

    request: Request
    sampler: Sampler
    pending: list[int]
    turn: int
    shown: frozenset[int] = frozenset()
    stream: TextStream = field(init=False)
    restarted: bool = False
    held: list[tuple[int, TokenLogprob]] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    unsaid: list[Chunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stream = TextStream(self.request.sampling.stop)

    @property
    def in_prompt(self) -> bool:
        """Whether the prompt is still being evaluated."""
        return self.request.generation.completion_tokens == 0


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
        if not self.holds_cache or self.owner != request.owner or request.exact or request.sampling.prompt_logprobs:
            return 0
        return common_prefix(self.tokens, request.prompt[:-1])


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    length = min(len(left), len(right))
    if left[:length] == list(right[:length]):
        return length
    return next(i for i in range(length) if left[i] != right[i])


@dataclass(frozen=True)
class Place:
    """Where a request goes: ``kept`` tokens of its prompt are there, or are copied there from slot ``donor`` first."""

    slot: Slot
    kept: int
    donor: Slot | None = None


def choose(slots: Sequence[Slot], request: Request, copy_min_tokens: int) -> Place:
    """Return the place for a request, given that some slot is free.

    That is the free slot that holds most of the prompt, if the prompt is there whole or goes on from at least half of
    what is there; a short common beginning (a shared system message) does not cost another conversation its cache.
    Otherwise it is a slot that holds nothing reusable, then one that has long been idle; what another slot holds of the
    prompt, running or not, is copied there.
    """
    free = [slot for slot in slots if not slot.job]
    best = max(free, key=lambda slot: slot.reusable(request))
    kept = best.reusable(request)
    if kept and (kept == len(request.prompt) - 1 or 2 * kept >= len(best.tokens)):
        return Place(best, kept)
    target = _least_useful(free, {slot.id for slot in slots if slot.job})
    donor = max(slots, key=lambda slot: slot.reusable(request))
    copied = donor.reusable(request)
    if donor is not target and copied >= copy_min_tokens and copied > target.reusable(request):
        return Place(target, copied, donor)
    return Place(target, target.reusable(request))


def _least_useful(free: Sequence[Slot], running: Collection[int]) -> Slot:
    """The slot to overwrite: an empty one, else one of the longer idle half.

    Of these, one beside a running slot: llama.cpp evaluates neighbours together, others in separate passes.
    """
    empty = [slot for slot in free if not slot.holds_cache]
    idle = sorted(free, key=lambda slot: (slot.last_used, slot.id))
    candidates = empty or idle[: (len(idle) + 1) // 2]
    beside = [slot for slot in candidates if slot.id - 1 in running or slot.id + 1 in running]
    return (beside or candidates)[0]
