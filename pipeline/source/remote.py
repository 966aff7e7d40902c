"""Files that lie elsewhere, named by URLs such as s3://bucket/file.jsonl: read through pyarrow.fs.

Nothing secret may stand in a URL, for URLs become ids and stand in manifests.
"""

import functools
import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs

from pipeline.source.chunk import SourceError
from schemas.settings import ConfigError

SCHEMES: Final = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
_SECRET: Final = re.compile(r"secret|token|passw|key|sig", re.IGNORECASE)
_WILD: Final = re.compile(r"\*\*/|\*\*|\*|\[[^\]]+\]|[^*\[]+|\[")
_AHEAD: Final = 8 << 20
"""Bytes asked for at a time where a file is read from its beginning to its end: each time is a request."""
_HUB: Final = "huggingface.co"
_PATIENCE: Final = "30"
"""Seconds after which Google's client gives up; its own default is 15 minutes."""


def check_url(url: str, what: str) -> None:
    """Raise ConfigError for a URL that cannot be read, or that holds something secret, which is then not repeated."""
    scheme = url.partition("://")[0].lower()
    place, path, query = urlsplit(url)[1:4]
    if scheme not in SCHEMES:
        hint = "; download it first" if scheme in ("http", "https") else ""
        dataset = re.match(r"/datasets/([^/]+/[^/]+)", path) if place == _HUB else None
        if dataset is not None:
            hint += f", or give {f'hf://datasets/{dataset[1]}'!r}, the dataset that it is of"
        plain = f"{scheme}://{place.rpartition('@')[2]}{path}"  # a password and a signature are not repeated
        raise ConfigError(f"{what} {plain!r}: a URL of {scheme}:// cannot be read; known: {', '.join(SCHEMES)}{hint}")
    user = place.rpartition("@")[0]
    is_secret = ":" in user or (scheme == "s3" and ("@" in place or ":" in place))
    if is_secret or any(_SECRET.search(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ConfigError(
            f"{what}: a URL of {scheme}:// has credentials in it, which ids and manifests would repeat. Give them by the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, ...) or its own "
            "file (~/.aws/credentials)"
        )


def connect(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return (file system, path in it) of a URL. Raises SourceError."""
    parts = urlsplit(url)
    system, prefix = _connected(parts.scheme, parts.netloc, parts.query)
    return system, (prefix + unquote(parts.path)).rstrip("/")


@functools.lru_cache(maxsize=16)
def _connected(scheme: str, place: str, query: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return (file system, what stands before the path of a URL in it). Raises SourceError."""
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query}&retry_limit_seconds={_PATIENCE}".lstrip("&")
    url = f"{scheme}://{place}/x?{query}" if query else f"{scheme}://{place}/x"
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(url)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{scheme}://{place}: cannot be reached: {_words(error)}") from None
    return system, path.removesuffix("/x")


def open_stream(url: str) -> tuple[pa.NativeFile, int]:
    """Return (the file at a URL, to be read from beginning to end; its size). Raises OSError."""
    system, path = connect(url)
    info = system.get_file_info(path)
    if info.type != pyarrow.fs.FileType.File:
        raise FileNotFoundError(2, "there is no such file")
    return system.open_input_stream(path, compression=None, buffer_size=_AHEAD), info.size


def open_anywhere(url: str) -> tuple[pa.NativeFile, int]:
    """Return (the file at a URL, to be read from any place; its size). Raises OSError."""
    system, path = connect(url)
    file = system.open_input_file(path)
    return file, file.size()


def find(url: str, what: str) -> tuple[list[str], bool]:
    """Return (URLs of the files that a URL names, in order; whether it names a directory, or one and all below it by /**).

    It names a file, the files of a directory, or those that a pattern with *, ** or [...] fits. Raises ConfigError for
    one that does not exist, SourceError where nothing can be reached.
    """
    check_url(url, what)
    parts = urlsplit(url)
    head, tail = f"{parts.scheme}://{parts.netloc}", f"?{parts.query}" if parts.query else ""
    system, path = connect(url)
    prefix = path.removesuffix(unquote(parts.path).rstrip("/"))
    wild = min((path.index(mark) for mark in "*[" if mark in path[len(prefix) :]), default=None)
    try:
        if wild is None:
            info = system.get_file_info(path)
            if info.type == pyarrow.fs.FileType.File:
                return [url], False
            if info.type == pyarrow.fs.FileType.NotFound:
                raise ConfigError(f"{what} {url!r}: there is no such file or directory")
            base, pattern = path, None
        else:
            base = path[:wild].rpartition("/")[0]
            pattern = re.compile("".join(map(_translated, _WILD.findall(path))))
        is_deep = pattern is not None and ("**" in path or "/" in path[wild:])
        found = system.get_file_info(
            pyarrow.fs.FileSelector(base, recursive=is_deep, allow_not_found=pattern is not None)
        )
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{what} {url}: cannot be listed: {_words(error)}") from None
    names = sorted(info.path for info in found if info.type == pyarrow.fs.FileType.File)
    names = [name for name in names if pattern is None or pattern.fullmatch(name)]
    named = [head + quote(name.removeprefix(prefix), safe=_PLAIN) + tail for name in names]
    return [_readable(name) for name in named], pattern is None or path.endswith("/**")


_PLAIN: Final = "/!$&'()*+,;=:@~[] "


def _readable(url: str) -> str:
    """Return a URL with the letters of all languages as they are: Arrow wants them quoted, people do not."""
    return re.sub(r"(?:%[89A-F][0-9A-F])+", lambda found: unquote(found[0]), url)


def _translated(part: str) -> str:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return known.get(part) or (part if part.startswith("[") and len(part) > 1 else re.escape(part))


def _words(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return re.sub(r"://[^/\s'\"]*@", "://", text)
