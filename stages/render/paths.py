"""Ways through a template, found once each: a tree of the questions it asks, with a skeleton at every end."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from stages.render.regions import Boundaries
from stages.render.renderer import FAILURES, Renderer
from stages.render.settings import Render
from stages.render.skeleton import Skeleton, skeleton
from stages.render.symbol import Inquiry, ObservedError, Question
from stages.render.views import fields_of, role_of

MAX_WEIGHT: Final = 300_000
"""Questions and parts that are remembered, of some 200 bytes each; beyond, all is forgotten, which changes no result."""
PATIENCE: Final = 3
"""Of so many conversations of one form that go unknown ways, one is explored: that costs as much as rendering five."""


class Branch:
    """A question, and where its answers lead; None where nobody has been yet."""

    __slots__ = ("answer", "literal", "message", "no", "question", "view", "yes")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.message, self.view = question.slot
        self.literal = question.literal
        self.answer = question.decide
        self.yes: Node | None = None
        self.no: Node | None = None


Node: TypeAlias = Branch | Skeleton | Literal["unknown"]
"""unknown: what the template does there can only be seen by rendering the real text."""


class Paths:
    """What is known of one template. Its knowledge depends on the template alone, never on the order of conversations."""

    def __init__(self, renderer: Renderer, boundaries: Boundaries, config: Render) -> None:
        self.renderer, self.boundaries, self.config = renderer, boundaries, config
        self.roots: dict[bytes, Node] = {}
        self.weight = 0
        self._strangers: dict[bytes, int] = {}

    def is_worth_exploring(self, form: bytes) -> bool:
        """Count one more conversation of a form that goes an unknown way; tell whether to explore it."""
        if form not in self._strangers:
            self._make_room(1)
        n_strangers = self._strangers[form] = self._strangers.get(form, 0) + 1
        return n_strangers % PATIENCE == 0

    def explore(self, form: bytes, texts: dict[tuple[int, str], str]) -> Node:
        """Render one conversation of `form` symbolically; return, and remember, where its way ends.

        `form` holds a code for each message (see stages.render.views); `texts` are its contents and reasonings, by message
        and field, none of them blank.
        """
        roles = [role_of(code) for code in form]
        has_reasoning = ["reasoning" in fields_of(code) for code in form]
        inquiry = Inquiry(texts)
        end: Node
        try:
            rendered = self.renderer.render_symbols(roles, has_reasoning, inquiry, self.config)
            found = skeleton(rendered, roles, has_reasoning, self.boundaries)
            end = found._replace(is_asked=any(answer for _, answer in inquiry.path))
        except (ObservedError, *FAILURES):
            end = "unknown"
        self._remember(form, inquiry.path, end)
        return end

    def _make_room(self, weight: int) -> None:
        if self.weight >= MAX_WEIGHT:
            self.roots.clear()
            self._strangers.clear()
            self.weight = 0
        self.weight += weight

    def _remember(self, form: bytes, path: Sequence[tuple[Question, bool]], end: Node) -> None:
        self._make_room(1 + len(path) + (len(end.parts) if isinstance(end, Skeleton) else 0))
        if not path:
            self.roots[form] = end
            return
        node = self.roots.setdefault(form, Branch(path[0][0]))
        for at, (_, answer) in enumerate(path):
            assert isinstance(node, Branch)  # the same answers lead to the same question
            last = at + 1 == len(path)
            following = node.yes if answer else node.no
            if following is None:
                following = end if last else Branch(path[at + 1][0])
                if answer:
                    node.yes = following
                else:
                    node.no = following
            node = following
