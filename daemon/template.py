"""A conversation to prompt tokens: the GGUF's own chat template, and the only place where text makes control tokens.

The template is a stranger's program, so it runs in jinja2's immutable sandbox. The conversation is a stranger's text,
so the control tokens in a prompt are those that the template wrote: the same spelling inside a message (a pasted
``<|end|>``) stays plain text, and so it does in tools, in the arguments of calls and in what tools answered. What is
left out: images, and thinking switches.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from familiar.daemon.template_messages import template_messages
from familiar.daemon.vocab import Vocab
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What a model whose file has no template gets. Its markers are plain text where the vocabulary lacks them."""


class ChatTemplate:
    """A compiled chat template; raises BadFile when it is not a valid one. Safe from any thread.

    ``supports_tools`` says whether it does anything with tools, ``short_ids`` whether it takes only ids of tool calls
    that have nine characters (Mistral's do).
    """

    def __init__(self, source: str | None, *, bos: str = "", eos: str = "") -> None:
        # As in transformers, which templates are written for: blocks trimmed, loops that break, these globals.
        env = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
        )
        env.filters["tojson"] = _tojson
        env.globals["raise_exception"] = _refuse
        env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._tokens = {"bos_token": bos, "eos_token": eos}
        source = source or CHATML
        try:
            self._template = env.from_string(source)
            self.supports_tools = "tools" in meta.find_undeclared_variables(env.parse(source))
        except TemplateError as error:
            raise BadFile(f"The model's chat template is not valid: {error}.") from error
        self.short_ids = re.search(r"length != 9\b", source) is not None

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """Return the conversation as text, up to where the assistant's reply begins.

        The messages are as ``template_messages`` makes them; ``tools`` are functions of OpenAI's shape. Raises
        InvalidInput (``messages``) when the template refuses them, in its own words.
        """
        try:
            return self._template.render(
                messages=list(messages), tools=tools or None, add_generation_prompt=True, **self._tokens
            )
        except Exception as error:  # a template is a program: anything may come out of it
            raise InvalidInput(f"The model's chat template refuses the messages: {error}", "messages") from error


def encode_prompt(
    vocab: Vocab,
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> list[int]:
    """Return the tokens of a conversation, up to where the reply begins: one tokenisation for serving and training.

    Spellings of control tokens inside any text of the messages and ``tools`` are broken up before rendering with a
    character that occurs in none of them, and put together again as plain text after. Raises InvalidInput when the
    template refuses the messages, and for arguments of a tool call that are no JSON object.
    """
    spelling = vocab.control_spelling
    # Arguments are read from their JSON first: there a control token may be spelled with escapes.
    ready = template_messages(messages, short_ids=template.short_ids)
    mark: str | None = None
    try:
        if any(map(spelling.search, _texts([ready, tools]))):
            said = set[str]().union(*_texts([ready, tools]))
            mark = next(char for char in map(chr, range(0xE000, 0x110000)) if char not in said)

            def defuse(text: str) -> str:
                return spelling.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", text)

            ready, tools = _mapped(ready, defuse), _mapped(tools, defuse)
    except RecursionError:
        raise InvalidInput("The messages or tools are nested too deeply: make them flatter.", "messages") from None
    rendered = template.render(ready, tools)
    start = [vocab.bos] if vocab.adds_bos and not rendered.startswith(vocab.text(vocab.bos)) else []
    if mark is None or mark not in rendered:
        return start + vocab.tokenise(rendered, control=True)
    return start + _tokenise_around(vocab, spelling, rendered, mark)


def encode_completion(vocab: Vocab, completion: str) -> list[int]:
    """Return the tokens of a reply, the end-of-turn token included; nothing in it becomes a control token."""
    return [*vocab.tokenise(completion), vocab.end_of_turn]


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield name
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value with every text in it changed, names included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): _mapped(each, change) for name, each in value.items()}
    return [_mapped(each, change) for each in value] if isinstance(value, list | tuple) else value


def _tokenise_around(vocab: Vocab, spelling: re.Pattern[str], rendered: str, mark: str) -> list[int]:
    """Tokenise as llama.cpp does, control tokens first and the text between them after, then without the marks."""
    ids: list[int] = []
    at, strip_next = 0, False
    for found in [*spelling.finditer(rendered), None]:
        text = rendered[at : found.start() if found else None].replace(mark, "")
        token = vocab.control[found[0]] if found else None
        text = text.lstrip() if strip_next else text
        text = text.rstrip() if token and token.lstrip else text
        if text:
            ids += vocab.tokenise(text)
        if found and token:
            ids.append(token.id)
            at, strip_next = found.end(), token.rstrip
    return ids


class _GenerationBlock(Extension):
    """``{% generation %}``, which marks the assistant's words for transformers' training masks: only its content."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # As transformers has it: jinja2's own escapes <, > and & for HTML, which would change the prompt.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
