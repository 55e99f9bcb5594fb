"""Write ``memory/everyday_vectors.npz``: what the background texts of recall mean to the default sentence model.

Computing them takes a minute, which a newcomer's first start should not. Run it again when those texts or the model's
conversion change (a test says so); any other embedding model computes its own at its first use.
"""

import numpy as np

from familiar.daemon import embedder, llama, sentence_model, settings
from familiar.memory import meaning
from familiar.memory.vectors import SHIPPED, to_bytes


def main() -> None:
    """Embed the texts and write the file."""
    path = sentence_model.resolve(settings.load({}), print)
    if path is None:
        raise SystemExit("There is no sentence model: `familiar pull minilm` gets it.")
    model = embedder.Embedder(llama.Model(path))
    vectors = np.stack([model.evaluate([model.tokenise(text, cut=True)])[0] for text in meaning.background_texts()])
    with SHIPPED.open("wb") as file:
        np.savez(
            file,
            embedder=np.array(embedder.embedder_name(path)),
            texts_sha256=np.array(meaning.texts_sha256()),
            vectors=to_bytes(vectors),
        )
    print(f"{SHIPPED}: {len(vectors)} vectors, {SHIPPED.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
