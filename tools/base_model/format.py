"""The chat format of the built-in model, in one place for the tokenizer, the trainer and the GGUF writer.

One token opens each turn and one ends it, so a turn costs two tokens:
``<|system|>text<|end|><|user|>text<|end|><|assistant|>text<|end|>``. There is no BOS token. What is left out: tools,
images, and any role but these three; the template refuses them by name.
"""

from collections.abc import Sequence

ROLES = ("system", "user", "assistant")
END = "<|end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = (PAD, END, *(f"<|{role}|>" for role in ROLES))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('this model knows the roles system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Message = dict[str, str]
"""``{"role": …, "content": …}``, as on the wire."""


def render(messages: Sequence[Message]) -> str:
    """Write a conversation as the chat template does, without a generation prompt."""
    return "".join(f"<|{m['role']}|>{m['content'].strip()}{END}" for m in messages)
