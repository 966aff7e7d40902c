"""Why a row left the pipeline: one closed vocabulary for every stage."""

from enum import StrEnum
from typing import Final


class DropReason(StrEnum):
    """Reason that a record was dropped or quarantined; the text is what users see in the funnel."""

    # ingest and dedup: it was not asked for
    NOT_SAMPLED = "not_sampled"
    # ingest: the line cannot be read
    LINE_TOO_LONG = "line_too_long"
    TRUNCATED = "truncated"
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    LONE_SURROGATE = "lone_surrogate"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    NUL_CHARACTER = "nul_character"
    # ingest: the line reads, but it is no conversation
    UNKNOWN_SHAPE = "unknown_shape"
    BAD_SHAPE = "bad_shape"
    UNKNOWN_ROLE = "unknown_role"
    EMPTY_MESSAGE = "empty_message"
    NO_ANSWER = "no_answer"
    UNSUPPORTED_PART = "unsupported_part"
    DISLIKED = "disliked"
    # ingest: a policy of [ingest] refuses it
    UNANSWERED = "unanswered"
    FIRST_ASSISTANT = "first_assistant"
    SAME_ROLE = "same_role"
    # length
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_FEW_TURNS = "too_few_turns"
    TOO_MANY_TURNS = "too_many_turns"
    MESSAGE_TOO_SHORT = "message_too_short"
    MESSAGE_TOO_LONG = "message_too_long"
    SCRIPT_SHARE = "script_share"
    TOO_MANY_SYMBOLS = "too_many_symbols"
    LONG_RUN = "long_run"
    REPEATED_LINES = "repeated_lines"
    PATTERN = "pattern"
    # dedup
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    ALL_COPIES = "all_copies"
    AGAINST = "against"
    CONTAMINATED = "contaminated"
    # render, tokenize, mask, pack
    TEMPLATE_ERROR = "template_error"
    LEFT_OUT = "left_out"
    CONTROL_TOKEN = "control_token"
    UNPROVEN = "unproven"
    NO_STOP = "no_stop"
    NOTHING_TO_LEARN = "nothing_to_learn"
    OVER_MAX_SEQ_LEN = "over_max_seq_len"


EXPLANATIONS: Final[dict[DropReason, str]] = {
    DropReason.NOT_SAMPLED: "it is not in the sample that share or limit of [source] and its sets, or [[dedup.caps]], ask for",
    DropReason.LINE_TOO_LONG: "the line is longer than [source] max_line_bytes",
    DropReason.TRUNCATED: "the file ends here though it should not, or cannot be unpacked any further; what follows is not read",
    DropReason.BAD_UTF8: "the line is not valid UTF-8; a file of another encoding has to be converted (iconv -f cp1252 -t utf-8)",
    DropReason.BAD_JSON: "the line, or JSON text inside it, is not valid JSON",
    DropReason.LONE_SURROGATE: "a string holds half of a surrogate pair, which no text can contain",
    DropReason.DUPLICATE_KEY: "a JSON object names the same key twice, so its meaning is ambiguous",
    DropReason.TOO_DEEP: "the JSON is nested too deeply",
    DropReason.NUL_CHARACTER: "a string holds the NUL character",
    DropReason.UNKNOWN_SHAPE: "the record has none of the known shapes (see docs/formats.md)",
    DropReason.BAD_SHAPE: "the record has a known shape, but a field has the wrong type, is not read, or contradicts another",
    DropReason.UNKNOWN_ROLE: "a message names a role that is not known",
    DropReason.EMPTY_MESSAGE: "a message has neither text nor tool calls",
    DropReason.NO_ANSWER: "no message of the assistant is left to learn from",
    DropReason.UNSUPPORTED_PART: "a message has a part that is neither text, reasoning nor a tool call, an image for example",
    DropReason.DISLIKED: "the record itself says that its answer is a bad one ([ingest] disliked)",
    DropReason.UNANSWERED: "the last message is not the assistant's ([ingest] trailing)",
    DropReason.FIRST_ASSISTANT: "the first message is the assistant's ([ingest] first_assistant)",
    DropReason.SAME_ROLE: "user or assistant speaks twice running ([ingest] same_role)",
    DropReason.TOO_SHORT: "the conversation has fewer characters or bytes than [length] asks for",
    DropReason.TOO_LONG: "the conversation has more characters or bytes than [length] allows",
    DropReason.TOO_FEW_TURNS: "the conversation, or a side of it, has fewer turns than [length] asks for",
    DropReason.TOO_MANY_TURNS: "the conversation, or a side of it, has more turns than [length] allows",
    DropReason.MESSAGE_TOO_SHORT: "a message has fewer characters or bytes than [length] asks of its side",
    DropReason.MESSAGE_TOO_LONG: "a message has more characters or bytes than [length] allows its side",
    DropReason.SCRIPT_SHARE: "the share of a script in what a side says is not as [[length.scripts]] asks",
    DropReason.TOO_MANY_SYMBOLS: "a message has a larger share of symbols than [[length.noise]] allows",
    DropReason.LONG_RUN: "a message repeats one character more often in a row than [[length.noise]] allows",
    DropReason.REPEATED_LINES: "a message has a larger share of repeated lines than [[length.noise]] allows",
    DropReason.PATTERN: "a message has a text that [[length.patterns]] matches",
    DropReason.EXACT_DUPLICATE: "the same text, once normalised, as its keeper",
    DropReason.NEAR_DUPLICATE: "similar to its keeper by at least its threshold of [clusters] (exact Jaccard)",
    DropReason.ALL_COPIES: "other rows are duplicates of it, and [clusters] copies = 0 says to keep none",
    DropReason.AGAINST: "similar to a row of [clusters] against by at least the threshold (exact Jaccard)",
    DropReason.CONTAMINATED: 'it contains a record of [clusters] evaluations, and contaminated = "drop" says to drop such rows',
    DropReason.TEMPLATE_ERROR: "the chat template refused or failed on this conversation",
    DropReason.LEFT_OUT: "the chat template leaves out or rewrites a part of it, and [render] left_out says to drop such rows",
    DropReason.CONTROL_TOKEN: "the content could not be encoded without producing a control token",
    DropReason.UNPROVEN: "the tokens do not spell the text, nor what the tokenizer's normaliser makes of it",
    DropReason.NO_STOP: "a turn of the assistant does not end on a trained stop token, and [mask] says to drop such rows",
    DropReason.NOTHING_TO_LEARN: "the mask leaves no token to train on",
    DropReason.OVER_MAX_SEQ_LEN: "the conversation has more tokens than max_seq_len, and [tokenize] too_long left nothing of it",
}
