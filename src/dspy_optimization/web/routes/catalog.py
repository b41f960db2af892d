"""What there is to choose from: algorithms, metrics, models."""

from collections.abc import Sequence
from threading import BoundedSemaphore
from typing import Literal

from fastapi import APIRouter, Request

from dspy_optimization.adapters.models import EMBEDDED, price_of
from dspy_optimization.agents.metrics import METRIC_TYPES
from dspy_optimization.algorithms.objective_use import ObjectiveUse, use_of_objectives
from dspy_optimization.algorithms.option_fields import OptionField, option_fields
from dspy_optimization.algorithms.problem import Algorithm, Shape
from dspy_optimization.algorithms.registry import LOADING_FAILURES, BrokenAlgorithm
from dspy_optimization.errors import CapacityError, EngineError, InfrastructureError, StopSearch
from dspy_optimization.evaluation.model import ModelRequest, Role
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.events import Json
from dspy_optimization.web import answers
from dspy_optimization.web.access import Reading, Running, operates, serving_of, without_addresses
from dspy_optimization.web.routes.parameters import refusals

router = APIRouter(prefix="/api/v1", tags=["catalog"])
_QUESTION = "Answer with one word: which colour has a clear sky at noon?"
_LONGEST = 500
_EACH = "objective"
"""What an option calls it to look at one objective at a time."""
_SHAPE = Shape(n_train=40, n_val=40, n_components=1)
"""Of an ordinary problem: says whether an algorithm asks the reflection model at all."""


@router.get("/algorithms/available", response_model=answers.Page[answers.AlgorithmOut], responses=refusals())
def algorithms(request: Request, engine: Reading) -> answers.Page[answers.AlgorithmOut]:
    """List the algorithms that can be used, those this tenant has registered among them, with their options."""
    mine = serving_of(request).foundation.algorithms_of(engine.steering.tenant)
    found = {}
    for one in mine.registered:
        loaded = mine.load(one)
        if not isinstance(loaded, BrokenAlgorithm):
            found[one.name] = _algorithm(loaded, source=one.entrypoint, version=one.version, custom=True)
    for name in mine.environment.names:
        source = mine.environment.source(name)
        found[name] = _algorithm(
            mine.environment.get(name), source=source.package, version=source.version, custom=False
        )
    return answers.Page(items=[found[name] for name in sorted(found)])


@router.get("/metrics/available", response_model=answers.Page[answers.MetricOut], responses=refusals())
def metrics(_engine: Reading) -> answers.Page[answers.MetricOut]:
    """List the metric types."""
    return answers.Page(
        items=[
            answers.MetricOut(name=one.name, description=one.description, options=list(one.options))
            for one in METRIC_TYPES.values()
        ]
    )


@router.get("/models", response_model=answers.Page[answers.ModelOut], responses=refusals())
def models(request: Request, _engine: Reading) -> answers.Page[answers.ModelOut]:
    """List the language model of every role; where its server is, to who may administer. Keys are never shown."""
    shows = operates(request)
    return answers.Page(
        items=[
            answers.ModelOut(
                role=role.value,
                model=spec.model,
                base_url=spec.base_url if shows and spec.model != EMBEDDED else None,
                priced=price_of(spec) is not None,
                max_concurrency=spec.max_concurrency,
            )
            for role, spec in serving_of(request).settings.models.items()
        ]
    )


@router.post("/models/{role}/test", response_model=answers.ModelTest, responses=refusals())
def ask_model(request: Request, _engine: Running, role: Literal["task", "reflection", "judge"]) -> answers.ModelTest:
    """Ask the model of a role one short question. It costs one call."""
    turns: BoundedSemaphore = request.app.state.model_tests
    if not turns.acquire(blocking=False):
        raise CapacityError(
            "wanted: to ask a model; found: as many are being asked as may be at once; possible: ask again in a moment"
        )
    try:
        return _asked(request, role)
    finally:
        turns.release()


def _algorithm(one: Algorithm, *, source: str, version: str | None, custom: bool) -> answers.AlgorithmOut:
    fields = option_fields(one.options)
    return answers.AlgorithmOut(
        name=one.name,
        description=one.description,
        options=[
            answers.OptionOut(name=field.name, type=field.type, default=field.default, description=field.description)
            for field in fields
        ],
        objectives_supported=_objectives(one, fields),
        needs=["a reflection model"] if _proposes(one) else [],
        source=source,
        version=version,
        custom=custom,
    )


def _proposes(one: Algorithm) -> bool:
    """Say whether it asks the reflection model when nobody sets an option; one that cannot run so does not."""
    try:
        return one.forecast(one.options(), _SHAPE).proposals > 0
    except (EngineError, *LOADING_FAILURES):
        return False


def _objectives(one: Algorithm, fields: Sequence[OptionField]) -> str:
    """Return what becomes of several objectives: as the algorithm says, or as an option of it may let each count."""
    use = use_of_objectives(one)
    apart = next((field for field in fields if _EACH in field.choices), None)
    if use is not ObjectiveUse.UTILITY or apart is None:
        return use.sentence
    return f"{use.sentence}; each by itself too, as the option {apart.name} says"


def _asked(request: Request, role: str) -> answers.ModelTest:
    stop = StopSignal()
    lent = serving_of(request).foundation.models.for_work(stop.wait)
    model = lent[Role(role)]
    messages: list[Json] = [{"role": "user", "content": _QUESTION}]
    body: dict[str, Json] = {"messages": messages, "max_tokens": 16, "temperature": 0.0}
    try:
        response = model.complete(ModelRequest(body=body))
    except (InfrastructureError, StopSearch) as error:
        said = str(error) if operates(request) else without_addresses(str(error))
        return answers.ModelTest(role=role, ok=False, latency_seconds=None, answer=None, error=said)
    finally:
        for one in {id(one): one for one in lent.values()}.values():
            one.close()
    return answers.ModelTest(
        role=role,
        ok=True,
        latency_seconds=response.latency_seconds,
        answer=_said(response.body)[:_LONGEST],
        error=None,
    )


def _said(body: object) -> str:
    """Return what the first choice says; nothing where there is none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
