"""The errors that a user can cause, each with a message that says what is had, what is wanted, and what to do.

One base, so that the API and the terminal each catch one type; each also extends the standard type that it refines.
``daemon/errors.py`` maps them to HTTP. What is left out: programming errors, which stay plain exceptions.
"""


class FamiliarError(Exception):
    """Something that the user can put right; its text is one line for a person."""


class InvalidInput(FamiliarError, ValueError):
    """A value that cannot be used. ``param`` names the field, as in the OpenAI error shape."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotFound(FamiliarError, LookupError):
    """An id that names nothing. ``param`` names the field that held it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BadFile(FamiliarError, ValueError):
    """A model, adapter or database file that cannot be read as what it should be."""


class NotEnoughSignals(FamiliarError, ValueError):
    """Learning was asked for with too few corrections."""


class Busy(FamiliarError, RuntimeError):
    """Another process holds what is needed: the learner's lock, the port."""


class NoSpace(FamiliarError, OSError):
    """The disk is full; what was acknowledged before is safe."""


class MissingExtra(FamiliarError, ImportError):
    """An optional part of the installation is needed, such as ``familiar-llm[learn]``."""


class LearningFailed(FamiliarError, RuntimeError):
    """A learning run that ended without a usable adapter; the served one is untouched."""
