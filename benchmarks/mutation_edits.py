"""The edits of mutation testing: what is replaced where, as bytes, so that the rest of a file stays what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LEFT_OUT = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Continue, ast.Break, ast.Delete)


@dataclass(frozen=True)
class Mutant:
    """One edit of one module: bytes from `start` to `end` become `text`."""

    module: str
    line: int
    start: int
    end: int
    old: str
    text: str

    def applied(self, source: bytes) -> bytes:
        """The mutated module."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {' '.join(self.old.split())[:90]}  ->  {self.text[:90]}"


def mutants_of(module: str, source: bytes) -> Iterator[Mutant]:
    """All mutants of a module, without those that do not compile."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, text in _edits(ast.parse(source), in_compare=False):
        assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: S101, PT018 - parsed from text
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        mutant = Mutant(module, node.lineno, start, end, source[start:end].decode(), text)
        try:
            compile(mutant.applied(source), module, "exec")
        except SyntaxError:
            continue
        yield mutant


_Placed = ast.expr | ast.stmt


def _edits(node: ast.AST, *, in_compare: bool) -> Iterator[tuple[_Placed, str]]:
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.FunctionDef) and node.name == "__repr__"):
        return  # words for people; and places inside an f-string are not told before Python 3.12
    if isinstance(node, ast.expr):
        yield from ((node, f"({text})") for text in _of_expression(node, in_compare=in_compare))
    elif isinstance(node, ast.stmt):
        yield from ((node, text) for text in _of_statement(node))
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "keywords" if _is_class(node) else ""):
            continue
        for child in field if isinstance(field, list) else (field,):
            if isinstance(child, ast.AST):
                yield from _edits(child, in_compare=isinstance(node, ast.Compare))
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield node.test, f"(not ({ast.unparse(node.test)}))"


def _is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


def _of_expression(node: ast.expr, *, in_compare: bool) -> Iterator[str]:
    match node:
        case ast.Compare():
            for place, kind in enumerate(map(type, node.ops)):
                if kind in _COMPARE:
                    ops = [*node.ops[:place], _COMPARE[kind](), *node.ops[place + 1 :]]
                    yield ast.unparse(ast.Compare(node.left, ops, node.comparators))
        case ast.BoolOp():
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield ast.unparse(ast.BoolOp(other, node.values))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield ast.unparse(node.operand)
        case ast.BinOp() if type(node.op) in _BINARY:
            yield ast.unparse(ast.BinOp(node.left, _BINARY[type(node.op)](), node.right))
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            yield ast.unparse(ast.Call(ast.Name(_CALLED[name]), node.args, node.keywords))
        case ast.Constant():
            yield from _of_constant(node.value, in_compare=in_compare)


def _of_constant(value: object, *, in_compare: bool) -> Iterator[str]:
    match value:
        case bool():
            yield repr(not value)
        case int():
            yield repr({0: 1, 1: 2}.get(value, 2 * value))
        case float():
            yield repr(2 * value if value else 1.0)
        case str() if in_compare:
            yield repr(f"{value}?")


def _of_statement(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr(value=ast.Constant()):  # a docstring
            return
        case ast.Assign() if node.col_offset == 0:  # without a constant of the module nothing would run
            return
        case _ if isinstance(node, _LEFT_OUT):
            yield "pass"
