"""Text and its spans in, token ids and the same spans in tokens out: one pass, no prefix is ever encoded again."""

from stages.tokenize.encode import encode_conversations
from stages.tokenize.report import report_tokens
from stages.tokenize.settings import Tokenize
from stages.tokenize.stage import tokenize_conversations

__all__ = ["Tokenize", "encode_conversations", "report_tokens", "tokenize_conversations"]
