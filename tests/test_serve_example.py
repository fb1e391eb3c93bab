"""examples/serve.py: the model behind a page and an HTTP interface."""

from __future__ import annotations

import ast
import base64
import http.client
import io
import json
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "examples" / "serve.py"
WORDS = {"modality": "text", "text": "a red ball"}
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    serving = runpy.run_path(str(SCRIPT))["server"](port=0)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield serving.server_port
    serving.shutdown()
    thread.join()
    serving.server_close()


def ask(
    port: int,
    body: Any,
    path: str = "/generate",
    kind: str = "application/json",
    **headers: str,
) -> Lines:
    """Return the lines of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    connection.request("POST", path, text, {"Content-Type": kind} | headers)
    return [json.loads(line) for line in connection.getresponse().read().splitlines()]


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def png(colour: str = "red") -> str:
    Image.new("RGB", (80, 80), colour).save(buffer := io.BytesIO(), "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_the_page_and_the_modalities_are_there(port: int) -> None:
    assert "<title>codi</title>" in get(port, "/")[1]
    listed = json.loads(get(port, "/modalities")[1])
    assert [m["name"] for m in listed] == ["text", "image", "video", "audio"]
    assert [m["written"] for m in listed] == [True, False, False, False]
    assert get(port, "/else")[0] == 404


def test_a_request_is_told_step_by_step_and_answered(port: int) -> None:
    image = {"modality": "image", "name": "ball.png", "data": png(), "weight": 0.5}
    asked = {"conditions": [WORDS, image], "to": ["image", "text", "audio"], "seeds": [0, 1]}
    *steps, last = ask(port, asked | {"steps": 2, "guidance": {"image": 2.0}})
    assert steps == [{"step": 1, "steps": 2}, {"step": 2, "steps": 2}]
    assert all(isinstance(text, str) and text for text in last["made"]["text"])
    kind, _, data = last["made"]["image"][1].partition(";base64,")
    assert kind == "data:image/png"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
    assert last["made"]["audio"][0].startswith("data:audio/")
    assert last["notes"] == ["ball.png: resized to 64x64"]
    assert last["settings"]["steps"] == 2


def test_the_guides_program_runs(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (SCRIPT.parents[1] / "docs" / "howto" / "serve.md").read_text()
    program = guide.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ball.png").write_bytes(base64.b64decode(png()))
    exec(program.replace("8000", str(port)).replace('"seeds"', '"steps": 1, "seeds"'), {})
    said = ast.literal_eval(capsys.readouterr().out)
    assert len(said) == 2


def test_a_stream_may_be_kept(port: int) -> None:
    kept = {"image": {"data": png("blue")}}
    *_, last = ask(port, {"keep": kept, "to": ["text"], "steps": 1})
    assert last["made"].keys() == {"text", "image"}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("{", "expected JSON: Expecting property name"),
        ("[" * 100_000, "expected JSON"),
        (b"\xff", "expected JSON"),
        ([], "expected an object"),
        ({"conditions": [WORDS]}, "expected an object"),
        ({"conditions": [WORDS], "to": ["immage"]}, "did you mean 'image'"),
        ({"conditions": [WORDS | {"weight": "x"}], "to": ["image"]}, "expected a number as weight"),
        ({"conditions": "red", "to": ["image"]}, "conditions: expected a JSON array"),
        ({"conditions": ["red"], "to": ["image"]}, "expected a condition such as"),
        ({"conditions": [WORDS], "to": ["image"], "callback": "x"}, "unknown key 'callback'"),
        ({"conditions": [WORDS], "to": ["image"], "seeds": [0] * 9}, "at most 8 at once"),
        ({"conditions": [WORDS], "to": ["image"], "seeds": ["a"]}, "seeds: expected"),
        # No file of the machine can be asked for by its name.
        ({"conditions": [{"modality": "image", "text": __file__}], "to": ["text"]}, "base64"),
        ({"keep": {"image": __file__}, "to": ["text"]}, "base64"),
        (
            {"conditions": [{"modality": "image", "name": "../a/b.png", "data": "aGkh"}]}
            | {"to": ["text"]},
            "b.png: is a text file, not a picture",
        ),
    ],
)
def test_what_is_wrong_is_one_line(port: int, body: Any, wanted: str) -> None:
    [line] = ask(port, body)
    assert wanted in line["error"]
    assert "tmp" not in line["error"]


def test_pages_of_other_sites_cannot_ask(port: int) -> None:
    body = {"conditions": [WORDS], "to": ["image"]}
    [line] = ask(port, body, kind="text/plain")
    assert "takes application/json" in line["error"]
    [line] = ask(port, body, path="/else")
    assert "POST /generate" in line["error"]
    [line] = ask(port, body, Host="evil.example:80")
    assert line["error"] == "ask 127.0.0.1 or localhost"


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("..", "file"),
        ("a/..", "file"),
        ("a\0b.png", "ab.png"),
        ("x" * 300, "x" * 60),
        (None, "file"),
    ],
)
def test_a_file_has_the_name_that_it_may_have(port: int, name: str | None, called: str) -> None:
    image = {"modality": "image", "data": png()} | ({} if name is None else {"name": name})
    *_, last = ask(port, {"conditions": [image], "to": ["text"], "steps": 1})
    assert last["notes"] == [f"{called}: resized to 64x64"]


def test_a_failure_of_the_server_is_said(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("codi.pipeline.Pipeline.generate", fails)
    [line] = ask(port, {"conditions": [WORDS], "to": ["text"]})
    assert line["error"] == "the server failed; its log says why"
