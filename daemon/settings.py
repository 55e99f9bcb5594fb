"""Every setting, and the only reader of the environment and of the configuration file.

A value comes from a flag, else from the environment, else from the TOML file, else from its default. Each field below
declares all that there is to know of a setting (its key in the file, its limits, its meaning), and the variable's name
follows from the key: ``memory.budget_tokens`` is ``FAMILIAR_MEMORY_BUDGET_TOKENS``. ``docs/configuration.md`` is the
table for people. What is left out: ``HF_*`` variables, which huggingface_hub reads itself.
"""

import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from familiar.adapters.recipe import Recipe
from familiar.daemon.engine_options import CHOICES, LIMITS, EngineOptions
from familiar.daemon.learning_times import LearningTimes
from familiar.memory.errors import InvalidInput

CONFIG_ENV = "FAMILIAR_CONFIG"
"""Names the configuration file; a file named here or by ``--config`` must exist, the default one need not."""


def _about(
    meaning: str,
    *,
    key: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Declare one setting: ``key`` is its place in the file where that is not the field's own name."""
    return {"meaning": meaning, "key": key, "low": low, "high": high, "choices": choices}


def _engine(name: str, meaning: str) -> Any:
    """Declare a setting that is a field of ``EngineOptions`` too, which owns its default and its limits."""
    low, high = LIMITS.get(name, (None, None))
    about = _about(meaning, low=low, high=high, choices=CHOICES.get(name, ()))
    return field(default=getattr(EngineOptions, name), metadata=about)


def default_data_dir() -> Path:
    """The folder of this person's data, as the platform has it (``~/.local/share/familiar`` on Linux)."""
    return platformdirs.user_data_path("familiar")


def default_config_file() -> Path:
    """The configuration file that is read when none is named (``~/.config/familiar/config.toml`` on Linux)."""
    return platformdirs.user_config_path("familiar") / "config.toml"


@dataclass(frozen=True)
class Settings:
    """What the service and the learner run with. ``config_file`` is the file that was read, if any."""

    model: str = field(
        default="builtin",
        metadata=_about(
            "`builtin`, a path to a GGUF file, or a hub id: `user/repo`, `user/repo:Q8_0`, `user/repo/file.gguf`"
        ),
    )
    data_dir: Path = field(
        default_factory=default_data_dir, metadata=_about("folder of the store, the adapters and the logs")
    )
    host: str = field(
        default="127.0.0.1",
        metadata=_about(
            "address to listen on; anything but loopback is open to the network, where requests need a key only once "
            "`familiar users` has made one"
        ),
    )
    port: int = field(default=8377, metadata=_about("port to listen on; 0 takes any free one", low=0, high=65535))
    allowed_hosts: tuple[str, ...] = field(
        default=(), metadata=_about("more names that a request's Host header may carry, such as `host.docker.internal`")
    )
    context_tokens: int = _engine(
        "context_tokens",
        "context per request, in tokens; 0 takes what the model was trained with, up to 8192 and to what memory allows",
    )
    context_overflow: str = field(
        default="error",
        metadata=_about(
            "a conversation longer than the context is refused (`error`), or loses its oldest turns (`trim`)",
            choices=("error", "trim"),
        ),
    )
    slots: int = _engine("slots", "requests that are generated at the same time")
    queue_limit: int = _engine("queue_limit", "requests that may wait for a slot; one more is told to try again later")
    threads: int = _engine("threads", "CPU threads for generation; 0 takes one per physical core")
    batch_tokens: int = _engine("batch_tokens", "prompt tokens that are evaluated at once; 0 takes 512")
    gpu_layers: int = _engine("gpu_layers", "layers to put on the GPU; -1 is all, where llama.cpp was built for one")
    kv_type: str = _engine(
        "kv_type",
        f"type of the context's cache, one of {', '.join(CHOICES['kv_type'])}; a quantised one loses a little",
    )
    flash_attention: str = _engine(
        "flash_attention",
        "`on`, `off`, or `auto`: where [it is faster](#what-is-chosen-where-nothing-is-set), or `kv_type` needs it",
    )
    mmap: bool = _engine("mmap", "map the model's file into memory, shared between processes, rather than read it")
    mlock: bool = _engine("mlock", "keep the model in memory, so that it is never swapped out")
    embedding_model: str = field(
        default="auto",
        metadata=_about(
            "what finds memories by meaning, and serves `/v1/embeddings`: a GGUF model, named as `model` is; `auto`, "
            "the [sentence model](#the-sentence-model) where it is here; or `none`"
        ),
    )
    inbox: str = field(
        default="auto",
        metadata=_about(
            "folder whose files are read as feedback, see [the inbox](inbox.md); `auto` is `inbox` in the data folder, "
            "and `off` is none"
        ),
    )
    memory_budget_tokens: int = field(
        default=256,
        metadata=_about(
            "tokens of memories that may be put into one prompt; 0 remembers without showing",
            key="memory.budget_tokens",
            low=0,
        ),
    )
    memory_signals: str = field(
        default="on",
        metadata=_about(
            "what users change and say in a chat is [noticed](api.md#what-is-noticed-without-being-told): `on`, `off`",
            key="memory.signals",
            choices=("on", "off"),
        ),
    )
    min_signals: int = field(
        default=4, metadata=_about("corrections that a learning run needs at least", key="learn.min_signals", low=1)
    )
    epochs: int = field(
        default=Recipe.epochs,
        metadata=_about("passes over the training corrections, at most", key="learn.epochs", low=1),
    )
    rank: int = field(default=Recipe.rank, metadata=_about("rank of the adapter", key="learn.rank", low=1, high=1024))
    alpha: int = field(
        default=Recipe.alpha, metadata=_about("scale of the adapter, times its rank", key="learn.alpha", low=1)
    )
    learning_rate: float = field(
        default=Recipe.learning_rate,
        metadata=_about("AdamW's peak learning rate", key="learn.learning_rate", low=1e-09),
    )
    batch_size: int = field(
        default=Recipe.batch_size,
        metadata=_about("corrections that a step averages over", key="learn.batch_size", low=1),
    )
    beta: float = field(
        default=Recipe.beta,
        metadata=_about("DPO's beta: how strongly training holds to the base model", key="learn.beta", low=1e-09),
    )
    kl_budget: float = field(
        default=Recipe.kl_budget,
        metadata=_about(
            "how far from the base model a kept epoch may be, in nats per token", key="learn.kl_budget", low=0
        ),
    )
    seed: int = field(default=Recipe.seed, metadata=_about("seed of training", key="learn.seed", low=0))
    learn_schedule: str = field(
        default="idle",
        metadata=_about(
            "when the service [learns by itself](learning.md): `idle`, `off`, or a cron expression in local time",
            key="learn.schedule",
        ),
    )
    idle_minutes: float = field(
        default=10.0,
        metadata=_about("with `idle`: how long nobody has used the model", key="learn.idle_minutes", low=0),
    )
    allowed_hours: str = field(
        default="any",
        metadata=_about(
            "the hours in which it may learn by itself, such as `22:00-07:00`, in local time; `any` is all",
            key="learn.allowed_hours",
        ),
    )
    on_battery: bool = field(
        default=False, metadata=_about("learn by itself on battery power too", key="learn.on_battery")
    )
    min_new_signals: int = field(
        default=4,
        metadata=_about(
            "corrections, ratings, rules and facts since a user's last run that the next one by itself needs",
            key="learn.min_new_signals",
            low=1,
        ),
    )
    max_minutes: float = field(
        default=30.0,
        metadata=_about(
            "how long a run by itself may work, pauses left out; a later one goes on where it stopped",
            key="learn.max_minutes",
            low=0.1,
        ),
    )
    resume_after_s: float = field(
        default=10.0,
        metadata=_about(
            "seconds without a request after which learning, which each request pauses, goes on",
            key="learn.resume_after_s",
            low=0,
        ),
    )
    config_file: Path | None = None

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.data_dir / "familiar.db"

    @property
    def service_file(self) -> Path:
        """Where a running service says its pid, host and port."""
        return self.data_dir / "service.json"

    @property
    def drafts_dir(self) -> Path:
        """Where the drafts are that the service wrote."""
        return self.data_dir / "drafts"

    @property
    def inbox_dir(self) -> Path | None:
        """The folder that is watched, None when none is. Raises InvalidInput for one that holds our own files."""
        if self.inbox == "off":
            return None
        folder = self.data_dir / "inbox" if self.inbox == "auto" else Path(self.inbox).expanduser().absolute()
        data_dir = self.data_dir.absolute()
        if data_dir.is_relative_to(folder) or folder.is_relative_to(self.drafts_dir.absolute()):
            raise InvalidInput(
                f"The inbox is {folder}, but that folder holds other files, which would be moved: choose one for the "
                f"inbox alone.",
                "inbox",
            )
        return folder

    @property
    def engine_options(self) -> EngineOptions:
        """How to open the engine. Raises InvalidInput where two settings do not go together."""
        return EngineOptions(**{name: getattr(self, name) for name in ENGINE_FIELDS})

    @property
    def learning_times(self) -> LearningTimes:
        """When to learn unasked. Raises InvalidInput for a cron expression or hours that cannot be read."""
        return LearningTimes.parse(self.learn_schedule, self.idle_minutes, self.allowed_hours)

    @property
    def recipe(self) -> dict[str, int | float]:
        """The settings of training that a person may set; the recipe has its defaults for all else."""
        return {name: getattr(self, name) for name in RECIPE_FIELDS}

    def to_arguments(self) -> list[str]:
        """The options that give a child process these settings, whether it learns or serves."""
        arguments = ["--data-dir", str(self.data_dir), "--model", self.model, "--threads", str(self.threads)]
        if self.config_file is not None:
            arguments += ["--config", str(self.config_file)]
        return arguments

    def serve_arguments(self) -> list[str]:
        """The options of ``familiar serve`` that give a child process these settings (address left to the caller)."""
        return [*self.to_arguments(), "--context", str(self.context_tokens)]


ENGINE_FIELDS = tuple(f.name for f in fields(EngineOptions))
"""The settings that are fields of ``EngineOptions`` too."""

RECIPE_FIELDS = ("epochs", "rank", "alpha", "learning_rate", "batch_size", "beta", "kl_budget", "seed")
"""The settings that are fields of ``Recipe`` too, which owns their defaults."""


@dataclass(frozen=True)
class Entry:
    """One setting as people meet it: its key in the file, its environment variable, its default and its meaning."""

    name: str
    key: str
    variable: str
    default: object
    meaning: str


def entries() -> list[Entry]:
    """Every setting, in the order of the file; for the documentation's test and for help texts."""
    return [
        Entry(f.name, _key(f), _variable(f), None if f.default is MISSING else f.default, f.metadata["meaning"])
        for f in _declared()
    ]


def load(
    flags: Mapping[str, object], env: Mapping[str, str] | None = None, config_file: Path | None = None
) -> Settings:
    """Settings from flags over environment over file over defaults.

    ``flags`` are named as the fields are; None means not given, and ``config`` names the file as ``--config`` does.

    Raises:
        InvalidInput: a value or a key that cannot be used; the message names where it stands and what is expected.
    """
    env = os.environ if env is None else env
    given = {name: value for name, value in flags.items() if value is not None}
    chosen = config_file or given.pop("config", None) or env.get(CONFIG_ENV) or None
    path = Path(str(chosen)).expanduser() if chosen else default_config_file()
    try:
        found = path.is_file()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}): check its folder's permissions.", "config"
        ) from error
    if chosen and not found:
        raise InvalidInput(f"There is no configuration file at {path}: make it, or leave the option out.", "config")
    from_file = _read(path) if found else {}
    values: dict[str, Any] = {}
    for declared in _declared():
        name, key, variable = declared.name, _key(declared), _variable(declared)
        if name in given:
            values[name] = _convert(declared, given[name], "--" + name.replace("_", "-"))
        elif env.get(variable, "") != "":
            values[name] = _convert(declared, env[variable], f"the environment's {variable}")
        elif key in from_file:
            values[name] = _convert(declared, from_file[key], f"{path}: {key}", textual=False)
    unknown = given.keys() - {declared.name for declared in _declared()}
    if unknown:
        raise InvalidInput(f"There is no setting {_names(unknown)}: there are {_names(d.name for d in _declared())}.")
    return Settings(**values, config_file=path if found else None)


def _declared() -> Iterator["Field[Any]"]:
    return (f for f in fields(Settings) if "meaning" in f.metadata)


def _key(declared: "Field[Any]") -> str:
    return declared.metadata["key"] or declared.name


def _variable(declared: "Field[Any]") -> str:
    return "FAMILIAR_" + _key(declared).replace(".", "_").upper()


def _read(path: Path) -> dict[str, object]:
    """The file's values by dotted key."""
    try:
        parsed = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as TOML ({error}): correct it.", "config") from error
    known = {_key(declared) for declared in _declared()}
    sections = {key.partition(".")[0] for key in known if "." in key}
    values: dict[str, object] = {}
    for name, value in parsed.items():
        if name in sections and isinstance(value, dict):
            values.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            values[name] = value
    for key in values.keys() - known:
        raise InvalidInput(f"{path}: {key} is not a setting: there are {_names(known)}.", key)
    return values


_EXPECTED: dict[object, str] = {
    str: "text",
    Path: "a path",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple[str, ...]: "a list of texts",
}


def _convert(declared: "Field[Any]", value: object, where: str, *, textual: bool = True) -> Any:
    """The value in its field's type. ``textual``: flags and variables may spell a number or a list as text."""
    kind = declared.type
    converted = _typed(kind, value, textual)
    low, high, choices = (declared.metadata[limit] for limit in ("low", "high", "choices"))
    if isinstance(converted, int | float):
        fits = math.isfinite(converted) and (low is None or converted >= low) and (high is None or converted <= high)
    elif choices:
        fits = converted in choices
    else:
        fits = converted is not None and converted != ""
    if not fits:
        limits = "" if low is None else f" from {low:g} up" if high is None else f" from {low:g} to {high:g}"
        expected = f"one of {', '.join(choices)}" if choices else _EXPECTED[kind] + limits
        raise InvalidInput(f"{where} is {value!r}, but {expected} is expected.", declared.name)
    return converted


_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


def _typed(kind: object, value: object, textual: bool) -> str | Path | int | float | tuple[str, ...] | None:
    """The value as ``kind``, None when it cannot be one."""
    if kind is str:
        return value.strip() if isinstance(value, str) else None
    if kind is Path:
        return Path(value).expanduser().absolute() if isinstance(value, str | Path) and str(value) else None
    if kind == tuple[str, ...]:
        listed = [part.strip() for part in value.split(",")] if textual and isinstance(value, str) else value
        if isinstance(listed, list | tuple) and all(isinstance(part, str) and part for part in listed):
            return tuple(listed)
        return None
    if kind is bool:
        return (
            _BOOLEANS.get(value.strip().lower())
            if textual and isinstance(value, str)
            else value
            if isinstance(value, bool)
            else None
        )
    number = float if kind is float else int
    if isinstance(value, bool):
        return None
    if isinstance(value, number) or (number is float and isinstance(value, int)):
        return number(value)
    if textual and isinstance(value, str):
        try:
            return number(value)
        except ValueError:
            return None
    return None


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
