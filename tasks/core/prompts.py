"""The one user turn that asks for a pair, and the JSON schema of its answer.

Recipe: arXiv:2401.00368, short-short matching. The wording is our own.
"""

import hashlib
import json
from typing import Any

from tasks.core.languages import LANGUAGES
from tasks.core.variations import AXES, Axes, ask_for_variation

TEMPLATE = """\
Below is a text matching task. Make up one example of it: a text that somebody \
would match, and a text that is its correct match.

Task: {task}

Reply with one JSON object. It has exactly these two keys, and both values are strings:
  "input": the text to be matched
  "positive_document": the text that correctly matches it

Keep to this:
- Language of both texts: {language}.
- Length of both texts: very short, one phrase or one sentence.
- Use different words in the two texts. A pair that can be matched by shared words alone is too easy.
- Each text must make sense without the other and must not refer to it.
- Aim for variety: pick a subject, a setting and a phrasing that few others would pick.
- Output the JSON object and nothing else."""

RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "text_matching_pair",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "input": {"type": "string"},
                "positive_document": {"type": "string"},
            },
            "required": ["input", "positive_document"],
            "additionalProperties": False,
        },
    },
}

PROMPT_HASH = hashlib.blake2b(json.dumps([TEMPLATE, AXES], sort_keys=True).encode(), digest_size=8).hexdigest()


def build_prompt(
    description: str, language: str, sample_index: int = 0, *, template: str = TEMPLATE, axes: Axes = AXES
) -> str:
    """Return the text of the user turn that asks for a pair in `language`."""
    asked = template.format(task=description, language=LANGUAGES[language].prompt_name)
    return asked + ask_for_variation(description, language, sample_index, axes)
