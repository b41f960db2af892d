"""An answer of any OpenAI-compatible server, brought into the one shape the engine keeps."""

import json
from typing import NoReturn

from dspy_optimization.adapters.models.failures import scrub
from dspy_optimization.errors import ModelError
from dspy_optimization.evaluation.model import ModelRequest, ModelResponse
from dspy_optimization.evaluation.token_estimate import prompt_tokens, text_tokens
from dspy_optimization.events import Json


def parsed(raw: str, *, who: str, secret: str | None = None) -> Json:
    """Return the JSON of a body, its texts without NUL and lone surrogates (no database and no encoder takes them).

    Raises:
        ModelError: the body is no JSON; retryable.
    """
    try:
        value: Json = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        found = scrub(" ".join(raw[:200].split())[:120], secret) or "nothing"
        raise ModelError(
            f"{who}: wanted a JSON answer, found {found!r}; "
            "possible: check that base_url is an OpenAI-compatible server",
            retryable=True,
        ) from error
    lowered = raw.lower()
    return _clean(value) if "\\ud" in lowered or "\\u0000" in lowered else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _clean(value: Json) -> Json:
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {str(_clean(name)): _clean(item) for name, item in value.items()}
    return value


def response(payload: Json, request: ModelRequest, latency_seconds: float, *, who: str) -> ModelResponse:
    """Return the answer with exactly one choice and with token counts.

    Counts the server did not give are counted high from the texts and marked `"estimated": true` in `usage`.
    An empty text is an answer: what a model says is the agent's affair, not the server's.

    Raises:
        ModelError: no choice, or a choice without a message; retryable.
    """
    if not isinstance(payload, dict):
        raise _unusable(who, f"a JSON {type(payload).__name__}")
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _unusable(who, f"an answer with the keys {', '.join(sorted(payload)) or 'none'} and no choice")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise _unusable(who, "a choice without a message")
    if choice.get("finish_reason") == "error":
        raise _unusable(who, "an answer that broke off with an error")
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    kept: dict[str, Json] = {"role": "assistant", **message, "content": text if content is None else content}
    usage = payload.get("usage")
    counted = dict(usage) if isinstance(usage, dict) else {}
    prompt, completion = _count(counted, "prompt_tokens"), _count(counted, "completion_tokens")
    if prompt is None or completion is None:
        prompt = prompt_tokens(request.body) if prompt is None else prompt
        completion = text_tokens(json.dumps(message, ensure_ascii=False)) if completion is None else completion
        counted |= {"prompt_tokens": prompt, "completion_tokens": completion, "estimated": True}
    counted["total_tokens"] = prompt + completion
    body: dict[str, Json] = {**payload, "choices": [{**choice, "index": 0, "message": kept}], "usage": counted}
    return ModelResponse(body=body, prompt_tokens=prompt, completion_tokens=completion, latency_seconds=latency_seconds)


def _count(usage: dict[str, Json], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _unusable(who: str, found: str) -> ModelError:
    return ModelError(f"{who}: wanted one choice with a message, found {found}; possible: try again", retryable=True)
