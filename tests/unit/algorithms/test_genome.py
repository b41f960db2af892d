"""Candidates and their rows: what is written reads back, and what a code means never changes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_optimization.agents.candidate import Candidate, ComponentName, ComponentValue
from dspy_optimization.agents.component_settings import PARAMETERS, Choices, ComponentSettings, ModuleKind
from dspy_optimization.algorithms.genome import TEMPERATURES, Demo, Gene, GenePool
from dspy_optimization.compute.variation import MOST_CHOICES
from dspy_optimization.errors import AlgorithmError

READ, WRITE, KEEP = (ComponentName(name) for name in ("read", "write", "keep"))
ALL: tuple[Gene, ...] = ("instructions", "demos", "kind", "model", "tools", "temperature")
CHOICES = Choices(
    kinds=(ModuleKind.PREDICT, ModuleKind.CHAIN_OF_THOUGHT),
    tools=("look", "count", "ask"),
    models=("large", "small"),
    parameters={name: PARAMETERS[name] for name in ("temperature", "top_p")},
    agent=ComponentSettings(parameters={"temperature": 0.7}),
)
BASELINE = Candidate(
    components={
        READ: ComponentValue(instructions="Read.", demos=({"q": "0", "a": "0"},)),
        WRITE: ComponentValue(
            instructions="Write.", settings=ComponentSettings(model="small", parameters={"top_p": 0.5})
        ),
        KEEP: ComponentValue(instructions="Keep.", demos=({"q": "k", "a": "k"},)),
    }
)
FROZEN = frozenset({KEEP})
DEMOS: tuple[Demo, ...] = tuple({"q": str(number), "a": [number, {"deep": None}]} for number in range(6))

some_demos = st.lists(st.sampled_from(DEMOS), max_size=4, unique_by=lambda demo: str(demo["q"])).map(tuple)
some_settings = st.builds(
    lambda model, kind, tools, warmth: ComponentSettings(
        model=model, kind=kind, tools=tools, parameters={} if warmth is None else {"temperature": warmth}
    ),
    st.sampled_from((None, "large", "small")),
    st.sampled_from((None, ModuleKind.CHAIN_OF_THOUGHT)),
    st.sampled_from((None, ("look", "count"), ("look", "ask"), ("count", "ask"))),
    st.sampled_from((None, 0.0, 0.3, 1.0)),
)
some_values = st.builds(
    lambda text, demos, own: ComponentValue(instructions=text, demos=demos, settings=own),
    st.sampled_from(("Read.", "Look.", "", "{braces} and ünïcode\n", " Look.")),
    some_demos,
    some_settings,
)


def pool_of(*, slots: int = 4, vary: tuple[Gene, ...] = ALL) -> GenePool:
    return GenePool(BASELINE, FROZEN, {READ: CHOICES, WRITE: CHOICES}, slots=slots, vary=vary)


def candidate_of(read: ComponentValue, write: ComponentValue) -> Candidate:
    """The second component has a parameter that is no gene; it stays."""
    own = replace(write.settings, parameters={**write.settings.parameters, "top_p": 0.5})
    return Candidate(components={**BASELINE.components, READ: read, WRITE: replace(write, settings=own)})


candidates = st.builds(candidate_of, some_values, some_values)


@settings(max_examples=30, deadline=None)
@given(candidates=st.lists(candidates, min_size=1, max_size=6))
def test_rows_read_back(candidates: list[Candidate]) -> None:
    """Texts, demos in their order, every setting that is a gene; also after the pool has grown."""
    pool = pool_of()
    rows = [pool.encode(candidate) for candidate in candidates]

    assert candidates == [pool.decode(row) for row in rows]
    for row, candidate in zip(rows, candidates, strict=True):
        assert row.tolist() == pool.encode(candidate).tolist()
        assert (row < np.array(pool.space.choices)).all()
        assert row.shape == (pool.genes,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_equal_candidates_are_those_with_equal_tidied_rows(seed: int) -> None:
    """Of random rows with gaps and demos that stand twice: tidied they are equal exactly when they decode alike."""
    pool = GenePool(BASELINE, {KEEP, WRITE}, {READ: CHOICES}, slots=3, vary=("demos", "kind"))
    pool.add_demo(READ, DEMOS[0])
    rows = np.random.default_rng(seed).integers(0, pool.space.choices, (40, pool.genes)).astype(np.int16)
    prints = [pool.decode(row).fingerprint for row in rows]

    tidied = pool.tidied(rows)

    assert prints == [pool.decode(row).fingerprint for row in tidied]
    for one, other in itertools.combinations(range(len(rows)), 2):
        assert (prints[one] == prints[other]) == bool((tidied[one] == tidied[other]).all())
    assert (pool.tidied(tidied) == tidied).all()
    assert all((pool.encode(pool.decode(row)) == row).all() for row in tidied)


def test_demos_stand_first_and_once() -> None:
    pool = GenePool(BASELINE, {READ, KEEP}, {}, slots=4)
    for demo in DEMOS:
        pool.add_demo(WRITE, demo)
    row = np.array([0, 0, 3, 3, 2], dtype=np.int16)

    assert [0, 3, 2, 0, 0] == pool.tidied(row[None])[0].tolist()
    assert (DEMOS[2], DEMOS[1]) == pool.decode(row).components[WRITE].demos


@settings(max_examples=40, deadline=None)
@given(before=st.lists(candidates, min_size=1, max_size=4), after=st.lists(candidates, max_size=4))
def test_rows_and_columns_of_features_last(before: list[Candidate], after: list[Candidate]) -> None:
    """When the pool grows rows mean what they meant, and what is new stands behind what was there."""
    pool = pool_of()
    rows = pool.points([pool.encode(candidate) for candidate in before]).codes
    features = pool.features(rows)
    for candidate in after:
        pool.encode(candidate)
    grown = pool.features(rows)

    assert before == [pool.decode(row) for row in rows]
    assert (features == grown[:, : features.shape[1]]).all()
    assert (grown[:, features.shape[1] :] == 0.0).all()
    assert np.isfinite(grown).all()


def test_features_tell_texts_demos_and_settings_apart() -> None:
    """Every candidate that differs in one of them has other features."""
    pool = pool_of()
    read = BASELINE.components[READ]
    different = [
        read,
        replace(read, instructions="Look."),
        replace(read, demos=()),
        replace(read, demos=DEMOS[:1]),
        replace(read, demos=DEMOS[:2]),
        replace(read, settings=ComponentSettings(model="large")),
        replace(read, settings=ComponentSettings(kind=ModuleKind.CHAIN_OF_THOUGHT)),
        replace(read, settings=ComponentSettings(tools=("look", "ask"))),
        replace(read, settings=ComponentSettings(parameters={"temperature": 0.3})),
    ]
    rows = [pool.encode(Candidate(components={**BASELINE.components, READ: value})) for value in different]

    features = pool.features(pool.points(rows).codes)

    assert len(different) == len({tuple(row) for row in features.tolist()})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_rows_are_candidates_that_keep_what_is_frozen(seed: int) -> None:
    pool = pool_of()
    for demo in DEMOS:
        pool.add_demo(READ, demo)
    pool.add_instruction(WRITE, "Look.")

    found = pool.drawn(40, np.random.default_rng(seed))

    assert (found.codes >= 0).all()
    assert (found.codes < np.array(pool.space.choices)).all()
    assert (pool.tidied(found.codes) == found.codes).all()
    for row in found.codes:
        candidate = pool.decode(row)
        assert BASELINE.components[KEEP] == candidate.components[KEEP]
        assert {"top_p": 0.5}.items() <= dict(candidate.components[WRITE].settings.parameters).items()
        for name in (READ, WRITE):
            CHOICES.check(candidate.components[name].settings, name)
    shown = {len(pool.decode(row).components[READ].demos) for row in found.codes}
    assert {0, 1, 2, 3} <= shown
    assert (READ, WRITE) == pool.components


def test_what_settings_may_be() -> None:
    """The baseline's own first, nothing twice: its temperature and kind are not there a second time."""
    pool = GenePool(BASELINE, {WRITE, KEEP}, {READ: CHOICES}, slots=0, vary=("kind", "model", "tools", "temperature"))
    rows = np.indices(pool.space.choices).reshape(pool.genes, -1).T.astype(np.int16)

    found = [pool.decode(row).components[READ].settings for row in rows]

    assert {None, ModuleKind.CHAIN_OF_THOUGHT} == {one.kind for one in found}
    assert {None, "large", "small"} == {one.model for one in found}
    assert {None, ("count", "ask"), ("look", "ask"), ("look", "count")} == {one.tools for one in found}
    assert {None, *TEMPERATURES} - {0.7} == {one.parameters.get("temperature") for one in found}
    assert 2 * 3 * 4 * 4 == len(rows) == len(set(found))


def test_settings_that_nothing_may_be_chosen_for_are_no_genes() -> None:
    """One tool, one kind, no models, no parameters: nothing to leave out."""
    few = Choices(kinds=(ModuleKind.PREDICT,), tools=("look",))

    pool = GenePool(BASELINE, {WRITE, KEEP}, {READ: few}, slots=2, vary=ALL)

    assert (1, 2, 2) == pool.space.choices


def test_places_are_as_many_as_the_baseline_needs() -> None:
    value = ComponentValue(instructions="Read.", demos=DEMOS[:3])
    baseline = Candidate(components={READ: value})

    assert 3 == GenePool(baseline, (), {}, slots=1).slots
    assert 5 == GenePool(baseline, (), {}, slots=5).slots
    assert 0 == GenePool(baseline, (), {}, slots=5, vary=("instructions",)).slots
    assert (
        value == GenePool(baseline, (), {}, slots=1, vary=("instructions",)).decode(np.zeros(1, int)).components[READ]
    )


@pytest.mark.parametrize(
    ("vary", "value", "said"),
    [
        (ALL, ComponentValue(instructions="Read.", demos=DEMOS[:5]), "wanted: at most 4 demos; found: 5"),
        (
            ALL,
            ComponentValue(instructions="Read.", settings=ComponentSettings(parameters={"temperature": 0.55})),
            "wanted: settings that are genes; found: .*0.55",
        ),
        (
            ("instructions", "demos"),
            ComponentValue(instructions="Read.", settings=ComponentSettings(model="large")),
            "wanted: settings that are genes; found: .*large",
        ),
        (("demos",), ComponentValue(instructions="Look."), "wanted: the agent's instructions, which are no gene"),
        (("instructions",), ComponentValue(instructions="Look."), "wanted: the agent's demos, .*found: 0 others"),
    ],
)
def test_what_no_genes_describe_is_refused(vary: tuple[Gene, ...], value: ComponentValue, said: str) -> None:
    """A row that stood for another candidate would teach a model what is not so."""
    pool = pool_of(vary=vary)

    with pytest.raises(AlgorithmError, match=f"read: {said}"):
        pool.encode(Candidate(components={**BASELINE.components, READ: value}))


@pytest.mark.parametrize(
    ("frozen", "vary", "slots"),
    [
        ({READ, WRITE, KEEP}, ALL, 4),
        ({KEEP}, (), 4),
        ({READ, KEEP}, ("demos",), 0),
        ({KEEP}, ("kind", "model"), 4),
    ],
)
def test_without_anything_to_vary_there_is_no_pool(
    frozen: set[ComponentName], vary: tuple[Gene, ...], slots: int
) -> None:
    with pytest.raises(AlgorithmError, match=r"genome: wanted: something to vary; found: .*; possible: unfreeze"):
        GenePool(BASELINE, frozen, {}, slots=slots, vary=vary)


def test_a_pool_that_is_full_says_so() -> None:
    pool = GenePool(BASELINE, {WRITE, KEEP}, {}, slots=1)

    for number in range(MOST_CHOICES - 2):
        pool.add_demo(READ, {"q": number})
    with pytest.raises(AlgorithmError, match=rf"read: wanted: less than {MOST_CHOICES} .*; found: {MOST_CHOICES}"):
        pool.add_demo(READ, {"q": "one too many"})
    assert max(pool.encode(BASELINE)) < MOST_CHOICES
