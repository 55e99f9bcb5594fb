"""The generated curriculum: conversations in which what the prompt states decides what a good reply is.

``sample_conversation(rng)`` draws one for training. ``dialogs`` puts them together from ``content`` (everyday topics),
``preferences`` (stated wishes, each with a checker; their patterns of ``wordings``), ``manners`` (random words and marks
to write in), ``facts``, ``claims`` and ``pools`` (names, words, the training/evaluation split). ``evaluate.py`` measures a model on the held-out side of the same pieces.
"""

from .dialogs import sample_conversation

__all__ = ["sample_conversation"]
