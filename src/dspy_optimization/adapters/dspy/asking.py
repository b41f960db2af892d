"""How the components of a program are asked: what each can vary, and making it so.

What a candidate settles of a component beside its texts (`ComponentSettings`) is kept on its predictor, so it goes with
every copy that an optimizer makes. Kind and tools change the program itself: the signature, and what `dspy.ReAct` may
call. Model and sampling parameters are put in at each call, for only then it is known whose model is asked.

Neighbours' habits that this module answers to (dspy 3.4.1):

- `ReAct` and `CodeAct` write the list of their tools into the instructions of their first predictor, which optimizers
  then rewrite. A candidate's instructions always hold the whole list as DSPy wrote it, where they hold it at all; the
  program says the part of it that may be called.
- The configuration of a `Predict` outweighs what its LM is asked with. Draws (best of n, bootstrapping a second time,
  SIMBA) are copies of the LM with a rollout id and a temperature of their own: that temperature counts, not the
  component's, or all draws would be one.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, cast

import dspy

from dspy_optimization.adapters.dspy.chains import MultiChain
from dspy_optimization.adapters.dspy.engine import LedgerModel
from dspy_optimization.adapters.dspy.tries import BestOfN
from dspy_optimization.agents.candidate import ComponentName
from dspy_optimization.agents.component_settings import PARAMETERS, Choices, ComponentSettings, ModuleKind
from dspy_optimization.errors import InvalidRequestError

REASONING = "reasoning"
"""The field by which a chain of thought differs from a plain prediction."""

NAMED_MODELS = "dspy_optimization_named_models"
"""The key of DSPy's settings under which LMs stand that components of a program ask by name, outside of a ledger."""

_SETTINGS = "component_settings"
_KIND_FIXED = "kind_is_fixed"
_REASONING_FIELD = "reasoning_field"
_EVERY_TOOL = "every_tool"
_SAID = "said_with_every_tool"
_FINISH = "finish"

_CALLS = {True: "codeact", False: "react"}
"""The predictor of a `dspy.CodeAct` and of a `dspy.ReAct` that chooses what to call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one predictor stands in a program."""

    predictor: Any
    own_kind: ModuleKind | None
    """None: code around it counts on its fields."""
    tools_of: Any = None
    """The `dspy.ReAct` whose calls it chooses; None: none."""
    drawn: bool = False
    """Whether the code around it sets its temperature."""
    silent: bool = False
    """Whether it is never asked itself: a text of a black box."""


def settings_of(predictor: Any) -> ComponentSettings:
    """Return how a predictor is asked, as far as a candidate said so."""
    found: ComponentSettings = getattr(predictor, _SETTINGS, _NOTHING)
    return found


def instructions_of(predictor: Any) -> str:
    """Return the instructions of a predictor as a candidate says them: with every tool the agent has."""
    said = str(predictor.signature.instructions)
    listed: _Listed | None = getattr(predictor, _SAID, None)
    return said if listed is None else listed.restored(said)


def fix_kind(predictor: Any) -> None:
    """Mark a predictor whose reasoning is an output that somebody asked for: it cannot be taken away."""
    setattr(predictor, _KIND_FIXED, True)


def settle(program: Any, wanted: Mapping[ComponentName, ComponentSettings], named: Mapping[ComponentName, Any]) -> None:
    """Make a program ask its components as wanted, in place; the others stay as they are.

    Args:
        program: its components say their texts already.
        wanted: component → how it is asked; settings that say nothing put back what the agent says.
        named: component → predictor, of all.
    Raises:
        InvalidRequestError: a component cannot be asked so; nothing was changed.
    """
    told = {name: one for name, one in wanted.items() if not one.empty or not settings_of(named[name]).empty}
    if not told:
        return
    places = _places(program, named)
    for name, settings in told.items():
        possible = _choices(places[name])
        models = () if settings.model is None or places[name].silent else (settings.model,)
        replace(possible, models=models).check(settings, name)
    for name, settings in told.items():
        _settle(places[name], settings)


def structure(
    program: Any, named: Mapping[ComponentName, Any], models: tuple[str, ...]
) -> dict[ComponentName, Choices]:
    """Return component → what of it can vary, by how the program is built.

    Args:
        program: any.
        named: component → predictor, of all.
        models: names that components may choose.
    """
    return {
        name: replace(_choices(place), models=() if place.silent else models)
        for name, place in _places(program, named).items()
    }


def _places(program: Any, named: Mapping[ComponentName, Any]) -> dict[ComponentName, _Place]:
    around: dict[int, list[Any]] = {id(predictor): [] for predictor in named.values()}
    for _, module in program.named_sub_modules():
        for inner in _inside(module):
            if id(inner) in around and inner is not module:
                around[id(inner)].append(module)
    return {name: _place(predictor, around[id(predictor)]) for name, predictor in named.items()}


def _inside(module: Any) -> Iterator[Any]:
    for _, inner in module.named_sub_modules(dspy.Predict):
        yield inner


def _place(predictor: Any, around: list[Any]) -> _Place:
    chain = [one for one in around if type(one) is dspy.ChainOfThought]
    others = [one for one in around if one not in chain]
    # Of whatever else DSPy has around predictors, its own code reads their fields.
    fixed = getattr(predictor, _KIND_FIXED, False) or any(_reads_fields(one) for one in others)
    has = REASONING in predictor.signature.output_fields or hasattr(predictor, _REASONING_FIELD)
    kind: ModuleKind | None = None
    if chain and has:
        kind = ModuleKind.CHAIN_OF_THOUGHT
    elif not chain and plain(type(predictor)) is dspy.Predict and not _said_reasoning(predictor):
        kind = ModuleKind.PREDICT
    callers = [one for one in others if isinstance(one, dspy.ReAct) and _chooses(one, predictor)]
    return _Place(
        predictor=predictor,
        own_kind=None if fixed else kind,
        tools_of=callers[0] if callers else None,
        drawn=any(isinstance(one, BestOfN) or (isinstance(one, MultiChain) and one.chain in chain) for one in others),
        silent=any(getattr(one, "asks_no_predictor", False) for one in others),
    )


def _said_reasoning(predictor: Any) -> bool:
    """Say whether the signature had a field of that name before any candidate gave it one."""
    added = settings_of(predictor).kind is ModuleKind.CHAIN_OF_THOUGHT
    return REASONING in predictor.signature.fields and not added


def _chooses(module: Any, predictor: Any) -> bool:
    """Say whether it is this predictor that chooses what a `dspy.ReAct` calls; a frozen one stands in a shell."""
    return any(one is predictor for one in _inside(getattr(module, _CALLS[isinstance(module, dspy.CodeAct)])))


def _reads_fields(module: Any) -> bool:
    return any(
        one.__module__.startswith("dspy.predict.") and one not in (dspy.Predict, dspy.ChainOfThought)
        for one in type(module).__mro__
    ) or isinstance(module, MultiChain)


def _choices(place: _Place) -> Choices:
    if place.silent:
        return Choices()
    other = {ModuleKind.PREDICT: ModuleKind.CHAIN_OF_THOUGHT, ModuleKind.CHAIN_OF_THOUGHT: ModuleKind.PREDICT}
    own = place.own_kind
    tools = () if place.tools_of is None else tuple(name for name in _every_tool(place.tools_of) if name != _FINISH)
    without = {"temperature"} if place.drawn else set[str]()
    return Choices(
        kinds=() if own is None else (own, other[own]),
        tools=tools,
        parameters={name: span for name, span in PARAMETERS.items() if name not in without},
        agent=ComponentSettings(kind=own, tools=tools if place.tools_of is not None else None),
    )


def _settle(place: _Place, settings: ComponentSettings) -> None:
    predictor = place.predictor
    if place.own_kind is not None:
        _reason(predictor, place.own_kind if settings.kind is None else settings.kind)
    if place.tools_of is not None:
        _restrict(place.tools_of, predictor, settings.tools)
    setattr(predictor, _SETTINGS, settings)
    own = plain(type(predictor))
    predictor.__class__ = _asked_class(own) if settings.model is not None or settings.parameters else own


def _reason(predictor: Any, kind: ModuleKind) -> None:
    """Give the signature the reasoning of `dspy.ChainOfThought`, or take it away."""
    reasons = REASONING in predictor.signature.output_fields
    if kind is ModuleKind.CHAIN_OF_THOUGHT and not reasons:
        field = getattr(predictor, _REASONING_FIELD, None)
        field = dspy.OutputField(desc="${reasoning}") if field is None else field
        annotation = str if field.annotation is None else field.annotation
        predictor.signature = predictor.signature.prepend(name=REASONING, field=field, type_=annotation)
    if kind is ModuleKind.PREDICT and reasons:
        setattr(predictor, _REASONING_FIELD, predictor.signature.fields[REASONING])
        predictor.signature = predictor.signature.delete(REASONING)


def _every_tool(module: Any) -> dict[str, Any]:
    """Return name → tool of everything the agent gave the module, `finish` included."""
    found: dict[str, Any] = getattr(module, _EVERY_TOOL, module.tools)
    return found


def _restrict(module: Any, predictor: Any, names: tuple[str, ...] | None) -> None:
    """Let the module call these tools only, and let its predictor know of no others."""
    every = _every_tool(module)
    setattr(module, _EVERY_TOOL, every)
    closing = (_FINISH,) if _FINISH in every else ()
    chosen = every if names is None else {name: every[name] for name in (*names, *closing)}
    module.tools = dict(chosen)
    if "next_tool_name" in predictor.signature.fields:
        predictor.signature = predictor.signature.with_updated_fields("next_tool_name", type_=_one_of(tuple(chosen)))
    said = str(predictor.signature.instructions)
    if list(chosen) == list(every):
        setattr(predictor, _SAID, None)
        return
    listed = _Listed.of(said, every=every, chosen=chosen)
    predictor.signature = predictor.signature.with_instructions(listed.shown)
    setattr(predictor, _SAID, replace(listed, shown=str(predictor.signature.instructions)))


def _one_of(names: tuple[str, ...]) -> Any:
    return Literal[names]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """Instructions that list tools: as a candidate says them, and as the model is shown them."""

    said: str
    shown: str
    every: str
    """The list of all tools, as DSPy writes it."""
    chosen: str

    @classmethod
    def of(cls, said: str, *, every: Mapping[str, Any], chosen: Mapping[str, Any]) -> "_Listed":
        """Return the instructions with the list of all tools replaced; as they are where they do not hold it."""
        whole, part = _listing(every), _listing(chosen)
        shown = said.replace(whole, part, 1) if part else said.replace(f"\n{whole}", "", 1)
        return cls(said=said, shown=shown, every=whole, chosen=part)

    def restored(self, shown: str) -> str:
        """Return what a candidate says where the model is shown this, which somebody may have rewritten since."""
        if shown == self.shown:
            return self.said
        return shown.replace(self.chosen, self.every, 1) if self.chosen else shown

    def __deepcopy__(self, memo: dict[int, object]) -> "_Listed":
        return self


def _listing(tools: Mapping[str, Any]) -> str:
    return inspect.cleandoc("\n".join(f"({number}) {tool}" for number, tool in enumerate(tools.values(), start=1)))


@cache  # one class a kind of predictor: what it adds does not depend on the predictor
def _asked_class(kind: Any) -> Any:
    """Return the class of predictors of this kind that are asked as their settings say.

    It goes by the name of its kind: MIPROv2 and SIMBA read the source of the modules they improve.
    """

    def forward(self: Any, **kwargs: Any) -> Any:
        return kind.forward(self, **_asked(self, kwargs))

    async def aforward(self: Any, **kwargs: Any) -> Any:
        return await kind.aforward(self, **_asked(self, kwargs))

    namespace: dict[str, object] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "plain_kind": kind,
        "forward": forward,
        "aforward": aforward,
    }
    return type(kind)(kind.__name__, (kind,), namespace)


def plain(kind: Any) -> Any:
    """Return the class a predictor had before it was asked in a way of its own."""
    return kind.__dict__.get("plain_kind", kind)


def _asked(predictor: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what a predictor is called with, its settings put in; what a call itself says outweighs them."""
    settings = settings_of(predictor)
    lm = given.get("lm") or predictor.lm or dspy.settings.lm
    if lm is None:
        return given  # DSPy says what is missing
    drawn = getattr(lm, "kwargs", {}).get("rollout_id") is not None
    parameters = {name: value for name, value in settings.parameters.items() if not (drawn and name == "temperature")}
    asked = {**given, "config": {**parameters, **given.get("config", {})}}
    if settings.model is not None:
        asked["lm"] = _named(settings.model, lm, own=predictor.lm is not None)
    return asked


def _named(name: str, lm: Any, *, own: bool) -> Any:
    if isinstance(lm, LedgerModel):
        return lm.for_model(name)
    if own:
        return lm  # somebody set it on this very predictor
    lent = cast("Mapping[str, Any]", dspy.settings.get(NAMED_MODELS) or {})
    if name not in lent:
        raise InvalidRequestError(
            f"wanted: the model that a component asks by the name {name}; found: {', '.join(lent) or 'none'}; "
            f'possible: load(folder, models={{"{name}": dspy.LM(...)}})'
        )
    found = lent[name]
    rollout = getattr(lm, "kwargs", {}).get("rollout_id")
    return found if rollout is None else found.copy(rollout_id=rollout, temperature=lm.kwargs.get("temperature"))


_NOTHING = ComponentSettings()
