"""The default model behind a page and an HTTP interface, with Python's own server.

python examples/serve.py                     then open http://127.0.0.1:8000
python examples/serve.py models/mine 9000    another model, another port

POST /generate takes a JSON object and answers in lines of JSON: one for each step, one at the end.

    {"conditions": [{"modality": "text", "text": "a red ball bounces"}],
     "to": ["video", "audio"], "seeds": [0]}

    {"step": 1, "steps": 20}
    ...
    {"made": {"video": ["data:video/mp4;base64,..."], "audio": [...]}, "notes": [], "settings": {}}

A condition is written, as `text`, or is a file: its bytes in base64 as `data`, and its `name`.
`keep` holds such files by modality. All other keys are arguments of `Pipeline.generate`. What is
wrong with a request is {"error": "..."}. GET /modalities lists what the model knows.

It is meant for one machine and its user: it listens on 127.0.0.1 alone, and makes one request at a
time. For more, put a server of yours before it that knows who may ask, and how often.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mimetypes
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import codi
from codi.config import ConfigError
from codi.generation import Generation
from codi.media.errors import MediaError
from codi.modalities import modality, names

PAGE = Path(__file__).with_name("serve.html")
MOST_BYTES = 64 * 2**20
MOST_SEEDS = 8
_LONGEST_NAME = 60
_ARGUMENTS = {
    "conditions",
    "keep",
    "to",
    "seeds",
    "steps",
    "guidance",
    "sampler",
    "eta",
    "negative",
}

Say = Callable[[dict[str, Any]], None]


class Service:
    """A pipeline that answers one request at a time."""

    def __init__(self, pipeline: codi.Pipeline) -> None:
        self.pipeline = pipeline
        self.turn = threading.Lock()

    def generate(self, request: Any, say: Say) -> None:
        """Do a request; say each step, then what was made.

        Raises:
            ConfigError, MediaError: what the caller can mend.
        """
        arguments = _checked(request)
        with tempfile.TemporaryDirectory() as folder, self.turn:
            for key in ("conditions", "negative"):
                arguments[key] = [_condition(c, Path(folder)) for c in arguments.get(key, [])]
            kept = arguments.get("keep", {})
            arguments["keep"] = {name: _source(name, kept[name], Path(folder)) for name in kept}
            try:
                made = self.pipeline.generate(
                    **arguments, callback=lambda step, steps: say({"step": step, "steps": steps})
                )
            except (ConfigError, MediaError) as error:  # files are called as the caller calls them
                raise ConfigError(_without(str(error), folder)) from error
            say(self._told(made, Path(folder)))

    def _told(self, made: Generation, folder: Path) -> dict[str, Any]:
        """Return what was made as JSON: media as `data:` addresses, texts as they are."""
        notes = [_without(note, str(folder)) for note in made.notes]
        outputs: dict[str, list[str]] = {}
        for name, items in made.items():
            media, entry = self.pipeline.config.media(name), modality(name)
            outputs[name] = []
            for item in items:
                if entry.is_caption:
                    outputs[name].append(str(item))
                    continue
                media.save(item, file := folder / f"made.{entry.suffix}")
                kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
                data = base64.b64encode(file.read_bytes()).decode()
                outputs[name].append(f"data:{kind};base64,{data}")
        return {"made": outputs, "notes": notes, "settings": made.settings}


def _without(message: str, folder: str) -> str:
    """Return a message that calls files in a folder by their names alone."""
    return re.sub(re.escape(folder) + r"/\w+/", "", message)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or a thousand brackets
        raise ConfigError(f"expected JSON: {error}") from error


def _checked(request: Any) -> dict[str, Any]:
    """Return a request whose files can be looked for; the pipeline checks the rest."""
    if not isinstance(request, dict) or not request.get("to"):
        raise ConfigError('expected an object such as {"conditions": [...], "to": ["image"]}')
    if strange := request.keys() - _ARGUMENTS:
        raise ConfigError(f"unknown key {min(strange)!r}; known: {', '.join(sorted(_ARGUMENTS))}")
    kinds = {"conditions": list, "negative": list, "keep": dict, "seeds": list}
    for key, kind in kinds.items():
        if not isinstance(request.get(key, kind()), kind):
            raise ConfigError(f"{key}: expected a JSON {'object' if kind is dict else 'array'}")
    if len(request.get("seeds", ())) > MOST_SEEDS:
        raise ConfigError(f"{len(request['seeds'])} seeds; at most {MOST_SEEDS} at once")
    return dict(request)


def _condition(given: Any, folder: Path) -> codi.Condition:
    if not isinstance(given, dict) or not isinstance(given.get("modality"), str):
        raise ConfigError('expected a condition such as {"modality": "text", "text": "a red ball"}')
    name, weight = given["modality"], given.get("weight", 1.0)
    if not isinstance(weight, int | float):
        raise ConfigError(f"{name}: expected a number as weight, got {weight!r}")
    return codi.Condition(name, _source(name, given, folder), weight)


def _source(name: str, given: Any, folder: Path) -> str | Path:
    """Return words, or a file of the bytes that were sent: a caller names no file of this machine.

    Args:
        name: its modality.
        given: `text`, or `data` and the `name` that messages call it by.
        folder: of files.
    """
    fields = given if isinstance(given, dict) else {}
    if isinstance(fields.get("text"), str) and modality(name).is_caption:
        return fields["text"]
    try:
        data = base64.b64decode(fields["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        wanted = '"text"' if modality(name).is_caption else 'a file\'s bytes in base64 as "data"'
        raise ConfigError(f"{name}: expected {wanted}") from error
    # Messages call the file by its name, of which what could lead elsewhere is left out.
    called = re.sub(r"[^\w .-]", "", Path(str(fields.get("name") or "")).name).strip(". ")
    file = Path(tempfile.mkdtemp(dir=folder)) / (called[-_LONGEST_NAME:] or "file")
    file.write_bytes(data)
    return file


class Handler(BaseHTTPRequestHandler):
    """The page, the list of modalities, and requests."""

    service: Service

    def do_GET(self) -> None:
        """Answer with the page or the list."""
        if not self._is_asked_here():
            return
        if self.path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif self.path == "/modalities":
            listed = [
                {"name": m.name, "summary": m.summary, "written": m.is_caption}
                for m in map(modality, names())
                if m.name in self.service.pipeline.config.modalities
            ]
            self._answer(200, "application/json", json.dumps(listed).encode())
        else:
            self._answer(404, "application/json", b'{"error": "there are / and /modalities"}')

    def do_POST(self) -> None:
        """Do a request, and send each line when it is known."""
        if not self._is_asked_here():
            return
        # A page of another site can post forms unasked, but not this type.
        is_json = self.headers.get_content_type() == "application/json"
        length = self.headers.get("Content-Length") or ""
        size = int(length) if length.isdecimal() else 0
        if self.path != "/generate" or not is_json or not 0 < size <= MOST_BYTES:
            wanted = f"POST /generate takes application/json of at most {MOST_BYTES} bytes"
            self._answer(400, "application/json", json.dumps({"error": wanted}).encode())
            return
        body = self.rfile.read(size)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        try:
            self._serve(body)
        except ConnectionError:  # who asked has left, in the middle of the steps too
            self.log_message("nobody waits for the answer any more")

    def _serve(self, body: bytes) -> None:
        try:
            self.service.generate(_parsed(body), self._say)
        except (ConfigError, MediaError) as error:
            self._say({"error": str(error)})
        except ConnectionError:
            raise
        except Exception:
            self.log_error("%s", traceback.format_exc())
            self._say({"error": "the server failed; its log says why"})

    def _is_asked_here(self) -> bool:
        """Refuse a name that a page of another site may have made lead to this machine."""
        host = (self.headers.get("Host") or "").partition(":")[0]
        if host in ("127.0.0.1", "localhost"):
            return True
        self._answer(403, "application/json", b'{"error": "ask 127.0.0.1 or localhost"}')
        return False

    def _say(self, line: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(line).encode() + b"\n")
        self.wfile.flush()

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server(model: str = "tiny", port: int = 8000) -> ThreadingHTTPServer:
    """Return a server of a model; a port of 0 takes any free one."""
    bound = type("BoundHandler", (Handler,), {"service": Service(codi.load(model))})
    return ThreadingHTTPServer(("127.0.0.1", port), bound)


def main(model: str = "tiny", port: str = "8000") -> None:
    """Serve until Ctrl-C."""
    with server(model, int(port)) as serving:
        sys.stdout.write(f"http://127.0.0.1:{serving.server_port}   Ctrl-C stops it\n")
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
