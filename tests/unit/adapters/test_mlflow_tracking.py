"""Optimizations in MLflow: real store, real registry, real PostgreSQL."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from mlflow.tracking import MlflowClient
from report_sample import BASELINE, NOON, events, material, optimization, result, story, validated

from dspy_optimization.adapters.mlflow_tracking import DATABASE, MlflowTracker, TrackingPlace
from dspy_optimization.adapters.report.facts import Material
from dspy_optimization.agents.allow_list import AllowList
from dspy_optimization.agents.candidate import Candidate
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.errors import InvalidRequestError, TrackingError
from dspy_optimization.evaluation.ledger import OptimizationId
from dspy_optimization.events import EventType, Json
from dspy_optimization.optimization.request import OptimizationStatus
from dspy_optimization.optimization.store import Stores
from dspy_optimization.statistics import Verdict
from dspy_optimization.tenancy import LOCAL_TENANT, TenantId

Keep = Callable[[Material], Stores]


def sample(**changes: object) -> Material:
    """A sample whose id and agent nothing else has: the database `mlflow` is the whole server's."""
    whole = material(**changes)
    new_id = OptimizationId(uuid4())
    agent = replace(whole.agent, name=f"triage-{new_id}")
    target = replace(whole.optimization.request.target, id=agent.name, version=agent.version)
    request = replace(whole.optimization.request, id=new_id, target=target)
    told = tuple(replace(one, event=replace(one.event, optimization_id=new_id)) for one in whole.events)
    found = replace(whole.result, optimization_id=new_id) if whole.result is not None else None
    return replace(
        whole, optimization=replace(whole.optimization, request=request), agent=agent, events=told, result=found
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """A tracker and the sample it tells of."""

    tracker: MlflowTracker
    whole: Material

    def tell(self) -> str:
        if self.whole.result is None:
            run_id = self.tracker.ended(self.whole.optimization)
        else:
            optimized = self.whole.agent.with_candidate(self.whole.result.optimized)
            run_id = self.tracker.completed(self.whole.optimization, self.whole.result, optimized)
        assert run_id is not None
        return run_id

    @property
    def client(self) -> MlflowClient:
        return self.tracker.open_client()


@pytest.fixture
def tracking_of(kept: Keep, database_url: str, tmp_path: Path) -> Callable[..., Tracking]:
    """Build a tracker on the test server's database `mlflow`."""

    def build(whole: Material, tenant: TenantId = LOCAL_TENANT, **changes: object) -> Tracking:
        place = replace(TrackingPlace(database_url=database_url, artifacts=tmp_path / "artifacts"), **changes)
        tracker = MlflowTracker(
            place=place,
            stores=kept(whole),
            tenant=tenant,
            now=lambda: NOON,
            program_state=lambda agent, candidate: {"classify": {"demos": [], "agent": agent.name}},
        )
        return Tracking(tracker=tracker, whole=whole)

    return build


def test_a_run_says_what_happened(tracking_of: Callable[..., Tracking]) -> None:
    """Name, status, times, params, tags, curves against paid calls, final numbers."""
    tracking = tracking_of(sample())

    run = tracking.client.get_run(tracking.tell())
    curve = tracking.client.get_metric_history(run.info.run_id, "val/best")
    request = tracking.whole.optimization.request

    assert "FINISHED" == run.info.status
    assert f"{tracking.whole.agent.name} {str(request.id)[:8]}" == run.data.tags["mlflow.runName"]
    assert timedelta(minutes=13).total_seconds() * 1000 == run.info.end_time - run.info.start_time
    assert "improved" == run.data.tags["dspy_optimization.verdict"]
    assert "gepa" == run.data.tags["dspy_optimization.algorithm"]
    assert run.data.tags["mlflow.note.content"].startswith("**Yes, it is better.** Out of 100 cases, about 29 more")
    assert ("7", request.dataset, "6") == (
        run.data.params["seed"],
        run.data.params["dataset_version"],
        run.data.params["option/miprov2/num_candidates"],
    )
    assert [(100, 0.43), (1348, 0.71)] == [(curve[0].step, curve[0].value), (curve[-1].step, curve[-1].value)]
    assert {"val/gepa", "val/miprov2", "val/baseline", "so_far/cost_usd"} <= set(run.data.metrics)
    assert 2310 == run.data.metrics["calls/task"]
    assert 0.29 == pytest.approx(run.data.metrics["test/exact_match/difference"])


def test_the_artifacts_are_the_page_the_agent_and_the_candidates(
    tracking_of: Callable[..., Tracking], tmp_path: Path
) -> None:
    """Text and JSON alone; the agent reads back as it was."""
    tracking = tracking_of(sample())
    run_id = tracking.tell()

    (tmp_path / "copy").mkdir()
    folder = Path(tracking.client.download_artifacts(run_id, "", str(tmp_path / "copy")))

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    optimized = agent_from_json(json.loads((folder / "agent/agent.json").read_text()), allowed=AllowList())
    candidates = json.loads((folder / "candidates.json").read_text())
    model = json.loads((folder / "agent/MLmodel").read_text())
    assert {"report.html", "candidates.json", "agent/agent.json", "agent/program.json", "agent/MLmodel"} == files
    assert tracking.whole.result is not None
    assert tracking.whole.agent.with_candidate(tracking.whole.result.optimized).version == optimized.version
    assert 24 == len(candidates)
    assert [True] == [one["chosen"] for one in candidates if one["chosen"]]
    assert ["dspy_optimization"] == list(model["flavors"])
    assert "Yes, it is better." in (folder / "report.html").read_text()


def test_an_agent_that_is_no_program_here_is_tracked_without_its_state(
    tracking_of: Callable[..., Tracking],
) -> None:
    """A black box, or code that is not installed: the run says why the file is missing."""

    def refuse(agent: AgentConfig, candidate: Candidate) -> Mapping[str, Json]:
        raise InvalidRequestError("no program here")

    tracking = tracking_of(sample())
    tracking = replace(tracking, tracker=replace(tracking.tracker, program_state=refuse))

    run_id = tracking.tell()

    names = {one.path for one in tracking.client.list_artifacts(run_id, "agent")}
    assert {"agent/agent.json", "agent/MLmodel"} == names
    assert "no program here" == tracking.client.get_run(run_id).data.tags["dspy_optimization.no_program"]


def test_telling_it_again_changes_nothing(tracking_of: Callable[..., Tracking]) -> None:
    """A resume, a replay, a retry: one run, every point once, one version."""
    tracking = tracking_of(sample())
    first = tracking.tell()
    before = tracking.client.get_run(first)
    points = len(tracking.client.get_metric_history(first, "val/gepa"))

    assert first == tracking.tell()
    after = tracking.client.get_run(first)
    versions = tracking.client.search_model_versions(f"name = '{tracking.whole.agent.name}'")
    assert points == len(tracking.client.get_metric_history(first, "val/gepa"))
    assert 1 == len(tracking.client.get_metric_history(first, "calls/total"))
    assert before.data.to_dictionary() == after.data.to_dictionary()
    assert [1] == [int(one.version) for one in versions]


@pytest.mark.filterwarnings("ignore:The filesystem:FutureWarning")
def test_a_store_that_keeps_everything_gets_every_point_once(
    tracking_of: Callable[..., Tracking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's database drops a point that is there already; its files would keep it twice."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)  # the file store leaves an mlflow.db where it is used
    tracking = tracking_of(sample(), tracking_uri=(tmp_path / "files").as_uri())
    run_id = tracking.tell()

    assert run_id == tracking.tell()
    assert 1 == len(tracking.client.get_metric_history(run_id, "calls/total"))


def test_only_a_proven_gain_becomes_champion(tracking_of: Callable[..., Tracking]) -> None:
    """An agent that is not proven is a candidate; one that is the baseline is nothing new."""
    told = story(material().dataset)
    proven = tracking_of(sample())
    stopped = tracking_of(sample(result=result(told.chosen, None, ended_because="max_lm_calls")))
    unsure = tracking_of(sample(result=result(told.chosen, validated(material().dataset, told.chosen, after=0.42))))
    settled = (Verdict.NO_IMPROVEMENT, "No candidate was better.")
    nothing = tracking_of(sample(result=result(BASELINE, validated(material().dataset, BASELINE, settled=settled))))

    aliases = []
    for tracking in (proven, stopped, unsure):
        tracking.tell()
        aliases.append(set(tracking.client.get_registered_model(tracking.whole.agent.name).aliases))
    nothing.tell()

    assert [{"candidate", "champion"}, {"candidate"}, {"candidate"}] == aliases
    assert [] == nothing.client.search_model_versions(f"name = '{nothing.whole.agent.name}'")


def test_an_alias_never_goes_back_to_an_older_result(tracking_of: Callable[..., Tracking], kept: Keep) -> None:
    """An outage is made up for after a later optimization was told: the later one stays champion."""
    late = tracking_of(sample())
    late.tell()
    assert late.whole.result is not None
    old_id = OptimizationId(uuid4())
    request = replace(late.whole.optimization.request, id=old_id)
    older = replace(
        late.whole,
        optimization=replace(late.whole.optimization, request=request),
        result=replace(
            late.whole.result, optimization_id=old_id, completed_at=late.whole.result.completed_at - timedelta(days=1)
        ),
        events=(),
        trials=(),
    )
    newer_id = OptimizationId(uuid4())
    newer = replace(
        older,
        optimization=replace(older.optimization, request=replace(request, id=newer_id)),
        result=replace(
            late.whole.result, optimization_id=newer_id, completed_at=late.whole.result.completed_at + timedelta(days=1)
        ),
    )
    name = late.whole.agent.name
    champions = []
    for whole in (older, newer):
        kept(whole)
        replace(late, whole=whole).tell()
        champions.append(int(late.client.get_model_version_by_alias(name, "champion").version))

    assert [1, 3] == champions


@pytest.mark.parametrize(
    ("status", "told"), [(OptimizationStatus.FAILED, "FAILED"), (OptimizationStatus.CANCELLED, "KILLED")]
)
def test_one_without_a_result_ends_as_what_it_was(
    status: OptimizationStatus, told: str, tracking_of: Callable[..., Tracking]
) -> None:
    """No run stays RUNNING for ever, and none is called finished that was not."""
    tracking = tracking_of(sample(result=None, optimization=optimization(status, error="the key is wrong")))

    run = tracking.client.get_run(tracking.tell())

    assert told == run.info.status
    assert "not_validated" == run.data.tags["dspy_optimization.verdict"]
    assert "val/best" in run.data.metrics
    assert [] == tracking.client.search_model_versions(f"name = '{tracking.whole.agent.name}'")


def test_cancelled_with_a_result_is_killed_and_a_failed_one_that_was_resumed_is_finished(
    tracking_of: Callable[..., Tracking],
) -> None:
    """The run follows the optimization."""
    whole = sample()
    assert whole.result is not None
    tracking = tracking_of(whole)
    failed = replace(
        tracking,
        whole=replace(whole, result=None, optimization=replace(whole.optimization, status=OptimizationStatus.FAILED)),
    )
    cancelled = replace(whole, result=replace(whole.result, validated=None, ended_because="cancelled"))

    statuses = []
    for one in (failed, replace(tracking, whole=cancelled), tracking):
        statuses.append(one.client.get_run(one.tell()).info.status)

    assert ["FAILED", "KILLED", "FINISHED"] == statuses
    assert 1 == len(_runs(tracking))


def _runs(tracking: Tracking) -> list[object]:
    experiment = tracking.client.get_experiment_by_name(f"dspy-optimization/{tracking.whole.agent.name}")
    assert experiment is not None
    return list(tracking.client.search_runs([experiment.experiment_id]))


def test_another_process_sees_it_and_nothing_is_said_on_stdout(
    tracking_of: Callable[..., Tracking], database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What `mlflow ui` reads, read by a process that knows nothing of us."""
    tracking = tracking_of(sample())
    run_id = tracking.tell()
    uri = database_url.replace("postgresql://", "postgresql+psycopg://").rpartition("/test_")
    tail = uri[2].partition("?")[2]
    code = (
        "import sys; from mlflow.tracking import MlflowClient\n"
        "c = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1]); r = c.get_run(sys.argv[2])\n"
        "print(r.info.status, len(c.get_metric_history(r.info.run_id, 'val/best')),\n"
        "      c.get_model_version_by_alias(sys.argv[3], 'champion').run_id == r.info.run_id)"
    )
    arguments = [f"{uri[0]}/{DATABASE}?{tail}", run_id, tracking.whole.agent.name]

    seen = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )

    assert "FINISHED 8 True" == seen.stdout.strip()
    assert "" == capfd.readouterr().out


def test_tenants_do_not_share_folders_or_models(tracking_of: Callable[..., Tracking]) -> None:
    """One experiment and one registered model a tenant and agent."""
    other = TenantId(uuid4())
    tracking = tracking_of(sample(), tenant=other)

    run = tracking.client.get_run(tracking.tell())

    name = tracking.whole.agent.name
    assert f"dspy-optimization/{other}/{name}" == tracking.client.get_experiment(run.info.experiment_id).name
    assert ["1"] == [str(one.version) for one in tracking.client.search_model_versions(f"name = '{other}.{name}'")]


def test_two_first_ones_at_once_do_not_disturb_each_other(tracking_of: Callable[..., Tracking]) -> None:
    """The experiment, the registered model and MLflow's schema are made once."""
    whole = sample()
    second_id = OptimizationId(uuid4())
    second = replace(
        whole,
        optimization=replace(whole.optimization, request=replace(whole.optimization.request, id=second_id)),
        result=replace(whole.result, optimization_id=second_id) if whole.result is not None else None,
        events=(),
    )
    trackings = [tracking_of(whole), tracking_of(second)]
    ids: list[str] = []
    threads = [threading.Thread(target=lambda one=one: ids.append(one.tell())) for one in trackings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 2 == len(set(ids))
    assert 2 == len(trackings[0].client.search_model_versions(f"name = '{whole.agent.name}'"))


def test_a_deleted_experiment_is_taken_up_again(tracking_of: Callable[..., Tracking]) -> None:
    """Somebody tidied up in the UI; the next optimization must not fail for it."""
    tracking = tracking_of(sample())
    run = tracking.client.get_run(tracking.tell())
    tracking.client.delete_experiment(run.info.experiment_id)

    again = tracking.client.get_run(tracking.tell())

    assert run.info.experiment_id == again.info.experiment_id
    assert "FINISHED" == again.info.status


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_is_away_is_named_at_once_without_its_password(
    scheme: str, tracking_of: Callable[..., Tracking]
) -> None:
    """MLflow itself would try for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracking = tracking_of(sample(), tracking_uri=f"{scheme}://me:secret@127.0.0.1:{port}/ml?token=x")

    with pytest.raises(
        TrackingError, match=rf"MLflow server at {scheme}://127.0.0.1:{port}/ml; found: .*refused"
    ) as told:
        tracking.tell()

    assert "secret" not in str(told.value)
    assert "dspy-opt runs report" in str(told.value)


def test_a_database_that_is_away_is_named(tracking_of: Callable[..., Tracking], tmp_path: Path) -> None:
    """And what to do about it."""
    tracking = tracking_of(sample(), database_url=f"postgresql://me@/nothing?host={tmp_path}")

    with pytest.raises(TrackingError, match=r"MLflow: the database at me@.* is away: .* set MLFLOW_TRACKING_URI"):
        tracking.tell()


def test_another_store_can_be_named_and_what_it_refuses_is_told(
    tracking_of: Callable[..., Tracking], tmp_path: Path
) -> None:
    """A scheme MLflow does not know."""
    tracking = tracking_of(sample(), tracking_uri="gopher://somewhere")

    with pytest.raises(TrackingError, match=r"wanted: a run in MLflow at gopher://somewhere; found: .*unsupported URI"):
        tracking.tell()


def test_a_closed_artifact_folder_is_told(tracking_of: Callable[..., Tracking], tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    tracking = tracking_of(sample(), artifacts=tmp_path / "file")

    with pytest.raises(TrackingError, match=r"wanted: a run in MLflow at the database mlflow; found: .*file"):
        tracking.tell()


def test_a_folder_that_mlflow_could_not_keep_is_refused_with_its_length(
    tracking_of: Callable[..., Tracking], tmp_path: Path
) -> None:
    """MLflow's own message would be a truncated column."""
    tracking = tracking_of(sample(), artifacts=tmp_path / ("long" * 40))

    with pytest.raises(TrackingError, match=r"at most 157 characters.*; possible: a data folder with a shorter path"):
        tracking.tell()


def test_names_and_numbers_mlflow_would_refuse_are_mended(tracking_of: Callable[..., Tracking]) -> None:
    """Metric names of users, endless texts, numbers that are none."""
    whole = sample(
        events=events((EventType.PROGRESS, {"lm_calls": 5, "cost_usd": float("inf"), "tokens": None})),
    )
    options = {"a:b?\u202e": "x" * 20_000}
    request = whole.optimization.request
    choices = (replace(request.algorithms[0], options=options), *request.algorithms[1:])
    whole = replace(whole, optimization=replace(whole.optimization, request=replace(request, algorithms=choices)))
    tracking = tracking_of(replace(whole, events=()))

    run = tracking.client.get_run(tracking.tell())

    assert run.data.params["option/miprov2/a_b__"].endswith("more characters)")
