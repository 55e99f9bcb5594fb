"""Reference log-probabilities, which a run computes once per row and the store keeps for the next run."""

from collections.abc import MutableMapping

from familiar.adapters.protocols import Progress, ProgressCallback
from familiar.memory.store import Store


def storing(
    store: Store, base_sha256: str, references: MutableMapping[str, float], told: ProgressCallback
) -> ProgressCallback:
    """Return ``told`` with what is new in ``references`` stored before it, from the first step of training on."""
    stored = set(references)

    def progress(made: Progress) -> None:
        new = {key: value for key, value in references.items() if key not in stored}
        if new and made.phase != "reference":
            store.cache_logps(base_sha256, new)
            stored.update(new)
        told(made)

    return progress
