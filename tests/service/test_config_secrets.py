"""No message, no `repr` and no printed configuration shows what is secret, wherever in the file the mistake is."""

from __future__ import annotations

from pathlib import Path

import pytest

from otelbridge.errors import ConfigError
from otelbridge.service.config import ServiceConfig
from otelbridge.service.config.effective import effective
from otelbridge.service.config.parse import load_config

HEAD = "version: 1\ninputs: [{files: /a.log}]\n"
ENV = {"HOME": "/home/someone", "TOKEN": "hunter2"}


def load(text: str, folder: Path) -> ServiceConfig:
    path = folder / "otelbridge.yaml"
    path.write_text(HEAD + text, "utf-8")
    return load_config(path, ENV)


def shown_of(text: str, folder: Path) -> str:
    """All that is shown of a file, whether it is good or not."""
    try:
        found = load(text, folder)
    except ConfigError as error:
        return f"{error} {error!r}"
    return f"{effective(found)} {found!r}"


GOOD = {
    "written out": "headers: {authorization: Bearer hunter2}",
    "of a variable": "headers: {authorization: 'Bearer ${env:TOKEN}'}",
    "of a file": "headers: {authorization: {file: token}}",
    "as a default": "headers: {authorization: '${env:NONE:-hunter2}'}",
    "in the address": "",
}


@pytest.mark.parametrize("where", GOOD)
def test_a_configuration_never_shows_its_secrets(where: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    host = "me:hunter2@h" if where == "in the address" else "h"
    found = load(f"destinations:\n  a:\n    endpoint: http://{host}/?key=hunter2\n    {GOOD[where]}\n", tmp_path)
    endpoint = found.destinations[0].endpoints["traces"]
    assert [name for name, _ in endpoint.headers] == ["authorization"]
    assert "hunter2" not in repr(found)
    shown = effective(found)
    assert "hunter2" not in shown
    assert "endpoint: http://h?***" in shown.replace("'", "")
    assert "headers: {authorization: '***'}" in shown


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3 cret\n", "s3 cret"),
        (b"s3cret", "s3cret"),
        (b"s3cret\n\n", None),
        (b"s3cret\r\n", "s3cret"),
        (b"", None),
        (b"\n", None),
    ],
)
def test_a_secret_of_a_file_is_its_content_without_the_last_newline(content: bytes, value: str | None, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    text = "destinations: {a: {endpoint: 'http://h', headers: {authorization: {file: token}}}}"
    if value is not None:
        assert load(text, tmp_path).destinations[0].endpoints["metrics"].headers == (("authorization", value),)
        return
    with pytest.raises(ConfigError, match=r"is empty|printable") as caught:
        load(text, tmp_path)
    assert "s3cret" not in str(caught.value)


BAD = {
    "beside a mistake": "destinations: {a: {headers: {authorization: hunter2}, endpont: http://h}}",
    "behind a mistake": "destinations: {a: {endpont: http://h, headers: {authorization: hunter2}}}",
    "twice": "destinations: {a: {endpoint: 'http://h', headers: {authorization: hunter2, Authorization: hunter2}}}",
    "the table twice": "destinations: {a: {endpoint: 'http://h', headers: {authorization: hunter2}, headers: {x: hunter2}}}",
    "below a misspelt key": "destinations: {a: {endpoint: 'http://h', header: {authorization: hunter2}}}",
    "below a misspelt key of the file": "destination: {a: {endpoint: 'http://h', headers: {authorization: hunter2}}}",
    "below a key of another table": "headers: {authorization: hunter2}",
    "in an input": "inputs: [{files: /a, headers: {authorization: hunter2}}]",
    "in a section": "telemetry: {headers: {authorization: hunter2}}",
    "as the header's name": "destinations: {a: {endpoint: 'http://h', headers: {Bearer hunter2}}}",
    "as the header's name, twice": "destinations: {a: {endpoint: 'http://h', headers: {Bearer hunter2, Bearer hunter2}}}",
    "as the header's name alone": "destinations: {a: {endpoint: 'http://h', headers: {hunter2}}}",
    "as a list": "destinations: {a: {endpoint: 'http://h', headers: [authorization=hunter2]}}",
    "as a text": "destinations: {a: {endpoint: 'http://h', headers: authorization=hunter2}}",
    "as a block": (
        "destinations:\n  a:\n    endpoint: http://h\n    headers:\n      authorization: |\n        hunter2\n        hunter2\n"
    ),
    "as a list in a header": "destinations: {a: {endpoint: 'http://h', headers: {authorization: [hunter2]}}}",
    "as a table in a header": "destinations: {a: {endpoint: 'http://h', headers: {authorization: {hunter2: }}}}",
    "beside a file": "destinations: {a: {endpoint: 'http://h', headers: {authorization: {file: x, hunter2: hunter2}}}}",
    "behind a tag": "destinations: {a: {endpoint: 'http://h', headers: {authorization: !hunter2 x}}}",
    "with a letter that cannot be sent": "destinations: {a: {endpoint: 'http://h', headers: {authorization: hunter2ü}}}",
    "with a reference": "destinations: {a: {endpoint: 'http://h', headers: {authorization: 'x${hunter2}'}}}",
    "with an open reference": "destinations: {a: {endpoint: 'http://h', headers: {authorization: '${hunter2'}}}",
    "with an unset variable": "destinations: {a: {endpoint: 'http://h', headers: {authorization: 'hunter2${env:NONE}'}}}",
    "in an address": "destinations: {a: {endpoint: 'ftp://me:hunter2@h'}}",
    "in an address with a path": "destinations: {a: {endpoint: 'http://me:hunter2@h/v1/traces?key=hunter2'}}",
    "in an address for gRPC": "destinations: {a: {endpoint: 'grpc://me:hunter2@h/?key=hunter2'}}",
    "in an address without a host": "destinations: {a: {endpoint: 'http://me:hunter2'}}",
    "in an address with a host and no @": "destinations: {a: {endpoint: 'http://me:hunter2.h:4318/base'}}",
    "in an address alone": "destinations: {a: 'http://me:hunter2@h'}",
    "in an address with another authorization": (
        "destinations: {a: {endpoint: 'http://me:hunter2@h', headers: {authorization: hunter2}}}"
    ),
    "in a key that is a table": "destinations:\n  a:\n    ? endpoint: http://me:hunter2@h\n",
    "no YAML": "destinations: {a: {headers: {authorization: hunter2}, [}}",
    "an alias": "destinations: {a: {headers: {authorization: *hunter2}}}",
    "a colon too many": "destinations:\n  a:\n    headers:\n      authorization: Basic: hunter2: x\n",
    "by an alias": (
        "destinations: {a: {endpoint: 'http://h', headers: &h {authorization: [hunter2]}}, b: {endpoint: x, headers: *h}}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", BAD)
def test_a_mistake_is_shown_without_the_secret(where: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(BAD[where], tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in repr(caught.value.problems)


TYPED = """\
destinations:
  a:
    endpoint: http://me:hunter2@h:1/?k=hunter2
    headers:
      authorization: "hunter2"
      x-key: {file: t}
    timeout: 1s
  b: {endpoint: 'grpc://h', headers: {k: hunter2}}
telemetry: {destination: b}
"""


@pytest.mark.parametrize(
    "mark", ["", "[", "]", "{", "}", ":", ": ", ",", "#", "'", '"', "? ", "- ", "*", "&", "!", "|", "\n", "\t", "$"]
)
def test_a_slip_of_the_finger_anywhere_shows_no_secret(mark: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("hunter2")
    for place in range(len(TYPED)):
        text = TYPED[:place] + mark + TYPED[place + (not mark) :]
        if text.count("hunter2") != TYPED.count("hunter2"):
            continue  # it is in the secret itself, which then is another word
        assert "hunter2" not in shown_of(text, tmp_path), text


def test_what_is_hidden_leaves_the_rest_of_the_line_and_its_caret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load("destinations: {a: {endpoint: http, headers: {authorization: hunter2, x: hunter2}, timeout: 5s}}", tmp_path)
    assert str(caught.value).splitlines()[1:3] == [
        "  3 |  destinations: {a: {endpoint: http, headers: {authorization: ***, x: ***}, timeout: 5s}}",
        "    |                               ^^^^",
    ]
