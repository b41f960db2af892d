"""How algorithms stand: paired by example, averaged over seeds, clusters counted once."""

import random
from collections.abc import Callable

import pytest

from dspy_optimization.agents.dataset import Dataset, DatasetVersion
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.cli.comparing import tell
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.optimization.comparing import SearchScores, standings

N = 120
SEEDS = 3


def _data(name: str = "task", clusters: int | None = None) -> Dataset:
    def example(number: int) -> Example:
        cluster = None if clusters is None else f"c{number % clusters}"
        return Example(id=ExampleId(f"{name}-{number}"), inputs={}, expected={}, cluster=cluster)

    splits = {Split.TRAIN: (), Split.VAL: (), Split.TEST: tuple(example(number) for number in range(N))}
    return Dataset(name=name, version=DatasetVersion(name), splits=splits, seed=0)


def _searches(
    algorithm: str, score: Callable[[int, int], float], task: str = "task", seeds: int = SEEDS
) -> list[SearchScores]:
    return [
        SearchScores(
            algorithm=algorithm,
            task=task,
            seed=seed,
            scores={ExampleId(f"{task}-{number}"): score(number, seed) for number in range(N)},
            paid_calls=100,
            search_calls=60,
            is_changed=True,
        )
        for seed in range(seeds)
    ]


def _coin(share: float, salt: str) -> Callable[[int, int], float]:
    return lambda number, seed: float(random.Random(f"{salt}/{number}/{seed}").random() < share)


def test_a_real_difference_is_seen_with_its_sign() -> None:
    """Eighty per cent against fifty, both ways."""
    good, poor = _searches("good", _coin(0.8, "g")), _searches("poor", _coin(0.5, "p"))

    first, second = standings([*poor, *good], {"task": _data()})
    _, reverse = standings([*good, *poor], {"task": _data()})

    assert (None, "poor", "better than the first") == (first.difference, first.algorithm, second.sentence)
    assert "worse than the first" == reverse.sentence
    assert second.low is not None
    assert second.high is not None
    assert 0.1 < second.low < 0.3 < second.high < 0.45
    assert second.difference == pytest.approx(second.score - first.score)
    assert (SEEDS, 0, 100.0, 60.0) == (second.searches, second.failed, second.paid_calls, second.search_calls)


def test_none_is_seen_where_there_is_none() -> None:
    """And it says how large one would have to be."""
    _, second = standings([*_searches("one", _coin(0.6, "a")), *_searches("two", _coin(0.6, "b"))], {"task": _data()})

    assert second.sentence.startswith("no difference can be seen (one of 0.")
    assert second.low is not None
    assert second.high is not None
    assert second.low < 0 < second.high


def test_the_same_twice_is_no_difference() -> None:
    """Nothing varies: nothing is claimed."""
    one = _searches("one", _coin(0.6, "a"))
    two = _searches("two", _coin(0.6, "a"))

    _, second = standings([*one, *two], {"task": _data()})

    assert (0.0, 1.0, True) == (second.difference, second.p_value, "no difference" in second.sentence)


def test_seeds_are_not_examples() -> None:
    """The same scores under twenty seeds are no more evidence than under one."""
    few = standings(
        [*_searches("one", lambda n, s: n % 2, seeds=1), *_searches("two", lambda n, s: float(n % 3 > 0), seeds=1)],
        {"task": _data()},
    )
    many = standings(
        [*_searches("one", lambda n, s: n % 2, seeds=20), *_searches("two", lambda n, s: float(n % 3 > 0), seeds=20)],
        {"task": _data()},
    )

    assert (few[1].difference, few[1].low, few[1].high) == (many[1].difference, many[1].low, many[1].high)


def test_clusters_count_as_one() -> None:
    """A hundred and twenty examples of eight conversations are eight."""
    searches = [*_searches("one", lambda n, s: 0.0), *_searches("two", lambda n, s: float(n % 8 < 6))]

    free, clustered = (standings(searches, {"task": _data(clusters=count)})[1] for count in (None, 8))

    assert free.difference == clustered.difference == 0.75
    assert free.p_value is not None
    assert clustered.p_value is not None
    assert free.p_value < 1e-6 < 0.01 < clustered.p_value


def test_many_comparisons_are_paid_for() -> None:
    """Holm's: of ten that are the same as the first none is called better by luck."""
    searches = _searches("first", _coin(0.5, "0"))
    for number in range(1, 11):
        searches += _searches(f"other{number}", _coin(0.5, str(number)))

    table = standings(searches, {"task": _data()})

    assert ["no difference"] * 10 == [one.sentence[:13] for one in table[1:]]


def test_who_lacks_a_search_cannot_be_compared() -> None:
    """Pairs are what it rests on."""
    with pytest.raises(InvalidRequestError, match=r"the same tasks and seeds .* others for two"):
        standings([*_searches("one", _coin(0.5, "a")), *_searches("two", _coin(0.5, "b"), seeds=2)], {"task": _data()})


def test_the_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line an algorithm, a sentence for each that is compared."""
    monkeypatch.setenv("COLUMNS", "140")
    searches = [*_searches("poor", _coin(0.5, "p")), *_searches("good", _coin(0.8, "g"))]

    tell(standings(searches, {"task": _data()}), searches, as_json=False)

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["algorithm", "sealed", "score"]
    assert [lines[1].split()[0], lines[2].split()[0]] == ["poor", "good"]
    assert "+0." in lines[2]
    assert "good: better than the first." == lines[3]
