"""Small breaks of a module: each changes one place of its source so that some test should notice.

What is not broken: annotations, docstrings and other texts, decorators, `__all__`, and whatever stands inside an
f-string; and no `raise` loses its error, for then the type checker would notice.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One break."""

    kind: str
    line: int
    """1 for the first line of the module."""
    start: int
    end: int
    """Which bytes of the module's UTF-8 source are replaced."""
    text: str
    """By what."""

    def applied(self, source: str) -> str:
        """Return the broken source."""
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()


def mutants_of(source: str) -> list[Mutant]:
    """Return every break of a module, in the order of its source."""
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = []
    for kind, node, text in _breaks(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        mutant = Mutant(kind=kind, line=node.lineno, start=start, end=end, text=text)
        if mutant.applied(source) != source:
            found.append(mutant)
    return sorted(found, key=lambda one: (one.start, one.end, one.text))


_Break = tuple[str, ast.expr | ast.stmt, str]


def _breaks(node: ast.AST) -> Iterator[_Break]:
    if isinstance(node, ast.JoinedStr) or _is_names(node):
        return
    yield from _breaks_here(node)
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "bases"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _breaks(child)


def _is_names(node: ast.AST) -> bool:
    """Say whether a statement only names things: imports, `__all__`, a type alias, the condition of type checking."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.AnnAssign):
        return "TypeAlias" in ast.unparse(node.annotation)
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _breaks_here(node: ast.AST) -> Iterator[_Break]:
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.BoolOp():
            changed = copy.deepcopy(node)
            changed.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield "boolean", node, _expression(changed)
        case ast.UnaryOp(op=ast.Not()):
            yield "not", node, _expression(node.operand)
        case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
            yield "sign", node, _expression(node.operand)
        case ast.BinOp() if type(node.op) in _ARITHMETIC and not _is_text(node):
            changed_bin = copy.deepcopy(node)
            changed_bin.op = _ARITHMETIC[type(node.op)]()
            yield "arithmetic", node, _expression(changed_bin)
        case ast.AugAssign() if type(node.op) in _ARITHMETIC:
            changed_aug = copy.deepcopy(node)
            changed_aug.op = _ARITHMETIC[type(node.op)]()
            yield "arithmetic", node, ast.unparse(changed_aug)
        case ast.Constant(value=bool()):
            yield "constant", node, str(not node.value)
        case ast.Constant(value=int() | float()):
            yield "constant", node, repr(node.value + 1)
        case ast.If() | ast.While() | ast.IfExp():
            if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.Constant):
                yield "condition", node.test, f"(not {_expression(node.test)})"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return", node, "return None"
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "dropped call", node, "pass"
        case ast.Break():
            yield "loop", node, "continue"
        case ast.Continue():
            yield "loop", node, "break"


def _compared(node: ast.Compare) -> Iterator[_Break]:
    for place, operator in enumerate(node.ops):
        for other in _COMPARISONS.get(type(operator), ()):
            changed = copy.deepcopy(node)
            changed.ops[place] = other()
            yield "comparison", node, _expression(changed)


def _expression(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"


def _is_text(node: ast.BinOp) -> bool:
    """Say whether it joins or formats texts."""
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )
