"""A very small Python: enough to check short functions, nothing that could harm the machine.

Text from a model or a stranger is never handed to `exec`. The program is parsed, and this interpreter walks
the tree; a node, name or size it does not know ends the walk with `Refused`.
"""

from __future__ import annotations

import ast
import operator
from typing import Any

MAX_STEPS = 5_000
MAX_SIZE = 10_000  # of an integer's magnitude times digits, a string or a list
_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
}
_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
}
_CALLS = {"len": len, "sum": sum, "max": max, "min": min, "sorted": sorted, "str": str, "abs": abs}
_METHODS = {str: {"upper", "lower", "count", "join"}, list: {"count"}}


class Refused(Exception):
    """The program uses something outside this little language, or too much of it."""


# What a wrong program may raise while it runs; each becomes `Refused`.
_FAILURES = (TypeError, ValueError, IndexError, ZeroDivisionError, AttributeError, OverflowError, RecursionError)


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class Program:
    """One parsed program: function definitions and a call to print."""

    def __init__(self, source: str) -> None:
        if len(source) > 2_000:
            raise Refused("the program is too long")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Refused(f"it does not parse: {error}") from error
        self.functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        self.main = [n for n in tree.body if not isinstance(n, ast.FunctionDef)]
        self.steps = 0

    def printed(self) -> list[str]:
        """What the statements outside functions print."""
        lines: list[str] = []
        for node in self.main:
            call = node.value if isinstance(node, ast.Expr) else None
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"):
                raise Refused("only print(...) may stand outside a function")
            try:
                lines.append(" ".join(str(self._value(a, {})) for a in call.args))
            except _FAILURES as error:
                raise Refused(f"it fails: {error}") from error
        return lines

    def call(self, name: str, *arguments: Any, depth: int = 0) -> Any:
        """Result of one of the program's functions."""
        function = self.functions.get(name)
        if function is None or depth > 20:
            raise Refused(f"there is no function {name}")
        parameters = [a.arg for a in function.args.args]
        if len(parameters) != len(arguments):
            raise Refused(f"{name} takes {len(parameters)} arguments")
        try:
            self._run(function.body, dict(zip(parameters, arguments)))
        except _Return as result:
            return result.value
        except _FAILURES as error:
            raise Refused(f"it fails: {error}") from error
        return None

    def _run(self, body: list[ast.stmt], names: dict[str, Any]) -> None:
        for node in body:
            self._tick()
            if isinstance(node, ast.Return):
                raise _Return(self._value(node.value, names) if node.value else None)
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = self._value(node.value, names)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                old = names.get(node.target.id)
                names[node.target.id] = self._binary(node.op, old, self._value(node.value, names))
            elif isinstance(node, ast.If):
                self._run(node.body if self._value(node.test, names) else node.orelse, names)
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Name):
                for item in self._value(node.iter, names):
                    names[node.target.id] = item
                    self._run(node.body, names)
            else:
                raise Refused(f"{type(node).__name__} is not allowed")

    def _value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self._tick()
        match node:
            case ast.Constant(value=value) if value is None or isinstance(value, (bool, int, str)):
                return self._bounded(value)
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.List(elts=items):
                return self._bounded([self._value(item, names) for item in items])
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(op, self._value(left, names), self._value(right, names))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand, names)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return _COMPARE[type(op)](self._value(left, names), self._value(right, names))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._value(body if self._value(test, names) else orelse, names)
            case ast.Subscript(value=value, slice=ast.Slice(lower=low, upper=high, step=step)):
                bounds = (None if b is None else self._value(b, names) for b in (low, high, step))
                return self._value(value, names)[slice(*bounds)]
            case ast.Subscript(value=value, slice=index):
                return self._value(value, names)[self._value(index, names)]
            case ast.ListComp(elt=elt, generators=[ast.comprehension(target=ast.Name(id=name), iter=source, ifs=tests)]):
                inner, out = dict(names), []
                for item in self._value(source, names):
                    inner[name] = item
                    if all(self._value(test, inner) for test in tests):
                        out.append(self._value(elt, inner))
                return self._bounded(out)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                values = [self._value(a, names) for a in arguments]
                return self._bounded(_CALLS[name](*values) if name in _CALLS else self.call(name, *values, depth=1))
            case ast.Call(func=ast.Attribute(value=value, attr=method), args=arguments, keywords=[]):
                owner = self._value(value, names)
                if method not in _METHODS.get(type(owner), ()):
                    raise Refused(f".{method} is not allowed")
                return self._bounded(getattr(owner, method)(*(self._value(a, names) for a in arguments)))
        raise Refused(f"{type(node).__name__} is not allowed")

    def _binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if type(op) not in _BINARY:
            raise Refused(f"{type(op).__name__} is not allowed")
        if isinstance(op, ast.Mod) and isinstance(left, str):
            raise Refused("text formatting is not allowed")  # '%999999999d' would fill the memory
        if isinstance(op, ast.Mult):
            # Refused before it is built, not after.
            for many, count in ((left, right), (right, left)):
                if isinstance(many, (str, list)) and isinstance(count, int) and len(many) * count > MAX_SIZE:
                    raise Refused("the value grows too large")
        if isinstance(op, ast.Mult) and any(type(x) is int and abs(x) > 10**9 for x in (left, right)):
            raise Refused("the value grows too large")
        return self._bounded(_BINARY[type(op)](left, right))

    def _bounded(self, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(item, list) for item in value):
            raise Refused("a list in a list is not allowed")  # x = [x, x] doubles what printing it costs
        size = value.bit_length() if isinstance(value, int) else len(value) if isinstance(value, (str, list)) else 0
        if size > MAX_SIZE:
            raise Refused("the value grows too large")
        return value

    def _tick(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Refused("it runs too long")
