"""The formula of a multigrader (``calculate_output``): arithmetic over rewards by name, by a parser of its own. Pure.

``+ - * /``, ``^`` or ``**`` for powers, brackets, numbers, names, and ``min max abs floor ceil exp sqrt log``. Python's
``ast`` reads the text; what is not in the table here is refused, and nothing is ever evaluated by Python.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from familiar.memory.errors import InvalidInput

MAX_CHARACTERS = 2000

_BINARY: Mapping[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: Mapping[str, tuple[Callable[..., float], int | None]] = {
    "min": (lambda *values: min(values), None),
    "max": (lambda *values: max(values), None),
    "abs": (abs, 1),
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "exp": (math.exp, 1),
    "sqrt": (math.sqrt, 1),
    "log": (math.log, 1),
}
"""Each with the number of its arguments; None is one or more."""


class Uncomputable(ArithmeticError):
    """A formula that has no finite value for these rewards."""


def check(formula: str, names: frozenset[str], param: str) -> None:
    """Raise ``InvalidInput`` (``param``) unless ``formula`` is arithmetic over ``names``, some of them at least."""
    try:
        used = _check(_parse(formula, param), names, param)
    except RecursionError:
        raise InvalidInput(f"{param} is nested too deeply: write it with fewer brackets.", param) from None
    if not used:
        raise InvalidInput(f"{param} uses none of its graders ({', '.join(sorted(names))}): name them in it.", param)


def value(formula: str, rewards: Mapping[str, float]) -> float:
    """What a formula that ``check`` has passed comes to. Raises ``Uncomputable``: by zero, overflow, a root of -1."""
    try:
        found = _value(_parse(formula, "calculate_output"), rewards)
    except (ArithmeticError, ValueError, RecursionError) as error:
        raise Uncomputable(f"{formula}: {error}") from error
    if isinstance(found, complex) or not math.isfinite(found):
        raise Uncomputable(f"{formula} is not a finite number")
    return float(found)


def _parse(formula: str, param: str) -> ast.expr:
    if len(formula) > MAX_CHARACTERS:
        raise InvalidInput(f"{param} has {len(formula):,} characters but {MAX_CHARACTERS:,} is the most.", param)
    try:
        return ast.parse(formula.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise InvalidInput(f"{param} is no formula: {said}.", param) from None


def _check(node: ast.expr, names: frozenset[str], param: str) -> set[str]:
    """The names that the expression uses."""
    match node:
        case ast.BinOp(left, kind, right) if type(kind) in _BINARY:
            return _check(left, names, param) | _check(right, names, param)
        case ast.UnaryOp(kind, inner) if type(kind) in _UNARY:
            return _check(inner, names, param)
        case ast.Constant(number) if isinstance(number, int | float) and not isinstance(number, bool):
            return set()
        case ast.Name(name):
            if name not in names:
                known = ", ".join(sorted(names))
                raise InvalidInput(f'{param} names "{name}", but its graders are {known}.', param)
            return {name}
        case ast.Call(ast.Name(name), arguments, []) if name in _FUNCTIONS:
            takes, has = _FUNCTIONS[name][1], len(arguments)
            if not arguments or takes not in (None, has):
                raise InvalidInput(f"{param} gives {name} {has} values but it takes {takes or 'some'}.", param)
            return set[str]().union(*(_check(each, names, param) for each in arguments))
    raise InvalidInput(
        f'{param} has "{ast.unparse(node)}": it may use + - * / ^, brackets, numbers, the names of its graders, '
        f"and {', '.join(sorted(_FUNCTIONS))}.",
        param,
    )


def _value(node: ast.expr, rewards: Mapping[str, float]) -> Any:
    match node:
        case ast.BinOp(left, kind, right):
            return _BINARY[type(kind)](_value(left, rewards), _value(right, rewards))
        case ast.UnaryOp(kind, inner):
            return _UNARY[type(kind)](_value(inner, rewards))
        case ast.Constant(number):
            return float(number)  # type: ignore[arg-type] # ``check`` let only numbers pass; a float cannot grow for ever
        case ast.Name(name):
            return float(rewards[name])
        case ast.Call(ast.Name(name), arguments):
            values = [_value(each, rewards) for each in arguments]
            if any(isinstance(each, complex) for each in values):
                raise ValueError("a root of a negative number")
            return float(_FUNCTIONS[name][0](*values))
    raise ValueError("not a formula")
