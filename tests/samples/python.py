"""Samples in Python: they run, and each line gives what the comment beside it says."""

from __future__ import annotations

import ast
from typing import Any


def promised(line: str) -> list[Any]:
    """The values in the comment of a line: those that it prints, or the one that it has."""
    comment = line.partition("  # ")[2].partition(":")[0] if "{" not in line else ""
    comment = comment or line.partition("  # ")[2]
    found, rest = [], comment.strip()
    while rest:
        for end in range(len(rest), 0, -1):
            try:
                found.append(ast.literal_eval(rest[:end].strip()))
            except (SyntaxError, ValueError):
                continue
            rest = rest[end:].strip()
            break
        else:
            return []  # words
    return found


def check(block: str, state: dict[str, Any]) -> int:
    """Run the lines with the names of ``state``, theirs added; how many values were looked at."""
    lines = block.splitlines()
    looked_at = 0

    class Keep(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.AST:
            values = promised(lines[node.lineno - 1])
            if not values:
                return node
            call = node.value
            given = call.args if is_print(call) else [call]
            record = ast.parse("record()").body[0]
            assert isinstance(record, ast.Expr)
            assert isinstance(record.value, ast.Call)
            record.value.args = [ast.Constant(node.lineno), *given]
            return ast.copy_location(record, node)

    def record(line: int, *given: object) -> None:
        nonlocal looked_at
        assert list(given) == promised(lines[line - 1]), lines[line - 1]
        looked_at += len(given)

    def is_print(call: ast.expr) -> bool:
        return isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print"

    tree = ast.fix_missing_locations(Keep().visit(ast.parse(block)))
    state["record"] = record
    exec(compile(tree, "sample", "exec"), state)
    return looked_at
