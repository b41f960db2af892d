"""Language-model calls through the ledger: known answers are given, new ones are paid once, within the budget.

The way of one call (`CallScope.call`), first match ends it:

    1  the work has to end                       → the reason is raised
    2  the scope asked for too many calls        → TurnOver
    3  the answer is in memory                   → returned
    4  the same call is in flight                → its answer; when its leader was stopped, go on from 3
    5  the answer is in the store                → returned
    6  the scope may pay, by its own rule        → or what the rule raises
       and the budget holds the worst case       → or BudgetSpent; waits while only calls in flight are in the way
    7  the charge is written as started, durably → nothing is ever sent unseen
    8  the model answers                         → settled in the budget; charge and answer go to the group commit

What ends a call without an answer:

    raised                   charge   in the budget   what the caller meets
    ModelRequestError        failed   given back      ModelRequestError: this request is at fault, the program fails
    … nothing else, 5 times  failed   given back      InfrastructureFailed: the model refuses everything of this role
    ModelAuthError           failed   given back      InfrastructureFailed
    any other ModelError     failed   given back      InfrastructureFailed: retries are behind it, they are the model's
    StoreError in 5          none     nothing         InfrastructureFailed, after waiting for the database
    StoreError in 7          failed   given back      InfrastructureFailed, after waiting for the database
    StopSearch               failed   given back      the same
    anything else, Ctrl-C    lost     what was held   the same; whether it was answered cannot be known

Every `StopSearch` is also set on the scope's stop signal, so that a thread pool that lost one meets it again.
A request may name a model (`ModelRequest.model`): it is asked, and priced, in place of the role's, on the account of
the role. A refusal is remembered as an answer is, so a search that repeats itself does not send it twice. A time-out
counts as failed although its server may have billed it: nobody says so.

A call is lost, and paid again after a resume, when the process dies between 7 and the group commit after 8.
Rows become durable in the order they were handed over, so no call is sent that was built on an answer that can
still be lost. One gap is known: two optimizations of one tenant that pay the same call at the same moment each
go on with their own answer, and the store keeps the first; a replay of the second then meets the first's.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import NoReturn, TypeAlias
from uuid import UUID, uuid4

from dspy_optimization.errors import (
    BudgetUnknownError,
    CancelRequested,
    InfrastructureError,
    InfrastructureFailed,
    ModelAuthError,
    ModelError,
    ModelRequestError,
    RequestFailed,
    StopSearch,
    TurnOver,
)
from dspy_optimization.evaluation.budget import Budget, BudgetWarning, require_prices
from dspy_optimization.evaluation.cashier import Cashier, Question, admit_all, cost_usd
from dspy_optimization.evaluation.flight import Flight
from dspy_optimization.evaluation.group_commit import GroupCommit
from dspy_optimization.evaluation.group_look_up import GroupLookUp
from dspy_optimization.evaluation.ledger import Bill, LedgerStore, OptimizationId, Spend
from dspy_optimization.evaluation.limits import Limits
from dspy_optimization.evaluation.memory import Memory
from dspy_optimization.evaluation.model import CallKey, LanguageModel, ModelRequest, ModelResponse, Role, call_key
from dspy_optimization.evaluation.patience import Patience
from dspy_optimization.evaluation.stop import StopSignal
from dspy_optimization.evaluation.tally import Tally

MAX_IN_FLIGHT = 1024
"""Calls in flight where nobody says how many; the models' own limits are lower."""
REMEMBERED_ANSWERS = 1024
"""How many answers a session keeps in memory; the store has all of them."""

_Asked: TypeAlias = tuple[Role, str | None]
"""Whose model is asked: the role's, or the one of this name."""

REFUSALS_WITHOUT_ANSWER = 5
"""So many different requests of a role refused and none answered: not the requests are at fault, the set-up is."""


class LedgerSession:
    """One process's work on one optimization: its memory, its budget, its writer. Thread-safe.

    Does not own the models and the store: who made them closes them.
    """

    def __init__(
        self,
        *,
        models: Mapping[Role, LanguageModel],
        named: Mapping[str, LanguageModel],
        reader: GroupLookUp,
        cashier: Cashier,
        landing_seconds: float,
        remembered_answers: int,
    ) -> None:
        """Take what `open` prepared: use that."""
        self._reader = reader
        self._models = dict(models)
        self._named = named
        self._cashier = cashier
        self._landing_seconds = landing_seconds
        self._memory = Memory(remembered_answers)
        self._flights: dict[CallKey, Flight] = {}
        self._answered: set[_Asked] = set()
        self._refused: Counter[_Asked] = Counter()
        self._closed = False
        self._changed = threading.Condition()

    @classmethod
    def open(
        cls,
        store: LedgerStore,
        optimization_id: OptimizationId,
        *,
        models: Mapping[Role, LanguageModel],
        named: Mapping[str, LanguageModel] | None = None,
        limits: Limits,
        now: Callable[[], datetime],
        warn: Callable[[BudgetWarning], None],
        elapsed_seconds: float = 0.0,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        new_id: Callable[[], UUID] = uuid4,
        patience_seconds: float = 60.0,
        remembered_answers: int = REMEMBERED_ANSWERS,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> "LedgerSession":
        """Start or resume: close what a dead process left open, and go on from its bill.

        The caller must own the optimization: what another living process has in flight would count as lost.

        Args:
            store: the tenant's ledger.
            optimization_id: whose bill it is.
            models: who answers in which role; retries, rate limits and slots are theirs.
            named: who answers requests that name a model, on the account of the role that asks.
            limits: caps over all roles and resumes.
            now: aware, UTC; for what is written down.
            warn: told when 50 and 80 % of a cap are used.
            elapsed_seconds: worked on it by earlier processes.
            seconds: a clock that never goes back; for what is measured.
            sleep: passes the time between two tries of the database.
            new_id: draws the ids of charges.
            patience_seconds: how long the database may be away, and how long `close` waits for calls in flight.
            remembered_answers: how many answers stay in memory.
            max_in_flight: calls sent and not answered at once, over all roles; at least 1.

        Raises:
            BudgetUnknownError: dollars are capped and a price is not known.
            InvalidRequestError: a cap is not a number from 0 up.
            StoreError: the database stayed away.
        """
        require_prices(limits, models)
        patience = Patience(patience_seconds, seconds)
        patience.run(lambda: store.close_lost(optimization_id), sleep)
        bill = patience.run(lambda: store.bill(optimization_id), sleep)
        budget = Budget(limits, spent=bill.total, elapsed_seconds=elapsed_seconds, seconds=seconds, warn=warn)
        cashier = Cashier(
            optimization_id=optimization_id,
            budget=budget,
            writer=GroupCommit(store, patience=patience, pause=sleep),
            tally=Tally(bill),
            slots=threading.Semaphore(max_in_flight),
            now=now,
            new_id=new_id,
        )
        return cls(
            models=models,
            named={} if named is None else named,
            reader=GroupLookUp(store, patience=patience, pause=sleep),
            cashier=cashier,
            landing_seconds=patience_seconds,
            remembered_answers=remembered_answers,
        )

    @property
    def budget(self) -> Budget:
        """What may still be spent."""
        return self._cashier.budget

    @property
    def paid_calls(self) -> int:
        """Calls the optimization was charged so far, earlier processes and lost calls included."""
        return self._cashier.tally.paid_calls

    def bill(self) -> Bill:
        """Return the bill of the whole optimization; `answered_from_ledger` is this session's."""
        return self._cashier.tally.bill()

    def scope(
        self,
        label: str,
        stop: StopSignal,
        allowance_calls: int | None = None,
        admit: Callable[[], None] = admit_all,
    ) -> "CallScope":
        """Return the calls of one piece of work.

        Args:
            label: what they are for, on the bill: the algorithm, or "baseline", "gate", "ablation".
            stop: ends this piece; also set when one of its calls has to end it, so give each piece its own.
            allowance_calls: how many different calls it may ask for, paid or known: a replay, which pays
                nothing, ends at the same call. None: as many as it wants.
            admit: asked before a call is paid; raises what ends the piece. Not asked for known answers, so that
                a replay gets as far as the first run did, whatever was spent since.
        """
        return CallScope(self, label, stop, allowance_calls, admit)

    def flush(self) -> None:
        """Return when everything answered so far is durable. Raises `StoreError`."""
        self._cashier.writer.flush()

    def close(self) -> None:
        """Refuse new calls, wait for those in flight as long as for a database, write what is left.

        A second call does nothing. Raises `StoreError` when the database is away.
        """
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._flights, timeout=self._landing_seconds)
        self._reader.close()
        self._cashier.writer.close()

    def __enter__(self) -> "LedgerSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def model(self, role: Role, name: str | None = None) -> LanguageModel:
        """Return who answers in this role, or by this name.

        Raises:
            ModelError: nobody does.
            RequestFailed: dollars are capped and the price of the named model is not known.
        """
        if name is not None:
            return self._named_model(name)
        model = self._models.get(role)
        if model is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise ModelError(
                f"wanted: a model for the role {role.value}; found: models for {known}; possible: name one in the "
                "settings, then resume"
            )
        return model

    def _named_model(self, name: str) -> LanguageModel:
        model = self._named.get(name)
        if model is None:
            raise ModelError(
                f"wanted: the model named {name}; found: {', '.join(sorted(self._named)) or 'no named model'}; "
                "possible: list it in the settings again, then resume"
            )
        if self.budget.limits.max_cost_usd is not None and model.price is None:
            raise RequestFailed(
                BudgetUnknownError(
                    f"wanted: the price of the model named {name}, because max_cost_usd is set; found: none for "
                    f"{model.identity}; possible: state its price in the settings, or cap calls or tokens"
                )
            )
        return model

    def ask(self, question: Question) -> ModelResponse:
        """Return the answer; raises what the module's table says, before a scope sets it on its signal."""
        while True:
            question.stop.check()
            with self._changed:
                known: ModelResponse | ModelError | None = self._memory.get(question.key)
                flight = self._flights.get(question.key)
                own = self._take_off(question.key) if known is None and flight is None else None
            if own is not None:
                return self._lead(question, own)
            if known is None and flight is not None:
                flight.follow(question.stop)
                known = flight.outcome
            if isinstance(known, ModelError):
                raise _again(known)
            if known is not None:
                self._cashier.tally.count_answer()
                return known

    def _take_off(self, key: CallKey) -> Flight:
        if self._closed:
            raise CancelRequested("the ledger session of this optimization is closed; possible: resume it")
        flight = self._flights[key] = Flight()
        return flight

    def _lead(self, question: Question, flight: Flight) -> ModelResponse:
        outcome: ModelResponse | ModelError | None = None
        try:
            outcome = self._look_up(question) or self._cashier.pay(question)
        except ModelError as error:
            outcome = error
            raise
        finally:
            with self._changed:
                self._learn(question, outcome)
                del self._flights[question.key]
                self._changed.notify_all()
            flight.land(outcome)
        return outcome

    def _look_up(self, question: Question) -> ModelResponse | None:
        answer = self._reader.answer(question.key, question.stop)
        if answer is not None:
            self._cashier.tally.count_answer()
        return answer

    def _learn(self, question: Question, outcome: ModelResponse | ModelError | None) -> None:
        if isinstance(outcome, ModelResponse):
            self._memory.keep(question.key, outcome)
            self._answered.add(_asked(question.role, question.request))
        elif isinstance(outcome, ModelRequestError):
            self._memory.keep(question.key, outcome)
            self._refused[_asked(question.role, question.request)] += 1

    def refuses_everything(self, role: Role, request: ModelRequest) -> bool:
        """Say whether the model that such a request goes to refused whatever it was asked."""
        asked = _asked(role, request)
        with self._changed:
            return asked not in self._answered and self._refused[asked] >= REFUSALS_WITHOUT_ANSWER


class CallScope:
    """The calls of one piece of work; implements `evaluation.agent.Calls`. Thread-safe."""

    def __init__(
        self,
        session: LedgerSession,
        label: str,
        stop: StopSignal,
        allowance_calls: int | None,
        admit: Callable[[], None],
    ) -> None:
        self._session = session
        self._admitted = admit
        self._label = label
        self._stop = stop
        self._allowance_calls = allowance_calls
        self._asked: set[CallKey] = set()
        self._answered: set[CallKey] = set()
        self._taken = Spend()
        self._lock = threading.Lock()

    @property
    def asked_calls(self) -> int:
        """Different calls asked for so far, paid or known."""
        return len(self._asked)

    @property
    def calls_left(self) -> int | None:
        """Different calls it may still ask for, paid or known; None: as many as it wants."""
        return None if self._allowance_calls is None else max(self._allowance_calls - len(self._asked), 0)

    @property
    def taken(self) -> Spend:
        """What the different calls answered so far take, all roles, paid or known: a replay says the same."""
        return self._taken

    def call(self, role: Role, request: ModelRequest) -> ModelResponse:
        """Return the answer, from the ledger when it is known.

        Raises:
            StopSearch: the work has to end; the stop signal says so too.
            ModelRequestError: the model refuses this very request; the program failed, not the infrastructure.
        """
        self._stop.check()
        try:
            model = self._session.model(role, request.model)
            key = call_key(model.identity, request)
            self._admit(key)
            question = Question(
                key=key,
                role=role,
                label=self._label,
                model=model,
                request=request,
                stop=self._stop,
                admit=self._admitted,
            )
            answer = self._session.ask(question)
        except StopSearch as reason:
            self._stop.stop(reason)
            raise
        except ModelRequestError as error:
            if self._session.refuses_everything(role, request):
                self._fail(_refuses_everything(_asked(role, request), error))
            raise
        except InfrastructureError as error:
            self._fail(error)
        self._count(question, answer)
        return answer

    def _count(self, question: Question, answer: ModelResponse) -> None:
        with self._lock:
            if question.key not in self._answered:
                self._answered.add(question.key)
                self._taken += Spend(
                    calls=1,
                    cost_usd=cost_usd(answer, question.model.price),
                    prompt_tokens=answer.prompt_tokens,
                    completion_tokens=answer.completion_tokens,
                )

    def _admit(self, key: CallKey) -> None:
        with self._lock:
            if key in self._asked:
                return
            if self._allowance_calls is not None and len(self._asked) >= self._allowance_calls:
                raise TurnOver(f"the turn of {self._label} is over: it asked for {self._allowance_calls} calls")
            self._asked.add(key)

    def _fail(self, error: InfrastructureError) -> NoReturn:
        failed = InfrastructureFailed(error)
        self._stop.stop(failed)
        raise failed from error


def _again(error: ModelError) -> ModelError:
    """Return an equal error of its own: a shared one grows a traceback with every thread that raises it."""
    kind: type[ModelError] = ModelError
    for child in (ModelAuthError, ModelRequestError):
        kind = child if isinstance(error, child) else kind
    again = kind(str(error))
    again.__cause__ = error
    return again


def _asked(role: Role, request: ModelRequest) -> _Asked:
    """Return whom a request goes to."""
    return role, request.model


def _refuses_everything(asked: _Asked, error: ModelRequestError) -> ModelError:
    role, name = asked
    return ModelError(
        f"wanted: answers of the {role.value if name is None else name} model; found: it refused the first "
        f"{REFUSALS_WITHOUT_ANSWER} requests or more and answered none; last: {error}; possible: change the model, "
        "its parameters or its context size, then resume"
    )
