"""The stand-in for Slack keeps what it is sent, and answers as Slack does."""

from __future__ import annotations

import json
import stat
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from localcloud.slack_sink import PATH, Sink


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    running = Sink(0, tmp_path / "slack.jsonl")
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def post(sink: Sink, body: bytes, path: str = PATH) -> bytes:
    url = f"http://127.0.0.1:{sink.server_address[1]}{path}"
    with urllib.request.urlopen(url, body, timeout=5) as answer:
        return bytes(answer.read())


def test_every_message_is_kept_on_a_line_of_its_own_and_privately(sink: Sink) -> None:
    messages = [{"text": "one\ntwo"}, {"blocks": [{"type": "section", "text": "é"}]}]

    assert [post(sink, json.dumps(each).encode()) for each in messages] == [b"ok", b"ok"]

    kept = [json.loads(line)["message"] for line in sink.file.read_text().splitlines()]
    assert kept == messages
    assert stat.S_IMODE(sink.file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("body", "path", "status"), [(b"not json", PATH, "400"), (b"{}", "/elsewhere", "404")]
)
def test_what_slack_would_refuse_is_refused_and_not_kept(
    sink: Sink, body: bytes, path: str, status: str
) -> None:
    with pytest.raises(HTTPError, match=status):
        post(sink, body, path)

    assert not sink.file.exists()
