"""Which memories to show the model for a request.

Rules always apply, so all of them are shown that fit. A corrected example is shown only where it matches. Left out:
meaning beyond shared words (embeddings), and how the memories are worded in the prompt.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from familiar.memory.store import Store
from familiar.memory.types import Memory, Message
from familiar.memory.words import content_words, same_text_key, same_words_key, stem, words

MAX_EXAMPLES = 2
MIN_SHARE = 0.4
"""How much of the content words a message and an example's prompt must have in common (Dice, 0 to 1).

BM25 alone cannot be the threshold. Its size depends on the collection: with few memories, or a word in most of them,
FTS5 cuts the weight of a match to about 0, and one shared "the" may outscore a real match in another store. So BM25
ranks, and this share, which means the same in every store, decides. Counting both sides keeps out a long message that
happens to hold an example's one word; 0.4 lets in "Write an email to my boss" for "Write an email to Anna" (two
words of three on both sides: 4/6) and keeps out "Write a poem about cats" (one of three: 2/6).
"""

_CANDIDATES = 50


@dataclass(frozen=True)
class Recalled:
    """What to show, in order, and what it costs by the caller's count."""

    memories: tuple[Memory, ...]
    tokens: int


def recall(
    store: Store,
    user_id: int,
    messages: Sequence[Message],
    *,
    budget_tokens: int,
    count_tokens: Callable[[Memory], int],
) -> Recalled:
    """The memories for a conversation: rules, then up to two examples, within ``budget_tokens``.

    Rules that share a content word with the last user message come first (best first), then the other rules, newest
    first. Examples come best first, and only if they are about the same thing as that message (``MIN_SHARE``). Of
    memories that say the same, or examples with the same prompt, only the newest is shown. A memory that does not fit
    is left out whole, and a later one that fits is still shown.
    """
    message = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")
    chosen: list[Memory] = []
    tokens = 0
    examples = 0
    for memory in (*_rules(store, user_id, message), *_examples(store, user_id, message)):
        if tokens >= budget_tokens or examples == MAX_EXAMPLES:
            break
        cost = count_tokens(memory)
        if tokens + cost > budget_tokens:
            continue
        chosen.append(memory)
        tokens += cost
        examples += memory.kind == "example"
    return Recalled(tuple(chosen), tokens)


def _rules(store: Store, user_id: int, message: str) -> Iterator[Memory]:
    newest = _newest_of_each(store.memories(user_id, "rule"), lambda rule: same_text_key(rule.text))
    matching = store.search_memories(user_id, " ".join(content_words(message)), _CANDIDATES, "rule")
    for rule, _ in matching:
        if newest.pop(rule.id, None):
            yield rule
    yield from reversed(newest.values())


def _examples(store: Store, user_id: int, message: str) -> Iterator[Memory]:
    # All words only where no content word is left, so that "How are you?" still finds its own correction.
    query = " ".join(content_words(message) or words(message))
    found = [example for example, _ in store.search_memories(user_id, query, _CANDIDATES, "example")]
    # Backwards first: the search puts the later one first where the score and the time are equal.
    oldest_first = found[::-1]
    oldest_first.sort(key=lambda example: example.created_at)
    newest = _newest_of_each(oldest_first, lambda example: same_text_key(example.prompt or ""))
    return (example for example in found if example.id in newest and _is_relevant(example, message))


def _newest_of_each(oldest_first: Iterable[Memory], key: Callable[[Memory], str]) -> dict[str, Memory]:
    # By id, oldest first. A later one takes the place, and the age, of an earlier one that says the same.
    latest: dict[str, Memory] = {}
    for memory in oldest_first:
        latest.pop(key(memory), None)
        latest[key(memory)] = memory
    return {memory.id: memory for memory in latest.values()}


def _is_relevant(example: Memory, message: str) -> bool:
    prompt = example.prompt or ""
    if same_words_key(prompt) == same_words_key(message):
        return True
    ours, theirs = ({stem(word) for word in content_words(text)} for text in (message, prompt))
    return 2 * len(ours & theirs) >= MIN_SHARE * (len(ours) + len(theirs)) > 0
