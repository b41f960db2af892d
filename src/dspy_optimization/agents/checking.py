"""What a dataset is good for, said before money is spent."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from dspy_optimization.agents.candidate import canonical_json
from dspy_optimization.agents.config import AgentConfig
from dspy_optimization.agents.dataset import Dataset
from dspy_optimization.agents.dataset_report import NAMED, DatasetReport, Finding, Severity, finding
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.field_type import TypeKind
from dspy_optimization.agents.leaks import find_leaks
from dspy_optimization.agents.near_duplicates import input_text
from dspy_optimization.agents.objective import Objective
from dspy_optimization.agents.reading import fields_of
from dspy_optimization.agents.untrusted import closest, listed, shown
from dspy_optimization.events import Json
from dspy_optimization.statistics import detectable_share, minimum_units

__all__ = ["DatasetReport", "Finding", "Severity", "check_dataset"]

ASSUMED_DISCORDANT_SHARE = 0.3
"""Share of examples on which candidate and baseline are expected to differ, for the gain shown beforehand.

Our own assumption, on the large side: fewer differing examples make a smaller gain detectable. The gate computes
with the share it observes.
"""
LARGE_GAIN = 0.2
"""Gains above 20 points are rare: a test split that shows only those will mostly end indecisive."""
HUGE_CHARACTERS = 50_000
MAX_CLASSES = 20
MAX_LEAKS = 100
LARGE_CLUSTER_SHARE = 0.2

_INJECTION = re.compile(
    r"(?:ignore|disregard|forget)\s+(?:all\s+|any\s+)?(?:of\s+)?(?:the\s+|your\s+|my\s+)?(?:previous|prior|above|earlier)"
    r"\s+(?:instructions|prompts?|rules|messages)"
    r"|you\s+are\s+now\s+(?:in\s+)?(?:dan\b|developer\s+mode|jailbroken)"
    r"|(?:reveal|print|repeat|output)\s+(?:me\s+)?(?:your|the)\s+(?:system\s+prompt|hidden\s+instructions)"
    r"|<\|(?:im_start|im_end|system|endoftext)\|>|\[/?INST\]|\[\[\s*##\s*\w+\s*##\s*\]\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quotes:
    """What messages may say of single examples: of a sealed one where it stands, and nothing it holds."""

    splits: Mapping[ExampleId, Split]
    sealed: frozenset[ExampleId]

    def may(self, *examples: Example) -> bool:
        """Whether all of them may be quoted."""
        return not any(one.id in self.sealed for one in examples)

    def place(self, example: Example) -> str:
        """Return which one it is, and its split."""
        return f"{example.id[:12]} in {self.splits[example.id]}"


def check_dataset(
    dataset: Dataset,
    agent: AgentConfig,
    objectives: Sequence[Objective] = (),
    *,
    alpha: float = 0.05,
    leaks: bool = True,
    sealed: bool = False,
) -> DatasetReport:
    """Return what is wrong with a dataset, and what it can show.

    Args:
        dataset: of any size; 20,000 examples take seconds.
        agent: whose fields the examples should have.
        objectives: those without a guardrail share alpha (Holm), so several need more examples.
        alpha: two-sided level of the gate, in (0, 1).
        leaks: False where they are known not to be (a dataset that was split here).
        sealed: whether who reads the report may not know what the examples in test hold: of those it names ids alone.
    """
    quotes = _Quotes(
        splits={one.id: split for split in Split for one in dataset[split]},
        sealed=frozenset(one.id for one in dataset[Split.TEST]) if sealed else frozenset(),
    )
    goals = max(1, sum(not objective.guardrail for objective in objectives))
    level = alpha / goals
    units = len(_clusters(dataset[Split.TEST]))
    gain = detectable_share(units, discordant_share=ASSUMED_DISCORDANT_SHARE, alpha=level) if units else None
    findings = [
        *_size_findings(dataset, units, level, gain, quotes),
        *_field_findings(dataset, agent, quotes),
        *_label_findings(dataset, quotes),
        *_contradictions(dataset, quotes),
        *(_leak_findings(dataset, quotes) if leaks else ()),
        *_text_findings(dataset),
    ]
    order = list(Severity)
    return DatasetReport(
        findings=tuple(sorted(findings, key=lambda one: order.index(one.severity))),
        n_train=len(dataset[Split.TRAIN]),
        n_val=len(dataset[Split.VAL]),
        n_test=len(dataset[Split.TEST]),
        test_units=units,
        detectable_gain=gain,
    )


def _clusters(examples: Sequence[Example]) -> Counter[str]:
    return Counter(one.id if one.cluster is None else f"cluster:{one.cluster}" for one in examples)


def _size_findings(dataset: Dataset, units: int, level: float, gain: float | None, quotes: _Quotes) -> list[Finding]:
    found = [
        finding(
            Severity.ERROR,
            "empty_split",
            f"examples in {split} are wanted, found none; possible: add some, or let the split be made",
        )
        for split in Split
        if not dataset[split]
    ]
    fewest = minimum_units(level)
    if units < fewest:
        what = "clusters" if units < len(dataset[Split.TEST]) else "examples"
        message = (
            f"at least {fewest} {what} in test are wanted, for with fewer no difference can reach p < {level:g}, found "
            f"{units}; possible: more examples, or a larger test share"
        )
        found.append(finding(Severity.ERROR, "too_small", message))
    elif gain is None or gain > LARGE_GAIN:
        shows = "no gain at all" if gain is None else f"only gains of {100.0 * gain:.0f} percentage points and more"
        message = (
            f"a test split that shows a gain of {100.0 * LARGE_GAIN:.0f} percentage points is wanted, found {units} "
            f"independent examples, which show {shows}; possible: more examples, or the verdict may well be indecisive"
        )
        found.append(finding(Severity.WARNING, "small", message))
    else:
        message = (
            f"{units} independent test examples show gains of {100.0 * gain:.0f} percentage points and more with "
            "80 % power"
        )
        found.append(finding(Severity.NOTE, "detectable_gain", message))
    clusters = _clusters(dataset.examples)
    if clusters and clusters.most_common(1)[0][1] > max(2, LARGE_CLUSTER_SHARE * len(dataset.examples)):
        name, size = clusters.most_common(1)[0]
        if name not in _clusters([one for one in dataset.examples if quotes.may(one)]):
            name = "one that stands in test alone"
        message = (
            f"clusters that are small beside the dataset are wanted, found {name} with {size} of "
            f"{len(dataset.examples)} examples; possible: a finer cluster field, or more examples of other clusters"
        )
        found.append(finding(Severity.WARNING, "large_cluster", message))
    return found


def _field_findings(dataset: Dataset, agent: AgentConfig, quotes: _Quotes) -> list[Finding]:
    fields = fields_of(agent)
    found: list[Finding] = []
    for name in fields.inputs:
        lacking = [one for one in dataset.examples if one.inputs.get(name) is None]
        if lacking:
            present = {key for one in lacking for key in one.inputs}
            message = (
                f"the input {name} of the agent {agent.name} is wanted in every example, found missing in "
                f"{len(lacking)}; they have: {listed(present)}{closest(name, present)}; possible: rename the field"
            )
            found.append(finding(Severity.ERROR, "input_missing", message, lacking))
    for name, wanted in fields.types.items():
        values = [(one, one.inputs.get(name, one.expected.get(name))) for one in dataset.examples]
        wrong = [(one, value) for one, value in values if value is not None and not wanted.accepts(value)]
        if wrong:
            quoted = (shown(value) for one, value in wrong if quotes.may(one))
            first = next(quoted, f"another value in {quotes.place(wrong[0][0])}")
            message = (
                f"{name} is wanted as {wanted}, found {first} and {len(wrong) - 1} more; possible: values of that "
                "type, or another type in the signature"
            )
            severity = Severity.ERROR if wanted.kind is TypeKind.LITERAL else Severity.WARNING
            found.append(finding(severity, "wrong_type", message, [one for one, _ in wrong]))
    return found


def _label_findings(dataset: Dataset, quotes: _Quotes) -> list[Finding]:
    found: list[Finding] = []
    names = sorted({name for one in dataset.examples for name in one.expected})
    if not names and dataset.examples:
        found.append(finding(Severity.WARNING, "no_labels", "what should come out is wanted, found in no example; "
                              "possible: a metric that needs no expected answer (a judge, cost, latency)"))  # fmt: skip
    for name in names:
        lacking = [one for one in dataset.examples if one.expected.get(name) is None]
        if lacking:
            message = (
                f"the expected {name} is wanted in every example, found missing in {len(lacking)} of "
                f"{len(dataset.examples)}; possible: label them, leave those out, or the field everywhere"
            )
            found.append(finding(Severity.ERROR, "label_missing", message, lacking))
        found += _class_findings(dataset, name, quotes)
    return found


def _class_findings(dataset: Dataset, name: str, quotes: _Quotes) -> list[Finding]:
    """Judge the values of one output as classes, where there are few of them for the examples there are."""
    by_split = {split: Counter(_labels(dataset[split], name)) for split in Split}
    total = sum(by_split.values(), Counter[str]())
    known = set(_labels([one for one in dataset.examples if quotes.may(one)], name))
    found: list[Finding] = []
    if len(total) == 1 and total.total() > 1:
        message = (
            f"at least two different values of {name} are wanted, found only {_classes(total, known)}: an agent that "
            "always says so is perfect; possible: examples of the other cases"
        )
        return [finding(Severity.ERROR, "one_class", message)]
    if len(total) > MAX_CLASSES or total.total() < 5 * len(total):
        return []
    for split, counts in by_split.items():
        absent = sorted(set(total) - set(counts))
        if counts and len(counts) == 1:
            # Where the one value of a sealed split cannot be said, those that are absent would say it.
            quotable = known if quotes.may(*dataset[split]) else set[str]()
            message = (
                f"at least two different values of {name} in {split} are wanted, found only "
                f"{_classes(counts, quotable)}; possible: another seed, or more examples of "
                f"{_classes(absent, quotable)}"
            )
            found.append(finding(Severity.WARNING, "one_class_in_split", message))
        elif counts and absent:
            message = (
                f"every value of {name} in {split} is wanted, found none of {_classes(absent, known)}; "
                "possible: another seed, or more examples of it"
            )
            found.append(finding(Severity.WARNING, "class_missing_in_split", message))
    return found


def _classes(values: Collection[str], known: Set[str]) -> str:
    """Return the first of the values; of those that are not known only how many they are."""
    named = [shown(one) for one in values if one in known][:NAMED]
    hidden = sum(one not in known for one in values)
    if hidden:
        named.append("1 that stands in test" if hidden == 1 else f"{hidden} that stand in test")
    return ", ".join(named)


def _labels(examples: Sequence[Example], name: str) -> list[str]:
    values = [one.expected.get(name) for one in examples]
    return [canonical_json(value) for value in values if value is not None]


def _contradictions(dataset: Dataset, quotes: _Quotes) -> list[Finding]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        groups[input_text(example)].append(example)
    repeated = [group for group in groups.values() if len(group) > 1]
    against = [group for group in repeated if len({_expected_text(one) for one in group}) > 1]
    found: list[Finding] = []
    if against:
        first = against[0]
        told = f"{quotes.place(first[0])} and {quotes.place(first[1])}"
        if quotes.may(*first):
            answers = f"{shown(_expected_text(first[0]))} and {shown(_expected_text(first[1]))}"
            told = f"{shown(input_text(first[0]))} → {answers}"
        message = (
            f"one expected answer for equal inputs is wanted, found {len(against)} contradiction(s), the first: "
            f"{told}; possible: decide for one"
        )
        members = [one for group in against for one in group]
        found.append(finding(Severity.WARNING, "contradiction", message, members))
    same = [group for group in repeated if group not in against]
    if same:
        first = same[0]
        told = f"{quotes.place(first[0])} and {quotes.place(first[1])}"
        if quotes.may(*first):
            told = shown(input_text(first[0]))
        message = (
            f"every case once is wanted, found {len(same)} case(s) with inputs that differ only in case, spacing or "
            f"width of letters, the first: {told}; possible: keep one of each"
        )
        found.append(finding(Severity.NOTE, "duplicate", message, [one for group in same for one in group]))
    return found


def _expected_text(example: Example) -> str:
    return canonical_json({name: _even(value) for name, value in example.expected.items()})


def _even(value: Json) -> Json:
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split()) if isinstance(value, str) else value


def _leak_findings(dataset: Dataset, quotes: _Quotes) -> list[Finding]:
    splits = [split for split in Split for _ in dataset[split]]
    leaks = find_leaks(dataset.examples, splits)
    found = [
        Finding(
            severity=Severity.ERROR,
            code=f"leak_{leak.reason}",
            message="no case in two splits is wanted, found "
            f"{leak if quotes.may(leak.first, leak.second) else leak.places}; possible: move both into one split, or "
            "remove one",
            examples=(leak.first.id, leak.second.id),
        )
        for leak in leaks[:MAX_LEAKS]
    ]
    if len(leaks) > MAX_LEAKS:
        message = f"no case in two splits is wanted, found {len(leaks)} leaks; possible: have the split made here"
        found.append(finding(Severity.ERROR, "leaks", message))
    return found


def _text_findings(dataset: Dataset) -> list[Finding]:
    suspicious: dict[str, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        for text in _texts([*example.inputs.values(), *example.expected.values()]):
            if _INJECTION.search(text):
                suspicious["injection"].append(example)
            if any(unicodedata.category(letter) == "Cf" for letter in text if letter > "\u00ac"):
                suspicious["invisible"].append(example)
            if len(text) > HUGE_CHARACTERS:
                suspicious["huge"].append(example)
    texts = {
        "injection": "text that gives a model orders (ignore previous instructions, chat markers); optimizers show "
        "examples to a model that writes instructions; possible: read them, remove what is no real case",
        "invisible": "invisible characters (zero width, direction marks); possible: remove them, unless the language "
        "needs them",
        "huge": f"texts of more than {HUGE_CHARACTERS:,} characters; possible: cut them, or mind the context window "
        "and the price",
    }
    found: list[Finding] = []
    for code, members in suspicious.items():
        distinct = list({one.id: one for one in members}.values())
        message = f"plain examples are wanted, found {len(distinct)} with {texts[code]}"
        found.append(finding(Severity.WARNING, code, message, distinct))
    return found


def _texts(values: Sequence[Json]) -> list[str]:
    texts: list[str] = []
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            texts += _texts(value)
        elif isinstance(value, dict):
            texts += _texts(list(value.values()))
    return texts
