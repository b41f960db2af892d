"""The tables, as the migrations leave them. A test holds the two against each other.

Every table belongs to tenants: `tenant_id` comes first in its primary key and in every composite foreign key, is filled
from the transaction's setting and guarded by row-level security on the same setting. Two kinds of JSON: `json` keeps a
document as it was written, to the order of its keys, for what is read back (a prompt built from an example must be the
same text after a resume); `jsonb` is for what is only searched.
"""

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from dspy_optimization.adapters.postgres.escaping import KeptText
from dspy_optimization.evaluation.ledger import ChargeStatus
from dspy_optimization.evaluation.model import Role
from dspy_optimization.experiments.experiment import ExperimentStatus
from dspy_optimization.experiments.split import Variant
from dspy_optimization.optimization.request import OptimizationStatus, TargetType

APPLICATION_ROLE = "dspy_opt_app"
TENANT_SETTING = "app.tenant_id"
CURRENT_TENANT = "NULLIF(current_setting('app.tenant_id', true), '')::uuid"

NAMING = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(referred_table_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}
METADATA = sa.MetaData(naming_convention=NAMING)


def _enum(kind: type[StrEnum], name: str) -> sa.Enum:
    return sa.Enum(kind, name=name, values_callable=lambda members: [member.value for member in members])


def _tenant() -> sa.Column[object]:
    return sa.Column("tenant_id", sa.Uuid(), server_default=sa.text(CURRENT_TENANT), primary_key=True, nullable=False)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def _number(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), sa.Identity(always=True), primary_key=True, nullable=False)


def _text(name: str, *, primary_key: bool = False) -> sa.Column[object]:
    return sa.Column(name, KeptText(), primary_key=primary_key, nullable=False)


def _of_trial(name: str, kind: "sa.types.TypeEngine[Any]", sql: str) -> sa.Column[object]:
    """Return a column that PostgreSQL fills from the trial's document."""
    return sa.Column(name, kind, sa.Computed(sql, persisted=True), nullable=False)


def _to(table: str, *columns: str, theirs: tuple[str, ...] | None = None) -> sa.ForeignKeyConstraint:
    ours = ("tenant_id", *columns)
    return sa.ForeignKeyConstraint(ours, [f"{table}.{name}" for name in ("tenant_id", *(theirs or columns))])


tenant = sa.Table(
    "tenant",
    METADATA,
    _tenant(),
    _text("name"),
    _now("created_at"),
)

agent_version = sa.Table(
    "agent_version",
    METADATA,
    _tenant(),
    _text("version", primary_key=True),
    sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    _text("name"),
    sa.Column("parent", KeptText()),
    sa.Column("document", JSON(), nullable=False),
    _now("created_at"),
    _to("tenant"),
    _to("agent_version", "parent", theirs=("version",)),
    sa.Index(None, "tenant_id", "name"),
)

dataset = sa.Table(
    "dataset",
    METADATA,
    _tenant(),
    _text("version", primary_key=True),
    sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    _text("name"),
    sa.Column("seed", sa.BigInteger(), nullable=False),
    _now("created_at"),
    _to("tenant"),
    sa.Index(None, "tenant_id", "name"),
)

example = sa.Table(
    "example",
    METADATA,
    _tenant(),
    _text("dataset_version", primary_key=True),
    sa.Column("position", sa.Integer(), primary_key=True, nullable=False, autoincrement=False),
    _text("split"),
    _text("example_id"),
    sa.Column("cluster", KeptText()),
    sa.Column("document", JSON(), nullable=False),
    _to("dataset", "dataset_version", theirs=("version",)),
)

optimization_request = sa.Table(
    "optimization_request",
    METADATA,
    _tenant(),
    sa.Column("optimization_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("target_type", _enum(TargetType, "target_type"), nullable=False),
    _text("target_id"),
    _text("target_version"),
    _text("dataset_version"),
    sa.Column("objectives", JSONB(), nullable=False),
    sa.Column("algorithms", ARRAY(KeptText()), nullable=False),
    sa.Column("constraints", JSONB(), nullable=False),
    sa.Column("document", JSON(), nullable=False),
    sa.Column("status", _enum(OptimizationStatus, "optimization_status"), nullable=False),
    sa.Column("progress", sa.Double(), nullable=False, server_default="0"),
    sa.Column("elapsed_seconds", sa.Double(), nullable=False, server_default="0"),
    sa.Column("error", KeptText()),
    sa.Column("wish", KeptText()),
    _moment("created_at"),
    _moment("updated_at"),
    sa.Column("job", sa.Text()),
    sa.Column("gpu_seconds", sa.Double(), nullable=False, server_default="0"),
    _to("tenant"),
    _to("agent_version", "target_version", theirs=("version",)),
    _to("dataset", "dataset_version", theirs=("version",)),
    sa.Index(None, "tenant_id", "target_type"),
    sa.Index(None, "tenant_id", "target_id"),
    sa.Index(None, "tenant_id", "status"),
    sa.Index(None, "tenant_id", "created_at"),
)

optimization_result = sa.Table(
    "optimization_result",
    METADATA,
    _tenant(),
    sa.Column("result_id", sa.Uuid(), primary_key=True, nullable=False, server_default=sa.text("gen_random_uuid()")),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    sa.Column("algorithm_used", KeptText()),
    sa.Column("baseline_performance", JSONB(), nullable=False),
    sa.Column("optimized_performance", JSONB(), nullable=False),
    sa.Column("improvement_percentage", sa.Double()),
    sa.Column("statistical_significance", sa.Double()),
    sa.Column("optimization_details", JSONB(), nullable=False),
    sa.Column("document", JSON(), nullable=False),
    _moment("completed_at"),
    _to("optimization_request", "optimization_id"),
    sa.UniqueConstraint("tenant_id", "optimization_id"),
    sa.Index(None, "tenant_id", "algorithm_used"),
    sa.Index(None, "tenant_id", "improvement_percentage"),
    sa.Index(None, "tenant_id", "completed_at"),
)

trial = sa.Table(
    "trial",
    METADATA,
    _tenant(),
    _number("trial_id"),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    _text("algorithm"),
    _text("candidate"),
    _text("split"),
    _text("examples"),  # content hash of the example ids, in order
    sa.Column("score", sa.Double(), nullable=False),
    sa.Column("document", JSON(), nullable=False),
    _moment("recorded_at"),
    sa.Column(
        "n_results",
        sa.Integer(),
        sa.Computed("json_array_length(((document -> 'noun'::text) -> 'results'::text))", persisted=True),
        nullable=False,
    ),
    _of_trial("iteration", sa.Integer(), "(((document -> 'noun'::text) ->> 'iteration'::text))::integer"),
    _of_trial("paid_calls", sa.Integer(), "(((document -> 'noun'::text) ->> 'paid_calls'::text))::integer"),
    _of_trial("origin", KeptText(), "(((document -> 'noun'::text) -> 'candidate'::text) ->> 'origin'::text)"),
    _of_trial("parents", JSON(), "(((document -> 'noun'::text) -> 'candidate'::text) -> 'parents'::text)"),
    _to("optimization_request", "optimization_id"),
    sa.UniqueConstraint(
        "tenant_id", "optimization_id", "algorithm", "candidate", "split", "examples", name="trial_content_key"
    ),
    sa.Index(None, "tenant_id", "optimization_id", "split"),
)

event = sa.Table(
    "event",
    METADATA,
    _tenant(),
    _number("event_id"),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    _text("type"),
    _moment("at"),
    sa.Column("key", KeptText()),
    sa.Column("data", JSON(), nullable=False),
    _to("optimization_request", "optimization_id"),
    sa.Index(None, "tenant_id", "optimization_id", "event_id"),
    sa.Index(
        "event_key",
        "tenant_id",
        "optimization_id",
        "key",
        unique=True,
        postgresql_where=sa.text("key IS NOT NULL"),
    ),
)

lm_answer = sa.Table(
    "lm_answer",
    METADATA,
    _tenant(),
    _text("key", primary_key=True),
    sa.Column("document", JSON(), nullable=False),
    _now("created_at"),
    _to("tenant"),
)

lm_charge = sa.Table(
    "lm_charge",
    METADATA,
    _tenant(),
    sa.Column("charge_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    _text("key"),
    sa.Column("role", _enum(Role, "lm_role"), nullable=False),
    _text("label"),
    _text("model"),
    sa.Column("status", _enum(ChargeStatus, "charge_status"), nullable=False),
    sa.Column("reserved_usd", sa.Double(), nullable=False),
    sa.Column("cost_usd", sa.Double(), nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
    sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
    _moment("started_at"),
    sa.Column("settled_at", sa.DateTime(timezone=True)),
    _to("optimization_request", "optimization_id"),
    sa.Index(None, "tenant_id", "optimization_id", "status"),
)

test_split_use = sa.Table(
    "test_split_use",
    METADATA,
    _tenant(),
    _text("dataset_version", primary_key=True),
    sa.Column("optimization_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("use", sa.Integer(), nullable=False),
    _now("opened_at"),
    _to("dataset", "dataset_version", theirs=("version",)),
    _to("optimization_request", "optimization_id"),
    sa.UniqueConstraint("tenant_id", "dataset_version", "use"),
)

idempotent_request = sa.Table(
    "idempotent_request",
    METADATA,
    _tenant(),
    sa.Column("key", sa.Text(), primary_key=True, nullable=False),
    sa.Column("digest", sa.Text(), nullable=False),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    _now("created_at"),
    _to("optimization_request", "optimization_id"),
)

# The two that belong to no tenant.
worker_lease = sa.Table(
    "worker_lease",
    METADATA,
    sa.Column("worker_id", sa.Text(), primary_key=True, nullable=False),
    sa.Column("host", sa.Text(), nullable=False),
    sa.Column("process_id", sa.Integer(), nullable=False),
    sa.Column("lanes", ARRAY(sa.Text()), nullable=False),
    sa.Column("version", sa.Text(), nullable=False),
    _moment("started_at"),
    _moment("expires_at"),
    sa.Column("taken_away", sa.Boolean(), nullable=False, server_default=sa.false()),
)

api_key = sa.Table(
    "api_key",
    METADATA,
    sa.Column("key_id", sa.Text(), primary_key=True, nullable=False),
    sa.Column("holder", sa.Uuid(), nullable=False),
    sa.Column("role", sa.Text(), nullable=False),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("digest", sa.LargeBinary(), nullable=False),
    _now("created_at"),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
)


class DeliveryState(StrEnum):
    """Where telling one webhook of one event stands."""

    WAITING = "waiting"  # for its first attempt, or the next
    DELIVERED = "delivered"  # the receiver answered with 2xx
    DEAD = "dead"  # no attempt is made any more, unless somebody asks for it


webhook = sa.Table(
    "webhook",
    METADATA,
    _tenant(),
    sa.Column("webhook_id", sa.Uuid(), primary_key=True, nullable=False, server_default=sa.text("gen_random_uuid()")),
    _text("url"),
    sa.Column("secret", sa.Text(), nullable=False),
    sa.Column("events", ARRAY(sa.Text()), nullable=False),
    sa.Column("description", KeptText()),
    _now("created_at"),
    sa.Column("disabled_at", sa.DateTime(timezone=True)),
    _to("tenant"),
)

# Belongs to no tenant, as the other two.
webhook_delivery = sa.Table(
    "webhook_delivery",
    METADATA,
    sa.Column("delivery_id", sa.Uuid(), primary_key=True, nullable=False, server_default=sa.text("gen_random_uuid()")),
    sa.Column("holder", sa.Uuid(), nullable=False),
    sa.Column("webhook_id", sa.Uuid(), nullable=False),
    sa.Column("event_id", sa.BigInteger(), nullable=False),
    sa.Column("state", _enum(DeliveryState, "delivery_state"), nullable=False, server_default="waiting"),
    sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
    _now("next_attempt_at"),
    sa.Column("claimed_until", sa.DateTime(timezone=True)),
    sa.Column("last_error", KeptText()),
    sa.Column("last_status", sa.Integer()),
    _now("created_at"),
    sa.Column("delivered_at", sa.DateTime(timezone=True)),
    sa.ForeignKeyConstraint(["holder", "webhook_id"], ["webhook.tenant_id", "webhook.webhook_id"], ondelete="CASCADE"),
    sa.ForeignKeyConstraint(["holder", "event_id"], ["event.tenant_id", "event.event_id"]),
    sa.UniqueConstraint("holder", "webhook_id", "event_id"),
    sa.Index("webhook_delivery_due", "next_attempt_at", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index(None, "holder", "webhook_id", "created_at"),
)

schedule = sa.Table(
    "schedule",
    METADATA,
    _tenant(),
    sa.Column("schedule_id", sa.Uuid(), primary_key=True, nullable=False),
    _text("name"),
    sa.Column("cron", sa.Text(), nullable=False),
    sa.Column("timezone", sa.Text(), nullable=False),
    sa.Column("request", JSON(), nullable=False),
    sa.Column("is_paused", sa.Boolean(), nullable=False, server_default=sa.false()),
    _moment("created_at"),
    sa.Column("last_due_at", sa.DateTime(timezone=True)),
    sa.Column("last_fired_at", sa.DateTime(timezone=True)),
    sa.Column("last_optimization_id", sa.Uuid()),
    sa.Column("last_error", KeptText()),
    _to("tenant"),
    _to("optimization_request", "last_optimization_id", theirs=("optimization_id",)),
    sa.UniqueConstraint("tenant_id", "name"),
)

custom_algorithm = sa.Table(
    "custom_algorithm",
    METADATA,
    _tenant(),
    _text("name", primary_key=True),
    sa.Column("entrypoint", sa.Text(), nullable=False),
    sa.Column("version", sa.Text(), nullable=False),
    sa.Column("checks", JSON(), nullable=False),
    _moment("registered_at"),
    _to("tenant"),
)

lesson = sa.Table(
    "lesson",
    METADATA,
    _tenant(),
    sa.Column("optimization_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("form", sa.SmallInteger(), nullable=False),
    _moment("learned_from"),
    sa.Column("document", JSON(none_as_null=True)),
    _to("optimization_request", "optimization_id"),
)

experiment = sa.Table(
    "experiment",
    METADATA,
    _tenant(),
    sa.Column("experiment_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("optimization_id", sa.Uuid(), nullable=False),
    _text("agent"),
    sa.Column("status", _enum(ExperimentStatus, "experiment_status"), nullable=False),
    sa.Column("window_length", sa.Interval(), nullable=False),
    sa.Column("grace", sa.Interval(), nullable=False),
    sa.Column("document", JSON(), nullable=False),
    _moment("created_at"),
    _to("tenant"),
    _to("optimization_request", "optimization_id"),
    sa.Index(None, "tenant_id", "created_at"),
    sa.Index(
        "experiment_agent",
        "tenant_id",
        "agent",
        unique=True,
        postgresql_where=sa.text("status IN ('planned', 'running')"),
    ),
)

exposure = sa.Table(
    "exposure",
    METADATA,
    _tenant(),
    sa.Column("exposure_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("digest", sa.LargeBinary(), primary_key=True, nullable=False),
    sa.Column("experiment_id", sa.Uuid(), nullable=False),
    sa.Column("unit_id", sa.LargeBinary(), nullable=False),
    sa.Column("variant", _enum(Variant, "variant"), nullable=False),
    _text("version"),
    sa.Column("split_buckets", sa.SmallInteger(), nullable=False),
    _moment("exposed_at"),
    _moment("received_at"),
    _to("experiment", "experiment_id"),
    sa.Index(None, "tenant_id", "experiment_id", "exposed_at"),
)

outcome = sa.Table(
    "outcome",
    METADATA,
    _tenant(),
    _text("event_id", primary_key=True),
    sa.Column("experiment_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("digest", sa.LargeBinary(), primary_key=True, nullable=False),
    sa.Column("exposure_id", sa.Uuid(), nullable=False),
    sa.Column("happened_at", sa.DateTime(timezone=True)),
    _moment("received_at"),
    sa.Column("form", sa.SmallInteger(), nullable=False),
    sa.Column("content", sa.LargeBinary(), nullable=False),
    _to("experiment", "experiment_id"),
    sa.Index(None, "tenant_id", "experiment_id", "exposure_id"),
)

experiment_analysis = sa.Table(
    "experiment_analysis",
    METADATA,
    _tenant(),
    sa.Column("experiment_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("digest", sa.Text(), nullable=False),
    sa.Column("document", JSON(), nullable=False),
    _to("experiment", "experiment_id"),
)

experiment_horizon = sa.Table(
    "experiment_horizon",
    METADATA,
    _tenant(),
    _moment("promised_until"),
    _moment("settled_until"),
    _to("tenant"),
)

# Belongs to no tenant, as the three before.
gpu_use = sa.Table(
    "gpu_use",
    METADATA,
    sa.Column("device", sa.Text(), primary_key=True, nullable=False),
    sa.Column("seconds", sa.Double(), nullable=False, server_default="0"),
    sa.Column("out_of_memory", sa.BigInteger(), nullable=False, server_default="0"),
)

# Belongs to no tenant, as the four before.
schedule_due = sa.Table(
    "schedule_due",
    METADATA,
    sa.Column("holder", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("schedule_id", sa.Uuid(), primary_key=True, nullable=False),
    sa.Column("due_at", sa.DateTime(timezone=True)),
    sa.Column("claimed_until", sa.DateTime(timezone=True)),
    sa.ForeignKeyConstraint(
        ["holder", "schedule_id"], ["schedule.tenant_id", "schedule.schedule_id"], ondelete="CASCADE"
    ),
    sa.Index("schedule_due_next", "due_at", postgresql_where=sa.text("due_at IS NOT NULL")),
)

# Belongs to no tenant, as the five before.
experiment_holder = sa.Table(
    "experiment_holder",
    METADATA,
    sa.Column("holder", sa.Uuid(), primary_key=True, nullable=False),
    sa.ForeignKeyConstraint(["holder"], ["tenant.tenant_id"]),
)
