"""What a request for a fine-tuning job may hold, and the limits of each value.

As in OpenAI's API; "auto" and null leave a hyperparameter to the service. What is accepted without effect, and what is
refused, says ``docs/fine-tuning.md``.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from familiar.daemon.schemas import Wire, refuse, sorted_out

MAX_EPOCHS = 1000
MAX_BATCH = 256
MAX_METADATA = 16
IGNORED = ("reasoning_effort",)
"""Hyperparameters of reinforcement that are accepted and say nothing to a model that does not reason."""

UNSUPPORTED: dict[str, tuple[object, ...]] = {"integrations": ([],)}
"""Refused with an error that names them, unless they are null or one of these values."""

_NO_FORMAT: dict[str, tuple[object, ...]] = {"response_format": ({"type": "text"},)}


def _auto_or(kind: type, low: float, high: float, wanted: str) -> Callable[[object], object]:
    """A validator for "auto" or a number from ``low`` to ``high``."""

    def check(value: object) -> object:
        if value is None or value == "auto":
            return "auto"
        fits = isinstance(value, int | kind) and not isinstance(value, bool)
        if not fits or not low <= value <= high:  # type: ignore[operator] # a number, as just seen
            raise PydanticCustomError("auto", 'Input should be "auto" or {wanted}', {"wanted": wanted})
        return kind(value)

    return check


def _auto_schema(kind: str, low: float, high: float) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": kind, "minimum": low, "maximum": high}]})


def _whole(low: int, high: int) -> BeforeValidator:
    return BeforeValidator(_auto_or(int, low, high, f"a whole number from {low} to {high}"))


def _number(low: float, high: float) -> BeforeValidator:
    return BeforeValidator(_auto_or(float, low, high, f"a number from {low:g} to {high:g}"))


Epochs = Annotated[Any, _whole(1, MAX_EPOCHS), _auto_schema("integer", 1, MAX_EPOCHS)]
Batch = Annotated[Any, _whole(1, MAX_BATCH), _auto_schema("integer", 1, MAX_BATCH)]
Multiplier = Annotated[Any, _number(1e-4, 100), _auto_schema("number", 1e-4, 100)]
Beta = Annotated[Any, _number(1e-4, 2), _auto_schema("number", 1e-4, 2)]
Compute = Annotated[Any, _number(0.1, 10), _auto_schema("number", 0.1, 10)]
Interval = Annotated[Any, _whole(1, 1_000_000), _auto_schema("integer", 1, 1_000_000)]
Samples = Annotated[Any, _whole(1, 64), _auto_schema("integer", 1, 64)]


class Hyperparameters(Wire):
    """Of supervised fine-tuning, and of every other."""

    n_epochs: Epochs = "auto"
    batch_size: Batch = "auto"
    learning_rate_multiplier: Multiplier = "auto"


class DpoHyperparameters(Hyperparameters):
    """Of preferences: ``beta`` is how strongly training holds to the base model."""

    beta: Beta = "auto"


class ReinforcementHyperparameters(Hyperparameters):
    """Of reinforcement: how many replies to a prompt are compared, and how often it is evaluated, with how many."""

    compute_multiplier: Compute = "auto"
    eval_interval: Interval = "auto"
    eval_samples: Samples = "auto"

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {}, IGNORED)


class Supervised(Wire):
    """Replies to imitate."""

    hyperparameters: Hyperparameters | None = None


class Dpo(Wire):
    """Replies to prefer over others."""

    hyperparameters: DpoHyperparameters | None = None


class Reinforcement(Wire):
    """Replies to sample and grade; ``grader`` is as in OpenAI's API."""

    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, _NO_FORMAT, ())


class Method(Wire):
    """How to train: the object of the same name as ``type`` has its settings."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: Reinforcement | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> "Method":
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise refuse(name, f"The method's type is {self.type}: leave {name} out.", "invalid_value")
        if self.type == "reinforcement" and self.reinforcement is None:
            message = "Reinforcement needs a grader: send method.reinforcement.grader."
            raise refuse("reinforcement", message, "missing_required_parameter")
        return self

    @property
    def plain(self) -> dict[str, Any]:
        """The method with every hyperparameter in it, as jobs have it."""
        chosen: Supervised | Dpo | Reinforcement | None = getattr(self, self.type)
        given = chosen.hyperparameters if chosen else None
        settings: dict[str, Any] = {"hyperparameters": (given or _HYPERPARAMETERS[self.type]()).model_dump()}
        if self.reinforcement is not None:
            settings["grader"] = self.reinforcement.grader
        return {"type": self.type, self.type: settings}


_HYPERPARAMETERS: dict[str, type[Hyperparameters]] = {
    "supervised": Hyperparameters,
    "dpo": DpoHyperparameters,
    "reinforcement": ReinforcementHyperparameters,
}

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=MAX_METADATA)
]


class JobRequest(Wire):
    """``POST /v1/fine_tuning/jobs``. A null is a field not given."""

    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str | None, Field(max_length=64, description="a part of the model's name")] = None
    seed: Annotated[int | None, Field(ge=0, lt=1 << 31)] = None
    method: Annotated[Method | None, Field(description="supervised without it")] = None
    hyperparameters: Annotated[
        Hyperparameters | None, Field(description="OpenAI's older place for those of supervised")
    ] = None
    metadata: Metadata | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out_parameters(cls, raw: Any) -> Any:
        return sorted_out(raw, UNSUPPORTED, ())

    @model_validator(mode="after")
    def _fits_together(self) -> "JobRequest":
        if self.hyperparameters is not None and self.method is not None:
            message = "hyperparameters and method exclude each other: send hyperparameters within the method."
            raise refuse("hyperparameters", message, "invalid_value")
        return self

    @property
    def plain_method(self) -> dict[str, Any]:
        """The method, however it was given."""
        given = self.method or Method(type="supervised", supervised=Supervised(hyperparameters=self.hyperparameters))
        return given.plain
