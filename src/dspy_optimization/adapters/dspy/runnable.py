"""Agents that run on DSPy."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from dspy_optimization.adapters.dspy.asking import NAMED_MODELS, structure
from dspy_optimization.adapters.dspy.components import apply, check_names, components, freeze, read_candidate
from dspy_optimization.adapters.dspy.engine import Capabilities, LedgerModel, language_model
from dspy_optimization.adapters.dspy.json_values import json_object
from dspy_optimization.adapters.dspy.model_use import ModelUse
from dspy_optimization.adapters.dspy.programs import Parts, agent_settings, build_program, frozen_components
from dspy_optimization.adapters.dspy.run_record import COMPONENT, CountedCalls, RunRecord
from dspy_optimization.agents.candidate import Candidate, ComponentName, Fingerprint
from dspy_optimization.agents.component_settings import Choices, ComponentSettings
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.example import Prediction
from dspy_optimization.errors import InfrastructureError, InfrastructureFailed, ModelError
from dspy_optimization.evaluation.agent import Calls
from dspy_optimization.evaluation.model import Price, Role
from dspy_optimization.events import Json

KEPT_PROGRAMS = 8
"""Candidates whose program a thread keeps: evaluations go through the examples of one candidate after the other."""

# What the program did to the model, or the model to the request; other LM errors are failures of the world.
_PROGRAMS_OWN = (dspy.LMInvalidRequestError, dspy.LMUnsupportedFeatureError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an agent runs in, beside its own configuration."""

    prices: Mapping[Role, Price] = field(default_factory=dict)
    """For `Usage.cost_usd`; a role without a price costs 0 there (the ledger's bill does not look here)."""
    named_prices: Mapping[str, Price] = field(default_factory=dict)
    """The same for models that agents choose by name."""
    models: frozenset[str] | None = frozenset()
    """Names that components may choose, those the settings list; None: whatever an agent names, for whoever runs it
    says what the names stand for."""
    capabilities: Capabilities = field(default_factory=Capabilities)
    json_fallback: bool = False

    def of(self, config: AgentConfig, without_models: frozenset[str] = frozenset()) -> "Surroundings":
        """Return the surroundings of one agent: a model it chose by name has a price of its own, or none."""
        models = None if self.models is None else self.models - without_models
        name = config.model.name
        if name is None:
            return replace(self, models=models)
        prices = dict(self.prices)
        prices.pop(Role.TASK, None)
        if name in self.named_prices:
            prices[Role.TASK] = self.named_prices[name]
        return replace(self, prices=prices, models=models)


class DspyAgent:
    """One built agent. Thread-safe: every thread works on programs of its own."""

    def __init__(self, config: AgentConfig, program: Any, surroundings: Surroundings) -> None:
        """Take over a program that says what the configuration says; see `DspyAgents.build`."""
        self._config = config
        self._program = program
        self._surroundings = surroundings
        self._use = ModelUse.of(config, json_fallback=surroundings.json_fallback)
        self._baseline = read_candidate(program, origin="baseline")
        self._frozen = frozen_components(config)
        parts = components(program)
        models = config.named_models if surroundings.models is None else surroundings.models
        self._choices = {
            name: replace(one, agent=_as_the_agent(one.agent, agent_settings(config, name)))
            for name, one in structure(program, parts, tuple(sorted(models))).items()
        }
        self._check(self._baseline)
        for name, predictor in parts.items():
            setattr(predictor, COMPONENT, name)
        self._kept = threading.local()

    @property
    def config(self) -> AgentConfig:
        """What it was built from."""
        return self._config

    @property
    def baseline(self) -> Candidate:
        """What every component says before anybody optimizes it."""
        return self._baseline

    @property
    def frozen(self) -> frozenset[ComponentName]:
        """Components no algorithm may change."""
        return self._frozen

    @property
    def choices(self) -> Mapping[ComponentName, Choices]:
        """What a candidate may settle of each component beside its texts."""
        return self._choices

    @property
    def named_prices(self) -> Mapping[str, Price]:
        """What tokens cost, by the name a component chose a model by."""
        return self._surroundings.named_prices

    @property
    def prices(self) -> Mapping[Role, Price]:
        """What tokens cost, by role, for `Usage.cost_usd`."""
        return self._surroundings.prices

    def run(self, candidate: Candidate, inputs: Mapping[str, Json], calls: Calls) -> Prediction:
        """Return what the agent with this candidate answers; a failed program is a prediction with `failure`.

        Raises:
            StopSearch: the work has to end, or an infrastructure failed that no program can be blamed for.
            InvalidRequestError: the candidate names components or choices this agent lacks; nothing was asked.
        """
        program = self._program_of(candidate)
        counted = CountedCalls(calls, self._surroundings.prices, self._surroundings.named_prices)
        record = RunRecord(counted)
        outputs: dict[str, Json] = {}
        failure: str | None = None
        with self.context(counted, callbacks=[record], trace=[]):
            try:
                outputs = _outputs(program(**inputs))
            except InfrastructureError as error:
                raise InfrastructureFailed(error) from error
            except dspy.LMUnexpectedError:
                # A bug of this engine below DSPy, which is nobody's score.
                raise
            except dspy.LMError as error:
                if not isinstance(error, _PROGRAMS_OWN):
                    raise InfrastructureFailed(ModelError(str(error))) from error
                failure = record.failure(error)
            except Exception as error:
                # Programs are user code and raise what they like: that is their score, with this reason.
                failure = record.failure(error)
        return Prediction(outputs=outputs, steps=record.steps(), usage=counted.usage, failure=failure)

    @contextmanager
    def context(self, calls: Calls, *, callbacks: list[Any] | None = None, **settings: Any) -> Iterator[LedgerModel]:
        """Enter the DSPy context in which this agent's programs ask through these calls; yield the model.

        DSPy's contexts do not reach threads started by hand: enter it in the thread that works.
        """
        lm = self.language_model(calls)
        with dspy.context(
            lm=lm,
            adapter=self._use.adapter,
            callbacks=list(callbacks or ()),
            disable_history=True,
            track_usage=False,
            usage_tracker=None,
            send_stream=None,
            caller_modules=[],
            **settings,
        ):
            yield lm

    def language_model(self, calls: Calls, role: Role | None = None) -> LedgerModel:
        """Return a role's model behind these calls; the agent's own role with the agent's sampling parameters."""
        own = role is None or role is self._use.role
        asked = self._use.role if role is None else role
        parameters = self._use.parameters if own else {}
        return language_model(calls, asked, parameters, asked.value, capabilities=self._surroundings.capabilities)

    def student(self, candidate: Candidate | None = None) -> Any:
        """Return a fresh program for an optimizer: the candidate applied, frozen components out of its sight."""
        return freeze(self._applied(self._baseline if candidate is None else candidate), self._frozen)

    def module(self, candidate: Candidate | None = None, models: Mapping[str, Any] | None = None) -> "AgentModule":
        """Return the agent as a `dspy.Module` for anybody's own LM, outside of any optimization.

        Args:
            candidate: None: the baseline.
            models: name → `dspy.LM` of the models that components choose by name.
        """
        program = self._applied(self._baseline if candidate is None else candidate)
        return AgentModule(program, self._use, {} if models is None else models)

    def _applied(self, candidate: Candidate) -> Any:
        check_names(candidate.components, self._baseline.components, "the candidate")
        self._check(candidate)
        program = self._program.deepcopy()
        apply(program, candidate)
        return program

    def _check(self, candidate: Candidate) -> None:
        for name, value in candidate.components.items():
            self._choices[name].check(value.settings, f"{self._config.name}.components.{name}.settings")

    def _program_of(self, candidate: Candidate) -> Any:
        kept: OrderedDict[Fingerprint, Any] | None = getattr(self._kept, "programs", None)
        if kept is None:
            kept = self._kept.programs = OrderedDict()
        program = kept.pop(candidate.fingerprint, None)
        if program is None:
            program = self._applied(candidate)
        kept[candidate.fingerprint] = program
        while len(kept) > KEPT_PROGRAMS:
            kept.popitem(last=False)
        return program


class AgentModule(dspy.Module):
    """An agent as a program of its own: asks the LM that is configured, laid out as its configuration says.

    Parameters have the names they have in the program itself, so `save` writes what bare DSPy loads.
    """

    def __init__(self, program: Any, use: ModelUse, models: Mapping[str, Any]) -> None:
        super().__init__()
        self.program = program
        self.use = use
        self.models = dict(models)
        """Name → `dspy.LM`, for components that choose a model by name; all others ask the LM that is configured."""

    def named_parameters(self) -> list[tuple[str, Any]]:
        """Return the program's own."""
        found: list[tuple[str, Any]] = self.program.named_parameters()
        return found

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """Return the program's own state."""
        state: dict[str, Any] = self.program.dump_state(json_mode=json_mode)
        return state

    def load_state(self, state: dict[str, Any], **how: Any) -> None:
        """Take the state of such a program, as `dspy.Module.load_state` does."""
        self.program.load_state(state, **how)

    def forward(self, **inputs: Any) -> Any:
        """Return what the program answers."""
        with dspy.context(**{NAMED_MODELS: self.models}), self.use.context(dspy.settings.lm):
            return self.program(**inputs)


class DspyAgents:
    """Builds agents."""

    def __init__(self, parts: Parts, surroundings: Surroundings | None = None) -> None:
        """Say what agents may be built from, and what they run in."""
        self._parts = parts
        self._surroundings = Surroundings(json_fallback=parts.json_fallback) if surroundings is None else surroundings

    @property
    def parts(self) -> Parts:
        """What agents may be built from."""
        return self._parts

    def elsewhere(self) -> "DspyAgents":
        """Return the builder of agents that run elsewhere: who runs them says what the names of models stand for."""
        return DspyAgents(self._parts, replace(self._surroundings, models=None))

    def build(self, config: AgentConfig, *, without_models: frozenset[str] = frozenset()) -> DspyAgent:
        """Return the runnable agent.

        Args:
            config: the agent.
            without_models: named models that no component may choose, although the settings list them.
        Raises:
            InvalidRequestError: something of the configuration is missing, unknown, not allowed or cannot run here.
        """
        return DspyAgent(config, build_program(config, self._parts), self._surroundings.of(config, without_models))

    def as_module(
        self, config: AgentConfig, candidate: Candidate | None = None, models: Mapping[str, Any] | None = None
    ) -> AgentModule:
        """Return the agent, with a candidate, as a `dspy.Module` for anybody's own LM.

        Args:
            config: the agent.
            candidate: None: the baseline.
            models: name → `dspy.LM` of the models that components choose by name.
        Raises:
            InvalidRequestError: as `build`.
        """
        return self.build(config).module(candidate, models)


def _as_the_agent(structural: ComponentSettings, said: ComponentSettings) -> ComponentSettings:
    return replace(structural, model=said.model, parameters=said.parameters)


def _outputs(answer: object) -> dict[str, Json]:
    if isinstance(answer, dspy.Example | Mapping):
        return json_object(answer)
    raise TypeError(f"the program is to return a dspy.Prediction, found {type(answer).__name__}")
