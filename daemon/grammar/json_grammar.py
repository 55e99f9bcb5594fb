"""JSON as a grammar for llama.cpp: any object, or the values that a JSON schema allows.

What comes out satisfies the schema; not everything that satisfies it can come out. Properties keep the schema's order,
those that it does not name appear only where it asks for them (``additionalProperties``), numbers have at most 20
digits before the point, white space is bounded, and texts with a pattern or format are spelled without needless
escapes. What is left out: see ``daemon/json_schema.py`` for what of JSON Schema is refused.
"""

from collections.abc import Mapping
from typing import Any

from familiar.daemon.grammar.gbnf import Grammar, NeverEnds, TooLarge
from familiar.daemon.grammar.json_rules import JsonRules
from familiar.daemon.grammar.json_schema import Schema
from familiar.memory.errors import InvalidInput


def json_object_grammar() -> str:
    """Return the grammar of any JSON object."""
    grammar = Grammar()
    return grammar.text(JsonRules(grammar).any_object())


def json_schema_grammar(schema: Mapping[str, Any], *, param: str) -> str:
    """Return the grammar of the JSON values that a schema allows.

    Raises InvalidInput for ``param`` when the schema is none, asks for what a grammar cannot hold, or is too large.
    """
    grammar = Grammar()
    try:
        return grammar.text(JsonRules(grammar).schema(Schema(schema, param)))
    except TooLarge:
        message = "The JSON schema makes too large a grammar: lower its lengths and counts, or make it smaller."
        raise InvalidInput(message, param) from None
    except NeverEnds:
        raise InvalidInput("The JSON schema allows no finite value: a $ref needs itself again.", param) from None
    except RecursionError:
        raise InvalidInput("The JSON schema has a $ref that leads back to itself.", param) from None
