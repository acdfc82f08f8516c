"""The lines of a batch's files: requests as a live call sends them, results as a live call reads them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tasks.clients.concealment import one_line
from tasks.clients.faults import classify
from tasks.clients.outcome import CallFault, Reply
from tasks.clients.plain_replies import REPLY_BYTES, PlainReplies
from tasks.clients.wire import Wire, open_wire
from tasks.core.errors import ModelError, UsageError
from tasks.core.requests import Recipe

# One line of results: a reply, escaped, and what is around it.
LINE_BYTES = 2 * REPLY_BYTES


class BatchLines:
    """Writes and reads the lines of one recipe.

    Raises:
        UsageError: Its model is not asked for chat completions.
        ModelError: It does not take a parameter.
    """

    def __init__(self, recipe: Recipe, api_base: str) -> None:
        try:
            self._wire: Wire = open_wire(recipe, api_base)
        except LookupError as error:
            raise UsageError(f"{recipe.model_name} cannot be asked in batches: {error}. Leave --batch out.") from error
        except Exception as error:  # litellm's, for a parameter that the model does not take
            raise ModelError(classify(error, recipe.model_name).message) from error
        self._read = PlainReplies(self._wire).read

    def write(self, key: str, prompt: str) -> bytes:
        """Return the line of a request."""
        return b'{"custom_id":"%b","method":"POST","url":"/v1/chat/completions","body":%b%b%b}\n' % (
            key.encode(),
            self._wire.before,
            orjson.dumps(prompt),
            self._wire.after,
        )

    def read(self, path: Path) -> Iterator[tuple[str, Reply | CallFault]]:
        """Yield the key and the outcome of each line of a file of results; what is no result is left out."""
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES):
                if line.endswith(b"\n") or len(line) < LINE_BYTES:
                    result = _parse(line)
                    if result is not None:
                        yield str(result["custom_id"]), self._outcome(result)
                else:
                    while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass

    def _outcome(self, result: dict[str, Any]) -> Reply | CallFault:
        response = result.get("response")
        if not isinstance(response, dict):
            return CallFault("transient", one_line(str(result.get("error")), 300))
        try:
            status, body = response.get("status_code"), json.dumps(response.get("body")).encode()
        except RecursionError:
            return CallFault("transient", "the reply is nested too deep to be read")
        if not isinstance(status, int) or not 200 <= status < 300:
            return self._wire.fault(status if isinstance(status, int) else 500, {}, body.decode())
        try:
            return self._read(body, {})
        except CallFault as fault:
            return fault


def _parse(line: bytes) -> dict[str, Any] | None:
    for parse in (orjson.loads, json.loads):  # the second takes half of a surrogate pair
        try:
            result = parse(line)
        except (ValueError, RecursionError):
            continue
        return result if isinstance(result, dict) and isinstance(result.get("custom_id"), str) else None
    return None
