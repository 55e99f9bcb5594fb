"""Settings: which source wins, and what a person is told about a value that cannot be used."""

from dataclasses import fields
from pathlib import Path

import pytest

from familiar.adapters.recipe import Recipe
from familiar.daemon import settings
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.settings import ENGINE_FIELDS, RECIPE_FIELDS, Settings
from familiar.memory.errors import InvalidInput

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of this machine's user takes part."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "share"))


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults() -> None:
    loaded = settings.load({}, {})
    assert (loaded.model, loaded.host, loaded.port) == ("builtin", "127.0.0.1", 8377)
    assert loaded.memory_budget_tokens == 256
    assert loaded.min_signals == 4
    assert loaded.data_dir.name == "familiar"
    assert loaded.data_dir.is_absolute()
    assert loaded.config_file is None


def test_the_recipe_owns_the_defaults_of_training() -> None:
    assert Recipe.from_dict(settings.load({}, {}).recipe) == Recipe()
    changed = settings.load({}, {"FAMILIAR_LEARN_EPOCHS": "2", "FAMILIAR_LEARN_BETA": "0.3"})
    assert Recipe.from_dict(changed.recipe) == Recipe(epochs=2, beta=0.3)
    assert set(RECIPE_FIELDS) <= {field.name for field in fields(Settings)}


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = written(
        tmp_path, "port = 1\nthreads = 1\nslots = 2\n[memory]\nbudget_tokens = 9\n[learn]\nmin_signals = 8\n"
    )
    env = {"FAMILIAR_PORT": "2", "FAMILIAR_THREADS": "2"}
    loaded = settings.load({"port": 3, "threads": None}, env, file)
    assert (loaded.port, loaded.threads, loaded.slots) == (3, 2, 2)
    assert (loaded.memory_budget_tokens, loaded.min_signals) == (9, 8)
    assert loaded.host == "127.0.0.1"
    assert loaded.config_file == file


def test_the_environment_has_every_kind_of_value() -> None:
    env = {
        "FAMILIAR_MEMORY_BUDGET_TOKENS": "12",
        "FAMILIAR_LEARN_LEARNING_RATE": "1e-4",
        "FAMILIAR_ALLOWED_HOSTS": "a.example, b.example",
        "FAMILIAR_DATA_DIR": "~/elsewhere",
        "FAMILIAR_HOST": "",
    }
    loaded = settings.load({}, env)
    assert loaded.memory_budget_tokens == 12
    assert loaded.learning_rate == 1e-4
    assert loaded.allowed_hosts == ("a.example", "b.example")
    assert loaded.data_dir == Path.home() / "elsewhere"
    assert loaded.host == "127.0.0.1"


def test_a_file_is_named_by_a_flag_or_by_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 4")
    assert settings.load({"config": str(file)}, {}).port == 4
    assert settings.load({}, {"FAMILIAR_CONFIG": str(file)}).port == 4


def test_the_default_file_is_read_when_it_is_there() -> None:
    file = settings.default_config_file()
    file.parent.mkdir(parents=True)
    file.write_text("port = 5", encoding="utf-8")
    assert settings.load({}, {}).port == 5


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no configuration file at .*gone\.toml"):
        settings.load({}, {}, tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", r"config\.toml: prot is not a setting.*\bport\b"),
        ("[learn]\nepoch = 1", r"config\.toml: learn\.epoch is not a setting.*learn\.epochs"),
        ("min_signals = 1", r"config\.toml: min_signals is not a setting"),
        ("[model]\nname = 'x'", r"config\.toml: model is \{'name': 'x'\}, but text is expected"),
        ("learn = 3", r"config\.toml: learn is not a setting"),
        ("port = '80'", r"config\.toml: port is '80', but a whole number from 0 to 65535 is expected"),
        ("port = 70000", r"config\.toml: port is 70000, but a whole number from 0 to 65535"),
        ("port = true", r"port is True, but a whole number"),
        ("slots = 0", r"slots is 0, but a whole number from 1 to 64"),
        ("allowed_hosts = 'a'", r"allowed_hosts is 'a', but a list of texts is expected"),
        ("[learn]\nbeta = nan", r"learn\.beta is nan, but a number"),
        ("model = ''", r"model is '', but text is expected"),
        ("kv_type = 'f8'", r"kv_type is 'f8', but one of f32, f16, bf16, .*q4_0 is expected"),
        ("context_overflow = true", r"context_overflow is True, but one of error, trim is expected"),
        ("mlock = 1", r"mlock is 1, but true or false is expected"),
        ("mmap = 'yes'", r"mmap is 'yes', but true or false is expected"),
        ("gpu_layers = -2", r"gpu_layers is -2, but a whole number from -1 up"),
        ("port = ", r"config\.toml cannot be read as TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_key_value_and_expectation(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InvalidInput, match=expected) as caught:
        settings.load({}, {}, written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"FAMILIAR_PORT is 'eighty', but a whole number from 0 to 65535") as caught:
        settings.load({}, {"FAMILIAR_PORT": "eighty"})
    assert caught.value.param == "port"


def test_a_bad_flag_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"--port is -1"):
        settings.load({"port": -1}, {})
    with pytest.raises(InvalidInput, match="no setting colour"):
        settings.load({"colour": "red"}, {})


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    file = written(tmp_path, "slots = 2\n")
    flags = {"config": str(file), "model": "m.gguf", "threads": 3, "context_tokens": 512, "data_dir": tmp_path / "d"}
    parent = settings.load(flags, {})
    arguments = parent.serve_arguments()
    pairs = dict(zip(arguments[::2], arguments[1::2], strict=True))
    child = settings.load(
        {
            "config": pairs["--config"],
            "model": pairs["--model"],
            "threads": int(pairs["--threads"]),
            "context_tokens": int(pairs["--context"]),
            "data_dir": pairs["--data-dir"],
        },
        {},
    )
    assert child == parent
    assert parent.to_arguments() == arguments[:-2], "the learner takes its context from the model"


def test_the_engine_has_its_own_defaults_for_what_is_not_set() -> None:
    assert settings.load({}, {}).engine_options == EngineOptions()
    assert set(ENGINE_FIELDS) <= {field.name for field in fields(Settings)}
    env = {"FAMILIAR_KV_TYPE": "q8_0", "FAMILIAR_MLOCK": "yes", "FAMILIAR_MMAP": "0", "FAMILIAR_QUEUE_LIMIT": "9"}
    changed = settings.load({"slots": 2}, env).engine_options
    assert changed == EngineOptions(slots=2, kv_type="q8_0", mlock=True, mmap=False, queue_limit=9)


def test_settings_that_do_not_go_together_are_named() -> None:
    chosen = settings.load({"kv_type": "q8_0", "flash_attention": "off"}, {})
    with pytest.raises(InvalidInput, match="kv_type q8_0 needs flash attention, which is off"):
        _ = chosen.engine_options


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("On", True), ("1", True), ("no", False), (" off ", False)]
)
def test_a_boolean_may_be_spelt_in_several_ways_in_the_environment(text: str, value: bool) -> None:
    assert settings.load({}, {"FAMILIAR_MLOCK": text}).mlock is value


def test_a_text_may_not_be_empty(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="embedding_model"):
        settings.load({}, {}, written(tmp_path, "embedding_model = ''"))


def test_every_setting_is_documented_with_its_variable_default_and_meaning() -> None:
    rows = {}
    for line in CONFIGURATION.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1].startswith("`FAMILIAR_"):
            rows[cells[0].strip("`")] = cells[1:]
    entries = settings.entries()
    assert set(rows) == {entry.key for entry in entries}
    for entry in entries:
        variable, default, meaning = rows[entry.key]
        assert variable == f"`{entry.variable}`"
        assert meaning == entry.meaning
        if entry.default not in (None, (), ""):
            written = str(entry.default).lower() if isinstance(entry.default, bool) else entry.default  # as in TOML
            assert default == f"`{written}`"


def test_every_field_is_a_documented_setting() -> None:
    assert {field.name for field in fields(Settings)} - {entry.name for entry in settings.entries()} == {"config_file"}
