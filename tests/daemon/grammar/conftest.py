"""llama.cpp's own grammar sampler as the judge of every grammar here: what it accepts, and what can come out of it."""

import ctypes
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from llama_cpp import llama_cpp as c

from familiar.daemon.llama import Model
from familiar.daemon.vocab import Vocab

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class NativeGrammar:
    """A grammar in llama.cpp, with where it stands. llama.cpp prints why it refuses one, and then gives no handle."""

    def __init__(self, vocab: Vocab, gbnf: str) -> None:
        self.vocab = vocab
        self._handle = c.llama_sampler_init_grammar(vocab.handle, gbnf.encode("ascii"), b"root")
        assert self._handle, f"llama.cpp refuses this grammar:\n{gbnf}"

    def allowed(self, tokens: list[int]) -> list[int]:
        """Return those of the tokens that may come next."""
        data = np.zeros(len(tokens), _CANDIDATE)
        data["id"] = tokens
        pointer = data.ctypes.data_as(c.llama_token_data_p)
        array = c.llama_token_data_array(data=pointer, size=len(tokens), selected=-1, sorted=False)
        c.llama_sampler_apply(self._handle, ctypes.byref(array))
        return [int(token) for token in data["id"][np.isfinite(data["logit"])]]

    def take(self, token: int) -> None:
        """Go on after a token; llama.cpp ends the process on one that is not allowed."""
        assert self.allowed([token])
        c.llama_sampler_accept(self._handle, token)

    def follow(self, text: str) -> bool:
        """Go on after a text; say whether it is allowed."""
        for token in self.vocab.tokenise(text):
            if not self.allowed([token]):
                return False
            self.take(token)
        return True

    def may_end(self) -> bool:
        """Say whether the text so far is complete."""
        return bool(self.allowed([self.vocab.end_of_turn]))

    def close(self) -> None:
        c.llama_sampler_free(self._handle)


@pytest.fixture(scope="session")
def vocab(model_path: Path) -> Iterator[Vocab]:
    """The built-in model's vocabulary: 256 bytes and what was merged from them."""
    model = Model(model_path)
    yield model.vocab
    model.close()


@pytest.fixture(scope="session")
def accepts(vocab: Vocab) -> Callable[[str, str], bool]:
    """``accepts(gbnf, text)``: llama.cpp takes the whole text and could then end."""

    def judge(gbnf: str, text: str) -> bool:
        grammar = NativeGrammar(vocab, gbnf)
        try:
            return grammar.follow(text) and grammar.may_end()
        finally:
            grammar.close()

    return judge


@pytest.fixture(scope="session")
def begins(vocab: Vocab) -> Callable[[str, str], bool]:
    """``begins(gbnf, text)``: llama.cpp takes the text as a beginning."""

    def judge(gbnf: str, text: str) -> bool:
        grammar = NativeGrammar(vocab, gbnf)
        try:
            return grammar.follow(text)
        finally:
            grammar.close()

    return judge


@pytest.fixture(scope="session")
def wander(vocab: Vocab) -> Callable[[str, int], str | None]:
    """``wander(gbnf, seed)``: a random text that the grammar lets through, None when it was cut at 300 tokens.

    Any token of the vocabulary may come, so this finds what a model would hardly say; the longer it gets, the likelier
    is what closes something.
    """
    every = [token for token in range(vocab.size) if vocab.piece(token)]
    bytes_ = [token for token in every if len(vocab.piece(token)) == 1]
    closing = {vocab.tokenise(text)[0] for text in ('"', "}", "]", ",", '":')}

    def walk(gbnf: str, seed: int) -> str | None:
        rng, text = random.Random(seed), b""
        grammar = NativeGrammar(vocab, gbnf)
        try:
            for step in range(300):
                # A part of the vocabulary is enough: its single bytes can spell whatever has to come.
                allowed = grammar.allowed([*rng.sample(every, 150), *bytes_])
                if grammar.may_end() and (not allowed or rng.random() < 0.5):
                    return _decoded(text)
                assert allowed, f"nothing can follow {text!r}"
                ends = [token for token in allowed if token in closing]
                token = rng.choice(ends if ends and rng.random() < step / 100 else allowed)
                text += vocab.piece(token)
                grammar.take(token)
            return None
        finally:
            grammar.close()

    return walk


def _decoded(text: bytes) -> str | None:
    """Return the text; llama.cpp's grammar lets some overlong UTF-8 through, which no model has learnt to write."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


TOOL_TEMPLATE = """
{%- if tools %}
    {{- '<|system|>' }}
    {%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{ "\\n" + tool | tojson }}{% endfor %}
    {{- "\\n</tools>\\nCall one like this:\\n" }}
    {{- "<tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</tool_call><|end|>" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|system|>' + messages[0].content + '<|end|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|user|>' + message.content + '<|end|>' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|assistant|>' + message.content }}
        {%- for call in message.tool_calls %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|end|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|user|><tool_response name="' + message.name + '">\\n' + message.content + '\\n</tool_response><|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
"""A chat template with tools, in Hermes' and Qwen's manner, of the built-in model's own markers."""


@pytest.fixture(scope="session")
def tool_model_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model with a chat template that knows tools."""
    reader = GGUFReader(model_path)
    path = tmp_path_factory.mktemp("tools") / "tools.gguf"
    writer = GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    template = MetadataDetails(GGUFValueType.STRING, TOOL_TEMPLATE)
    copy_with_new_metadata(reader, writer, {"tokenizer.chat_template": template}, [])
    return path
