"""The Python that a template compiles to, changed where Jinja would lose who wrote a text or spend without count."""

from collections.abc import Callable
from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators

METERED: Final = " each"
"""Name of the filter that counts what a loop runs over; the space keeps templates from spelling it."""


def metered(template: nodes.Template) -> nodes.Template:
    """Wrap what every loop of the template runs over in the counting filter."""
    for loop in template.find_all(nodes.For):
        wrapped = nodes.Filter(loop.iter, METERED, [], [], None, None)
        loop.iter = wrapped.set_lineno(loop.lineno).set_environment(template.environment)  # type: ignore[arg-type]
    return template


class UnfoldedGenerator(CodeGenerator):
    """Compute nothing while compiling: a constant may be the size of the memory.

    Needs an environment with `optimized=False`.
    """

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, (nodes.TemplateData, nodes.Const)):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class TracingGenerator(UnfoldedGenerator):
    """Write calls of the environment for `+`, `~`, slices and output; leave the rest to Jinja."""

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        """Write a whole chain of `+` as one sum: one new string instead of one per operator."""
        parts: list[nodes.Expr] = []
        left: nodes.Expr = node
        while isinstance(left, nodes.Add):
            parts.append(left.right)
            left = left.left
        self._call("environment.add((", [left, *reversed(parts)], frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """Write `~` as a join of texts."""
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super().visit_Concat(node, frame)
        else:
            self._call("environment.concat(map(environment.text, (", node.nodes, frame, close=")))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """Write a slice as a metered cut."""
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        bounds = [bound or nodes.Const(None) for bound in (node.arg.start, node.arg.stop, node.arg.step)]
        self.write("environment.cut(")
        self.visit(node.node, frame)
        self._call(", slice(", bounds, frame)

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:  # noqa: N802
        """Charge for what `in` searches."""
        if node.op not in ("in", "notin"):
            super().visit_Operand(node, frame)
            return
        self.write(f" {operators[node.op]} environment.searched(")
        self.visit(node.expr, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        """Charge for what is in a container."""
        self._nest(super().visit_List, node, node.items, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        """Charge for what is in a container, where it is none of names to assign to."""
        if node.ctx == "store":
            super().visit_Tuple(node, frame)
        else:
            self._nest(super().visit_Tuple, node, node.items, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """Charge for what is in a container."""
        self._nest(super().visit_Dict, node, [pair.value for pair in node.items], frame)

    def _nest(self, write: Callable[..., None], node: nodes.Expr, items: list[nodes.Expr], frame: Frame) -> None:
        if all(isinstance(item, nodes.Const) for item in items):
            write(node, frame)
            return
        self.write("environment.nested(")
        write(node, frame)
        self.write(")")

    def _call(self, opening: str, arguments: list[nodes.Expr], frame: Frame, close: str = "))") -> None:
        self.write(opening)
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(close)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super()._output_child_pre(node, frame, finalize)
        else:
            self.write("environment.text(")
