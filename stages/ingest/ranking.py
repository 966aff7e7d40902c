"""What a record tells about itself by which one of two copies can be preferred: its score, and when it was made."""

import re
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final, NamedTuple

from stages.ingest.messages import bad_shape

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_BELOW: Final = 10**11
"""Numbers below are seconds since 1970 (to the year 5138), those from here on milliseconds (from March 1973)."""
MILLISECONDS_BELOW: Final = 10**14
_MICROSECOND: Final = timedelta(microseconds=1)
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[T ]((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d{1,6})?)?)\d*(Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
"""Date, time, zone. The standard's forms without hyphens and colons are left out: numbers in quotes would pass as them."""


class Ranking(NamedTuple):
    """Dotted keys of a record under which its score and its time stand; None where neither is asked for."""

    score: str | None = None
    created: str | None = None

    def of(self, record: Any) -> tuple[float | None, int | None]:
        """Return (score, microseconds since 1970) of a record; None for what it does not say, or says as null.

        Raises LineError for a value that is neither a number nor a time: to leave it out would rank the row by chance.
        """
        return (
            None if self.score is None else score_of(_under(record, self.score), self.score),
            None if self.created is None else created_of(_under(record, self.created), self.created),
        )


UNRANKED: Final = Ranking()


def score_of(value: Any, key: str) -> float | None:
    """Return the number `value`; raises LineError for anything that is neither a finite number nor null."""
    if value is None:
        return None
    if type(value) not in (int, float) or not _is_finite(value):
        raise bad_shape(key, "a finite number or null ([ingest] score)", value)
    return float(value)


def created_of(value: Any, key: str) -> int | None:
    """Return the microseconds from 1970 to the time `value`, null for null.

    A time is text as ISO 8601 and RFC 3339 have it (2024-05-01, 2024-05-01T12:30:00.5+02:00; UTC where it names no
    zone; what is finer than a microsecond is cut off), or a number: seconds since 1970 if it is below SECONDS_BELOW, else
    milliseconds. Raises LineError for anything else.
    """
    if value is None:
        return None
    try:
        time = _read_text(value) if type(value) is str else _read_number(value)
    except (ValueError, OverflowError):  # no such day, or outside the years 1 to 9999
        time = None
    if time is None:
        expected = "a time as ISO 8601 text or in (milli)seconds since 1970, or null ([ingest] created)"
        raise bad_shape(key, expected, value)
    return (time - EPOCH) // _MICROSECOND


def _under(record: Any, key: str) -> Any:
    """Return what stands under a dotted key, None where nothing does; a name with the very dots in it comes first."""
    if not isinstance(record, dict):  # a list of turns has no keys
        return None
    if key in record or "." not in key:
        return record.get(key)
    value: Any = record
    steps = key.split(".")
    for i, step in enumerate(steps):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise bad_shape(".".join(steps[:i]), f"an object with {step}, or null", value)
        value = value.get(step)
    return value


def _is_finite(number: float) -> bool:
    try:
        return isfinite(number)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def _read_text(text: str) -> datetime | None:
    match = _ISO.fullmatch(text.strip().upper())
    if match is None:
        return None
    day, clock, zone = match.groups()
    time = datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone or 'Z'}")
    return time.astimezone(UTC)


def _read_number(value: Any) -> datetime | None:
    if type(value) not in (int, float) or not abs(value) < MILLISECONDS_BELOW:
        return None
    microseconds = value * (10**6 if abs(value) < SECONDS_BELOW else 10**3)
    return EPOCH + timedelta(microseconds=round(microseconds))
