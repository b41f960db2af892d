"""Reading examples from files and records."""

import json
from pathlib import Path

import pytest
from agent_samples import ALLOWED, agent
from hypothesis import given
from hypothesis import strategies as st

from dspy_optimization.agents import reading as module
from dspy_optimization.agents.dataset_loading import load_dataset, read_source
from dspy_optimization.agents.example import Split
from dspy_optimization.agents.loading import agent_from_json
from dspy_optimization.agents.reading import (
    RecordFields,
    examples_from_records,
    fields_of,
    read_file,
    read_split_files,
    reading_from_records,
)
from dspy_optimization.errors import InvalidRequestError

QA = RecordFields(inputs=("question",), outputs=("answer",))


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_json_lines(tmp_path: Path) -> None:
    """One object a line; empty lines and U+2028 inside a text do no harm; other fields become metadata."""
    path = _write(
        tmp_path,
        "a.jsonl",
        '\ufeff{"question": "a\u2028b", "answer": 1, "source": "x"}\r\n\n{"question": "c", "answer": null}\n',
    )
    first, second = read_file(path, QA).examples

    assert (first.inputs, first.expected, first.metadata) == ({"question": "a\u2028b"}, {"answer": 1}, {"source": "x"})
    assert (second.inputs, second.expected) == ({"question": "c"}, {})


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables(tmp_path: Path, name: str, mark: str) -> None:
    """Quoted cells span lines; types come from the signature; an empty cell is a missing label."""
    rows = [["question", "answer", "split"], ['"a, ""b""\nc"', "3", "train"], ["d", "", "dev"], ["", "-4", "test"]]
    path = _write(tmp_path, name, "\n\n".join(mark.join(row) for row in rows))
    found = read_file(path, fields_of(agent("question -> answer: int")))

    assert [{"question": 'a, "b"\nc'}, {"question": "d"}, {"question": ""}] == [one.inputs for one in found.examples]
    assert [{"answer": 3}, {}, {"answer": -4}] == [one.expected for one in found.examples]
    assert found.splits == (Split.TRAIN, Split.VAL, Split.TEST)


def test_a_json_list(tmp_path: Path) -> None:
    """The nested form says inputs and expected itself."""
    records = [
        {"inputs": {"question": "a"}, "expected": {"answer": "b"}, "cluster": "c", "metadata": {"x": 1}, "split": "val"}
    ]
    found = read_file(_write(tmp_path, "a.json", json.dumps(records)), QA)

    assert (found.examples[0].cluster, found.examples[0].metadata, found.splits) == ("c", {"x": 1}, (Split.VAL,))


@given(
    st.lists(
        st.fixed_dictionaries({"question": st.text(st.characters(exclude_categories=["C"])), "answer": st.integers()}),
        min_size=1,
        max_size=5,
    )
)
def test_the_same_records_however_they_are_written(records) -> None:
    """The flat and the nested form give the same examples under the same ids."""
    records = [one | {"answer": one["answer"] % 1000} for one in records]
    nested = [{"inputs": {"question": one["question"]}, "expected": {"answer": one["answer"]}} for one in records]

    assert examples_from_records(records, ["question"], ["answer"]) == examples_from_records(nested)


@pytest.mark.parametrize(
    ("type_text", "value", "expected"),
    [
        ("str", 3, "3"),
        ("str", True, "true"),
        ("int", "3", 3),
        ("float", "1e3", 1000.0),
        ("bool", "True", True),
        ("bool", "false", False),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict", '{"a": 1}', {"a": 1}),
        ("Literal['yes', 'no']", "no", "no"),
    ],
)
def test_values_become_what_the_signature_wants(type_text: str, value: object, expected: object) -> None:
    """A CSV has text only, and people write numbers where text is wanted."""
    fields = fields_of(agent(f"question -> answer: {type_text}"))
    found = reading_from_records([{"question": "q", "answer": value}], fields)

    assert {"answer": expected} == found.examples[0].expected


def test_clusters() -> None:
    """A named field holds the cluster; whole numbers will do."""
    records = [{"question": "a", "answer": "b", "customer": 7}, {"question": "c", "answer": "d", "customer": "x"}]

    assert ["7", "x"] == [one.cluster for one in examples_from_records(records, ["question"], ["answer"], "customer")]


def test_fields_of_a_pipeline_and_of_an_agent_that_does_not_tell() -> None:
    """What the steps take from the input and what the last one gives; an entrypoint takes nested records."""
    pipeline = agent_from_json(
        {
            "name": "a",
            "kind": "pipeline",
            "steps": [
                {"name": "one", "agent": {"kind": "predict", "signature": "text -> label"}},
                {
                    "name": "two",
                    "agent": {"kind": "predict", "signature": "label, tone -> score: int"},
                    "inputs": {"label": "one.label", "tone": "input.mood"},
                },
            ],
        },
        allowed=ALLOWED,
    )
    entrypoint = agent_from_json(
        {"name": "b", "kind": "entrypoint", "entrypoint": "sample.programs:triage"}, allowed=ALLOWED
    )
    fields = fields_of(pipeline, cluster="c")

    assert (("text", "mood"), ("score",), "c") == (fields.inputs, fields.outputs, fields.cluster)
    assert ["score"] == list(fields.types)
    assert RecordFields() == fields_of(entrypoint)
    assert read_source([{"inputs": {"x": 1}}], fields_of(entrypoint)).examples[0].inputs == {"x": 1}


def test_fields_of_pipelines_that_end_in_something_else() -> None:
    """A pipeline in a pipeline tells its fields, an entrypoint at the end does not."""
    step = {"name": "one", "agent": {"kind": "predict", "signature": "text -> label"}}
    inner = {"name": "two", "agent": {"kind": "pipeline", "steps": [step]}}
    bare = {"name": "two", "agent": {"kind": "entrypoint", "entrypoint": "sample.programs:triage"}}
    nested, untold = (
        agent_from_json({"name": "a", "kind": "pipeline", "steps": [step, last]}, allowed=ALLOWED)
        for last in (inner, bare)
    )

    assert (("text",), ("label",), {}) == (fields_of(nested).inputs, fields_of(nested).outputs, fields_of(nested).types)
    assert RecordFields() == fields_of(untold)


def test_three_files(tmp_path: Path) -> None:
    """A file a split; a split field inside must agree."""
    paths = {
        split: _write(
            tmp_path, f"{split}.jsonl", json.dumps({"question": split.value, "answer": "a", "split": split.value})
        )
        for split in Split
    }
    found = read_split_files(paths, QA)
    dataset = load_dataset({split.value: str(path) for split, path in paths.items()}, agent(), name="three")

    assert found.splits == (Split.TRAIN, Split.VAL, Split.TEST)
    assert ("three", "test") == (dataset.name, dataset[Split.TEST][0].inputs["question"])
    swapped = {**paths, Split.TRAIN: paths[Split.VAL]}
    with pytest.raises(
        InvalidRequestError, match=r"val.jsonl: examples of the split train are wanted, found the split val"
    ):
        read_split_files(swapped, QA)
    with pytest.raises(InvalidRequestError, match="found none for val, test"):
        read_split_files({Split.TRAIN: paths[Split.TRAIN]}, QA)


def test_names_of_datasets(tmp_path: Path) -> None:
    """A dataset is called as its file; inline examples have a name too."""
    rows = [{"question": f"question number {number}", "answer": "x"} for number in range(9)]
    path = _write(tmp_path, "tickets.jsonl", "\n".join(json.dumps(row) for row in rows))

    assert ["tickets", "examples"] == [load_dataset(path, agent()).name, load_dataset(rows, agent()).name]
    assert load_dataset(path, agent()).version == load_dataset(list(reversed(rows)), agent()).version


def test_files_cannot_be_named_from_outside(tmp_path: Path) -> None:
    """A request of the API names no path of the server."""
    path = _write(tmp_path, "a.jsonl", '{"question": "a", "answer": "b"}')
    for source in (str(path), path, {"train": str(path)}):
        with pytest.raises(InvalidRequestError, match="files of this machine cannot be named from outside"):
            load_dataset(source, agent(), files=False)


def test_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many records end the reading, in every format."""
    monkeypatch.setattr(module, "MAX_RECORDS", 2)
    records = [{"question": str(number), "answer": "b"} for number in range(3)]
    lines = "\n".join(json.dumps(one) for one in records)
    table = "question,answer\n" + "\n".join(f"{number},b" for number in range(3))
    cases = [
        lambda: reading_from_records(records, QA),
        lambda: read_file(_write(tmp_path, "a.jsonl", lines), QA),
        lambda: read_file(_write(tmp_path, "a.csv", table), QA),
    ]
    for read in cases:
        with pytest.raises(InvalidRequestError, match="at most 2 examples are read"):
            read()
