"""The Python that a template compiles to, changed where Jinja would lose who wrote a text or spend without count."""

from typing import Any, Final

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame, operators

EACH: Final = " each"
BODY: Final = " body"
"""Filters that stand in the tree for what is charged. The space keeps templates from spelling them; no environment has them."""
NODES_PER_STEP: Final = 64
"""Nodes of a body that may run for one step."""
MAX_CONST: Final = 256
"""Characters or items of a constant up to which comparing with it costs nothing worth counting."""
MEMBERSHIP: Final = frozenset({"in", "notin"})


def metered(template: nodes.Template) -> nodes.Template:
    """Charge for whatever runs more than once: an iteration or call costs one step, and one for every 64 nodes in it."""
    _meter(template, template.environment)
    return template


def _meter(node: nodes.Node, environment: Any) -> int:
    """Return how many nodes there are from `node` downwards."""
    size = 1
    for child in node.iter_child_nodes():
        size += _meter(child, environment)

    def priced(value: Any, name: str) -> nodes.Filter:
        weight = nodes.Const(1 + size // NODES_PER_STEP)
        found = nodes.Filter(value, name, [weight], [], None, None)
        return found.set_lineno(node.lineno).set_environment(environment)  # type: ignore[return-value]

    if isinstance(node, nodes.For):
        node.iter = priced(node.iter, EACH)
    if isinstance(node, (nodes.Macro, nodes.CallBlock, nodes.Block)) or (
        isinstance(node, nodes.For) and node.recursive
    ):
        node.body.insert(0, nodes.ExprStmt(priced(nodes.Const(None), BODY)).set_lineno(node.lineno))
    return size


class MeteredGenerator(CodeGenerator):
    """Write calls of the environment for whatever makes much out of little or walks much; leave the rest to Jinja.

    Nothing is computed while compiling, since a constant may be the size of the memory: needs an environment with
    `optimized=False`.
    """

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, (nodes.TemplateData, nodes.Const)):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802
        """Write what `metered` put into the tree."""
        if node.name == EACH:
            self._call("environment.meter.each(", [node.node, *node.args], frame)
        elif node.name == BODY:
            self._call("environment.meter.charge(", node.args, frame)
        else:
            super().visit_Filter(node, frame)

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:  # noqa: N802
        """Write a whole chain of `+` as one sum: one new string instead of one per operator."""
        parts: list[nodes.Expr] = []
        left: nodes.Expr = node
        while isinstance(left, nodes.Add):
            parts.append(left.right)
            left = left.left
        self._call("environment.add((", [left, *reversed(parts)], frame, close="))")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """Write `~` as a join of texts."""
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            join = (
                "(markup_join if context.eval_ctx.volatile else str_join)" if frame.eval_ctx.volatile else "markup_join"
            )
            self._call(f"environment.escaped({join}, (", node.nodes, frame, close="))")
        else:
            self._call("environment.concat(map(environment.text, (", node.nodes, frame, close=")))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """Write a slice as a metered cut, and weigh a key, which is hashed or named in an error."""
        if isinstance(node.arg, nodes.Const):
            super().visit_Getitem(node, frame)
        elif isinstance(node.arg, nodes.Slice):
            bounds = [bound or nodes.Const(None) for bound in (node.arg.start, node.arg.stop, node.arg.step)]
            self._call("environment.cut(", [node.node], frame, close="")
            self._call("slice(", bounds, frame, close="))")
        else:
            self._call("environment.getitem(", [node.node], frame, close="")
            self._walked(node.arg, frame)
            self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """Weigh the keys, which are hashed."""
        self.write("{")
        for pair in node.items:
            self._walked(pair.key, frame)
            self.write(": ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        """Weigh both sides, unless one is so small a constant that the other is not walked either."""
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        names = [None, *(operand.op for operand in node.ops)]
        self.write("(")
        for at, (name, operand) in enumerate(zip(names, operands, strict=True)):
            if name is not None:
                self.write(f" {operators[name]} ")
            neighbours = operands[max(at - 1, 0) : at] + operands[at + 1 : at + 2]
            if name in MEMBERSHIP and not _is_small(operand):
                self._call("environment.meter.searched(", [operand], frame)
            elif all(map(_is_small, neighbours)):
                self.visit(operand, frame)
            else:
                self._walked(operand, frame)
        self.write(")")

    def _walked(self, node: nodes.Expr, frame: Frame) -> None:
        if _is_small(node):
            self.visit(node, frame)
        else:
            self._call("environment.meter.walked(", [node], frame)

    def _call(self, opening: str, arguments: list[Any], frame: Frame, close: str = ")") -> None:
        self.write(opening)
        for argument in arguments:
            self.visit(argument, frame)
            self.write(", ")
        self.write(close)

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super()._output_child_pre(node, frame, finalize)
            self.write("environment.meter.walked(")
        else:
            self.write("environment.text(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            self.write(")")
        super()._output_child_post(node, frame, finalize)


def _is_small(node: nodes.Expr) -> bool:
    """Tell whether a node is a constant, a list of constants or a yes or no, which costs nothing to walk."""
    if isinstance(node, (nodes.Compare, nodes.Not, nodes.Test)):
        return True
    if isinstance(node, nodes.Const):
        return not isinstance(node.value, str) or len(node.value) <= MAX_CONST
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return len(node.items) <= MAX_CONST and all(
            isinstance(item, nodes.Const) and _is_small(item) for item in node.items
        )
    return False
