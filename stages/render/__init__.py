"""Any Hugging Face chat template, unmodified, rendered while knowing for every character who wrote it."""

from stages.render.notes import report_render
from stages.render.probe import Probe, probe
from stages.render.program import for_tools
from stages.render.settings import Render, RenderError
from stages.render.stage import render_conversations

__all__ = ["Probe", "Render", "RenderError", "for_tools", "probe", "render_conversations", "report_render"]
