"""Files named by URLs: on a real S3 server where moto is installed, and through pyarrow's own local file system."""

import gzip
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs
import pytest

from pipeline.config import load_config
from pipeline.run import build
from pipeline.source import Source, SourceError, expand, read_chunk, scan
from schemas.settings import ConfigError
from tests.corpus import write_config, write_corpus
from tests.pipeline.source_files import SMALL

LINES = b"".join(b'{"n": %d}\n' % i for i in range(1000))
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "known-to-nobody",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """Return host and port of an S3 server that runs as long as the tests do."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        os.environ.update(ENVIRONMENT)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
        for name in ENVIRONMENT:
            os.environ.pop(name, None)


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> tuple[pyarrow.fs.S3FileSystem, str, str]:
    """Return (file system, a new bucket, the options that a URL needs)."""
    name = f"bucket-{abs(hash(request.node.name))}"
    system = pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    system.create_dir(name)
    return system, name, f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"


def put(system: pyarrow.fs.FileSystem, path: str, data: bytes) -> None:
    with system.open_output_stream(path, compression=None) as file:
        file.write(data)


def raws(name: str, config: Source, spool: Path) -> list[bytes]:
    return [raw for chunk in scan(name, config, spool) for raw in read_chunk(chunk, config)["raw"]]


def test_objects_are_read_in_ranges_by_their_urls(bucket, tmp_path):
    system, name, options = bucket
    data = {
        "a.jsonl": LINES,
        "b.jsonl.gz": gzip.compress(LINES),
        "c.json": json.dumps([{"n": 1}, {"n": 2}]).encode(),
        "dir/文 d%.jsonl": b'{"n": 1}\n',
        "dir/deep/er/e.jsonl": b'{"n": 2}\n',
        "dir/readme.md": b"#",
    }
    for key, content in data.items():
        put(system, f"{name}/{key}", content)
    url = f"s3://{name}/"
    a = url + "a.jsonl" + options
    chunks = scan(a, SMALL, tmp_path)
    assert len(chunks) > 5
    assert {chunk.path for chunk in chunks} == {a}
    assert b"".join(raws(a, SMALL, tmp_path)) == LINES
    assert b"".join(raws(url + "b.jsonl.gz" + options, SMALL, tmp_path / "spool")) == LINES
    assert raws(url + "c.json" + options, SMALL, tmp_path) == [b'{"n": 1}', b'{"n": 2}']
    inside = url + "dir/文 d%25.jsonl" + options
    assert expand([url + "dir" + options]) == ([inside], [url + "dir/readme.md" + options])
    assert raws(inside, SMALL, tmp_path) == [b'{"n": 1}\n']
    found = {
        "*.jsonl": ["a.jsonl"],
        "[ac].json*": ["a.jsonl", "c.json"],
        "dir/**/*.jsonl": ["dir/deep/er/e.jsonl", "dir/文 d%25.jsonl"],
        "dir/**": ["dir/deep/er/e.jsonl", "dir/文 d%25.jsonl"],
        "*/*/er/*": ["dir/deep/er/e.jsonl"],
    }
    for pattern, names in found.items():
        assert expand([url + pattern + options])[0] == [url + each + options for each in names], pattern


def test_what_is_not_there_or_not_allowed_is_said(bucket, tmp_path):
    system, name, options = bucket
    for given in (f"s3://{name}/none.jsonl", f"s3://{name}/none/*.jsonl", "s3://no-such-bucket-here/a.jsonl"):
        with pytest.raises((ConfigError, SourceError), match=r"no such file|no file that is read|cannot be"):
            expand([given + options])
    put(system, f"{name}/a.jsonl", LINES)
    url = f"s3://{name}/a.jsonl{options}"
    (chunk, *_) = scan(url, SMALL, tmp_path)
    put(system, f"{name}/a.jsonl", LINES.replace(b"1", b"2"))
    with pytest.raises(SourceError, match="changed while the build was reading"):
        read_chunk(chunk, SMALL)
    system.delete_file(f"{name}/a.jsonl")
    with pytest.raises(SourceError, match="cannot be read"):
        read_chunk(chunk, SMALL)
    with pytest.raises(SourceError, match=r"cannot be read: .*no such file"):
        scan(url, SMALL, tmp_path)


def test_a_run_is_built_from_a_bucket_and_holds_nothing_secret(bucket, tmp_path):
    system, name, options = bucket
    corpus = write_corpus(tmp_path / "in" / "a.jsonl", 120)
    put(system, f"{name}/a.jsonl", corpus.read_bytes())
    put(system, f"{name}/b.jsonl.gz", gzip.compress(corpus.read_bytes().replace(b"a", b"b")))
    path = write_config(tmp_path, corpus)
    inputs = [f"s3://{name}/*{options}"]
    built = build(load_config(path, inputs=inputs), until="ingest")
    assert built.manifests["ingest"].totals.rows_in == 240
    assert {shard.source for shard in built.manifests["ingest"].shards} == {
        f"s3://{name}/{key}{options}" for key in ("a.jsonl", "b.jsonl.gz")
    }
    assert build(load_config(path, inputs=inputs), until="ingest").was_fresh
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"known-to-nobody" not in file.read_bytes()


def test_local_files_by_their_urls(tmp_path):
    directory = tmp_path / "a b 文"
    directory.mkdir()
    (directory / "x.jsonl").write_bytes(LINES)
    (directory / "y.txt").write_bytes(b"")
    url = f"file://{directory}"
    assert expand([url]) == ([f"{url}/x.jsonl"], [f"{url}/y.txt"])
    assert expand([f"{url}/*.jsonl", f"{url}/x.jsonl"])[0] == [f"{url}/x.jsonl"]
    assert b"".join(raws(f"{url}/x.jsonl", SMALL, tmp_path)) == LINES


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:hidden@bucket/a.jsonl",
        "s3://AKIA123:hid/den@bucket/a.jsonl",
        "s3://AKIA123@bucket/a.jsonl",
        "hdfs://me:hidden@host:9000/a.jsonl",
        "abfs://:hidden@account/a.jsonl",
        "abfs://container@account/a.jsonl?client_secret=hidden",
        "s3://bucket/a.jsonl?secret_key=hidden",
        "gs://bucket/a.jsonl?access_token=hidden",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="has credentials in it") as refused:
        expand([url])
    for secret in ("hid", "AKIA"):
        assert secret not in str(refused.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_urls_that_nothing_can_read_say_what_can():
    for url, said in {
        "https://host/a.jsonl": "https:// cannot be read; known: s3, .*; download it first",
        "https://user:hidden@host/a.jsonl?sig=hidden": "input 'https://host/a.jsonl': a URL of https:// cannot be read",
        "https://huggingface.co/datasets/org/name/tree/main": "or give 'hf://datasets/org/name'",
        "zzz://host/a.jsonl": "zzz:// cannot be read; known: s3",
    }.items():
        with pytest.raises(ConfigError, match=said):
            expand([url])
    with pytest.raises(SourceError, match=r"cannot be (reached|listed)"):
        expand(["s3://bucket/a.jsonl?endpoint=typo"])
