"""What bad input gets: never a traceback, always what was wanted, what was found, what is possible."""

import json
from pathlib import Path

import pytest
from agent_samples import ALLOWED, SIGNATURE, agent, minimal

from dspy_optimization.agents.config import AgentKind
from dspy_optimization.agents.dataset_loading import load_dataset
from dspy_optimization.agents.loading import agent_from_json, load_agent_file
from dspy_optimization.agents.metrics import metrics_from_specs
from dspy_optimization.agents.objective_loading import objectives_from_json
from dspy_optimization.errors import InvalidRequestError

PREDICT = minimal(AgentKind.PREDICT)


def _nested(levels: int) -> dict[str, object]:
    inner: dict[str, object] = {"kind": "predict", "signature": SIGNATURE}
    for _ in range(levels):
        inner = {"kind": "pipeline", "steps": [{"name": "s", "agent": inner}]}
    return {"name": "deep", **inner}


def _pipeline(*inputs: dict[str, str], names: tuple[str, ...] = ("one", "two"), **more: object) -> dict[str, object]:
    step = {"kind": "predict", "signature": "question -> answer"}
    steps = [{"name": name, "agent": step, "inputs": given} for name, given in zip(names, inputs, strict=True)]
    return {"name": "p", "kind": "pipeline", "steps": steps, **more}


def _signature(inputs: object, outputs: object = "answer") -> dict[str, object]:
    return {**PREDICT, "signature": {"inputs": inputs, "outputs": [outputs]}}


AGENTS: list[tuple[object, tuple[str, ...]]] = [
    (None, ("a mapping is wanted, found NoneType", "possible keys: format, name, kind")),
    ("predict", ("a mapping is wanted, found str 'predict'",)),
    ({}, ("kind is missing", "possible: predict, chain_of_thought, react")),
    ({**PREDICT, "kind": "chain-of-thought"}, ("agent.kind", 'did you mean "chain_of_thought"', "possible: predict")),
    ({**PREDICT, "kind": 3}, ("agent.kind: text is wanted, found int 3",)),
    ({**PREDICT, "sigature": 1}, ("'sigature' is no known key", 'did you mean "signature"', "possible keys:")),
    ({**PREDICT, "format": 2}, ("agent.format: a whole number is wanted, found int 2; possible: from 1 to 1",)),
    ({"kind": "predict", "signature": SIGNATURE}, ("name is missing", "possible: a name such as support-triage")),
    ({**PREDICT, "name": "a/b"}, ("agent.name: an agent name is wanted, found 'a/b'", "possible: letters")),
    ({"name": "a", "kind": "predict"}, ("signature is missing", "the kind predict needs signature")),
    ({"name": "a", "kind": "react", "signature": SIGNATURE}, ("tools is missing", "needs signature, tools")),
    ({**minimal(AgentKind.REACT), "tools": []}, ("the kind react needs tools", "found list []")),
    ({**PREDICT, "tools": ["json:loads"]}, ("the kind predict has no tools", "react, code_act")),
    ({**PREDICT, "http": "http://localhost:8080"}, ("the kind predict has no http", "kinds that have: http")),
    (
        {**minimal(AgentKind.REACT), "tools": ["os:system"]},
        ("os:system is not on the allow-list", "json:loads, math:sqrt"),
    ),
    ({**minimal(AgentKind.REACT), "tools": ["json:load"]}, ('did you mean "json:loads"',)),
    ({**minimal(AgentKind.REACT), "tools": [3]}, ("tools[0]: the name of installed code is wanted, found 3",)),
    ({**minimal(AgentKind.REACT), "tools": ["json:loads"] * 2}, ("every tool stands once, found json:loads twice",)),
    ({**minimal(AgentKind.ENTRYPOINT), "entrypoint": "evil.module:run"}, ("entrypoint", "sample.programs:*")),
    ({**minimal(AgentKind.ENTRYPOINT), "entrypoint": "rm -rf /"}, ("found 'rm -rf /'", "package.module:function")),
    ({**minimal(AgentKind.ENTRYPOINT), "signature": SIGNATURE}, ("the kind entrypoint has no signature",)),
    ({**PREDICT, "lm": {"model": "x"}}, ("lm is refused: models come from the settings", "possible: remove it")),
    ({**PREDICT, "model": {"api_key": "sk-1"}}, ("agent.model: api_key is refused: keys and headers stand",)),
    ({**PREDICT, "model": {"api_base": "http://x"}}, ("api_base is refused", "no file can send your data elsewhere")),
    ({**PREDICT, "options": {"mock_response": "x"}}, ("mock_response is refused: it would answer in place",)),
    (
        {**PREDICT, "components": {"predict": {"module_src": "import os"}}},
        ("module_src is refused: a file holds no code",),
    ),
    (
        {**minimal(AgentKind.HTTP), "http": {"url": "http://localhost:8080", "headers": {}}},
        ("agent.http: headers is refused",),
    ),
    ({**minimal(AgentKind.PIPELINE), "steps": [{"a": [{"lm": 1}]}]}, ("agent.steps[0].a[0]: lm is refused",)),
    ({**PREDICT, "model": {"temprature": 1}}, ("'temprature' is no known key", 'did you mean "temperature"')),
    ({**PREDICT, "model": {"temperature": 3}}, ("agent.model.temperature", "found int 3", "possible: from 0 to 2")),
    ({**PREDICT, "model": {"top_p": 0}}, ("possible: above 0 up to 1",)),
    ({**PREDICT, "model": {"max_tokens": 1.5}}, ("agent.model.max_tokens: a whole number is wanted, found float 1.5",)),
    ({**PREDICT, "model": {"role": "boss"}}, ("'boss' is not known", "possible: task, reflection, judge")),
    ({**PREDICT, "model": {"name": "a b"}}, ("agent.model.name: the name of a model is wanted",)),
    ({**PREDICT, "adapter": "yaml"}, ("agent.adapter: 'yaml' is not known", "possible: chat, json, xml")),
    ({**PREDICT, "options": {"n": 3}}, ("the kind predict has no options, found n",)),
    ({**minimal(AgentKind.REACT), "options": {"max_iter": 3}}, ('did you mean "max_iters"',)),
    ({**minimal(AgentKind.REACT), "options": {"max_iters": 0}}, ("max_iters", "found int 0; possible: from 1 to 100")),
    ({**minimal(AgentKind.BEST_OF_N), "options": {}}, ("reward is missing", "possible: the reward, an allow-listed")),
    ({**minimal(AgentKind.BEST_OF_N), "options": {"reward": "os:remove"}}, ("options.reward: os:remove is not on",)),
    ({**PREDICT, "signature": "question"}, ("a signature is wanted, found 'question'", '"question -> answer"')),
    ({**PREDICT, "signature": "a -> b -> c"}, ("a signature is wanted",)),
    ({**PREDICT, "signature": "-> answer"}, ("(before ->): 1 to 64 fields are wanted, found 0",)),
    (_signature("question"), ("signature.inputs: fields are wanted, found str 'question'", "[question]")),
    (_signature([3]), ("inputs[0]: a field is wanted, found int 3",)),
    (_signature({"a": 3}), ("inputs.a: a field is wanted, found int 3",)),
    (_signature([{"type": "str"}]), ("inputs[0]: name is missing",)),
    (_signature([{"name": "a", "desc": "x"}]), ("'desc' is no known key", "possible keys: name, type, description")),
    (_signature(["2nd"]), ("a field name is wanted, found '2nd'", "possible: letters, digits and _")),
    (_signature(["class"]), ("found the Python keyword class; possible: class_",)),
    (_signature(["answer"]), ("every field has a name of its own, found twice: answer",)),
    (_signature([f"f{number}" for number in range(65)]), ("1 to 64 fields are wanted, found 65",)),
    (_signature(["a: strr"]), ("inputs[0]: a field type is wanted, found 'strr'", "possible: str, int, float")),
    (_signature(["a: __import__('os')"]), ("cannot read",)),
    ({**PREDICT, "signature": {"inputs": ["a"]}}, ("outputs is missing",)),
    ({**PREDICT, "signature": {**SIGNATURE, "instructions": "x" * 65_537}}, ("at most 65,536 bytes of text", "65,537")),
    ({**PREDICT, "demos": [{"quesion": "a"}]}, ("demos[0]: 'quesion' is no field", 'did you mean "question"')),
    ({**PREDICT, "demos": ["a"]}, ("demos[0]: a demo is wanted, found str 'a'",)),
    ({**PREDICT, "demos": [{}]}, ("a demo is wanted, found dict {}",)),
    ({**PREDICT, "demos": [{"question": "a"}] * 65}, ("at most 64 entries are accepted, found 65",)),
    (
        {**PREDICT, "components": {"a b": {}}},
        ("a component name is wanted, found 'a b'", "possible: the path of a part"),
    ),
    ({**PREDICT, "components": {f"c{n}": {} for n in range(257)}}, ("at most 256 components are accepted, found 257",)),
    ({**PREDICT, "components": {"predict": {"demos": [{"a": 1}]}}}, ("components.predict: instructions is missing",)),
    ({**PREDICT, "components": {"predict": {"frozen": "yes"}}}, ("true or false is wanted, found str 'yes'",)),
    ({**PREDICT, "components": {"predict": "Do it."}}, ("components.predict: a mapping is wanted, found str",)),
    (
        {**minimal(AgentKind.HTTP), "http": "ftp://localhost:8080"},
        ("an address is wanted, found 'ftp://localhost:8080'",),
    ),
    ({**minimal(AgentKind.HTTP), "http": "http://local host"}, ("an address is wanted",)),
    ({**minimal(AgentKind.HTTP), "http": "http://[::1"}, ("an address is wanted",)),
    ({**minimal(AgentKind.HTTP), "http": "http://localhost:99999"}, ("an address is wanted",)),
    ({**minimal(AgentKind.HTTP), "http": "http://u:p@localhost:8080"}, ("without a user and a password",)),
    ({**minimal(AgentKind.HTTP), "http": "http://u@localhost:8080"}, ("without a user and a password",)),
    ({**minimal(AgentKind.HTTP), "http": "http://169.254.169.254/meta"}, ("the host 169.254.169.254:80 is not on",)),
    (
        {**minimal(AgentKind.HTTP), "http": {"url": "http://localhost:8080", "timeout_seconds": 0}},
        ("above 0 up to 3600",),
    ),
    ({"name": "p", "kind": "pipeline", "steps": []}, ("the kind pipeline needs steps",)),
    (
        _pipeline({"question": "two.answer"}, {}),
        ("refers to two, which does not come earlier", "possible: input.<field>"),
    ),
    (_pipeline({"question": "one.answer"}, {}), ("refers to one, which does not come earlier",)),
    (_pipeline({}, {"question": "none.answer"}), ("refers to none, which is no step", "one.answer")),
    (_pipeline({}, {"question": "one.anwser"}), ("the step one gives no anwser", 'did you mean "answer"')),
    (_pipeline({}, {"question": "one"}), ("a reference is wanted, found 'one'",)),
    (_pipeline({}, {"qestion": "one.answer"}), ("'qestion' is no input of the step two", 'did you mean "question"')),
    (_pipeline({}, {"question": 3}), ("steps[1].inputs.question: a reference is wanted, found 3",)),
    (_pipeline({}, {}, names=("one", "one")), ("steps[1].name: every step has a name of its own, found one again",)),
    (_pipeline({}, {}, names=("one", "input")), ("found input again",)),
    (_pipeline({}, {}, names=("one", "a b")), ("a step name is wanted, found 'a b'",)),
    ({"name": "p", "kind": "pipeline", "steps": [{"name": "one"}]}, ("steps[0]: agent is missing",)),
    (_nested(6), ("pipelines nest at most 4 deep",)),
    (
        {**PREDICT, "options": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
        ("at most 32 deep",),
    ),
    ({**PREDICT, "demos": [{"question": "x" * (1 << 20)}]}, ("at most 1,048,576 bytes are accepted",)),
    ({**PREDICT, "demos": [{"question": float("nan")}]}, ("demos[0].question: a finite number is wanted, found nan",)),
    ({**PREDICT, "name": "a\x00"}, ("agent: name: text is wanted, found a NUL character",)),
    ({**PREDICT, "options": object()}, ("plain JSON is wanted, found object",)),
]


@pytest.mark.parametrize(("data", "fragments"), AGENTS)
def test_agents(data: object, fragments: tuple[str, ...]) -> None:
    """Wrong agents, as JSON."""
    with pytest.raises(InvalidRequestError) as caught:
        agent_from_json(data, allowed=ALLOWED)

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


FILES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("a.yaml", b"kind: [predict", ("a.yaml: YAML is wanted, found at line 1, column 15",)),
    ("a.yaml", b"kind: predict\nkind: react", ("line 2, column 1: the key 'kind' twice",)),
    ("a.yaml", b"a: &a [1]\nb: [*a, *a]", ("without aliases is wanted, found *a at line 2",)),
    ("a.yaml", b"!!python/object/apply:os.system [ls]", ("without tags is wanted",)),
    ("a.json", b'{"kind": "predict",}', ("a.json: JSON is wanted, found at line 1, column 20",)),
    ("a.json", b"\xff\xfe", ("UTF-8 text is wanted, found the byte 0xff in line 1",)),
    ("a.toml", b"", ("a .yaml, .yml or .json file is wanted, found .toml",)),
    ("a.yaml", b"", ("a.yaml: a mapping is wanted, found NoneType",)),
    ("a.yaml", b"x" * ((1 << 20) + 1), ("at most 1,048,576 bytes are read",)),
]


@pytest.mark.parametrize(("name", "content", "fragments"), FILES)
def test_agent_files(tmp_path: Path, name: str, content: bytes, fragments: tuple[str, ...]) -> None:
    """Wrong agents, as files."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError) as caught:
        load_agent_file(path, ALLOWED)

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


def _lines(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


GOOD = {"question": "a", "answer": "b"}
DATASETS: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("d.jsonl", b"", ("d.jsonl: at least one example is wanted, found none", "{question: ..., answer: ...}")),
    ("d.jsonl", b"\n\n", ("at least one example is wanted",)),
    ("d.jsonl", _lines(GOOD) + b'\n{"question": "a"', ("d.jsonl, line 2: JSON is wanted, found at line 1, column 17",)),
    ("d.jsonl", _lines(GOOD, [1]), ("line 2: a JSON object is wanted, found list [1]",)),
    (
        "d.jsonl",
        _lines(GOOD, {"qestion": "a"}),
        ("line 2: the field question is wanted, found qestion", 'mean "qestion"'),
    ),
    ("d.jsonl", _lines({"question": None, "answer": 1}), ("line 1: the field question is wanted",)),
    (
        "d.jsonl",
        _lines({"question": "a", "label": 1}),
        ("what should come out is wanted (answer)", "has: label, question"),
    ),
    ("d.jsonl", _lines({**GOOD, "split": "tets"}), ("line 1: split is wanted", "found 'tets'", "train, val, test")),
    ("d.jsonl", _lines({**GOOD, "split": "val"}, GOOD), ("line 2: split is wanted in every example once one has it",)),
    ("d.jsonl", _lines({"inputs": {"x": 1}, "expected": {}}), ("the input question is wanted, found x",)),
    ("d.jsonl", _lines({"inputs": {"question": 1}, "metadata": 1}), ("metadata is wanted as a mapping, found int 1",)),
    ("d.jsonl", _lines({**GOOD, "answer": "\ud800"}), ("line 1", "half a character")),
    ("d.jsonl", b'{"question": "a", "question": "b"}', ("found 'question' twice",)),
    ("d.jsonl", _lines({"question": "x" * (1 << 20), "answer": 1}), ("line 1: at most 1,048,576 bytes",)),
    ("d.jsonl", "é".encode("latin-1"), ("UTF-8 text is wanted",)),
    ("d.json", b'{"question": "a"}', ("a list of examples is wanted, found dict",)),
    ("d.json", b'["a"]', ("d.json, example 1: a mapping is wanted, found str 'a'",)),
    ("d.csv", b"question,answer\na,b,c\n", ("line 2: 2 cells are wanted (question, answer), found 3", "quote cells")),
    ("d.csv", b"question,answer\na\n", ("line 2: 2 cells are wanted", "found 1")),
    ("d.csv", b'question,answer\n"a,b\n', ("CSV is wanted, found: unexpected end of data", "close every quote")),
    ("d.csv", b"question,question\na,b\n", ("found question twice",)),
    ("d.csv", b"question,\na,b\n", ("found an empty name",)),
    ("d.csv", b"question;answer\na;b\n", ("commas between the columns are wanted, found 'question;answer'",)),
    ("d.csv", b"question,answer\n", ("at least one example is wanted",)),
    ("d.csv", b"question,answer\n" + b"x" * 200_000 + b",b\n", ("field larger than field limit", "characters a cell")),
    ("d.parquet", b"PAR1", ("a dataset file is wanted, found .parquet", ".jsonl, .ndjson, .json, .csv, .tsv")),
    (
        "d.jsonl",
        _lines(GOOD, {"question": "c", "answer": "d"}),
        ("at least 3 clusters are wanted", "found 2 in 2 examples"),
    ),
]


@pytest.mark.parametrize(("name", "content", "fragments"), DATASETS)
def test_dataset_files(tmp_path: Path, name: str, content: bytes, fragments: tuple[str, ...]) -> None:
    """Wrong datasets, as files."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError) as caught:
        load_dataset(path, agent())

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


SOURCES: list[tuple[object, tuple[str, ...]]] = [
    (None, ("a dataset is wanted, found NoneType", "possible: a file (.jsonl")),
    (3, ("found int 3",)),
    ([], ("at least one example is wanted",)),
    (["a"], ("record 1: a mapping is wanted, found str 'a'",)),
    ([{"question": "a", "customer": 1}], ("what should come out is wanted (answer)",)),
    ([{"question": object(), "answer": 1}], ("record 1: question: plain JSON is wanted, found object",)),
    ({"train": 3}, ("a file for each of test, train, val is wanted, found {'train': 3}",)),
    ({"trian": "a"}, ("found {'trian': 'a'}",)),
    ("no/such/file.jsonl", ("a readable file is wanted, found: No such file",)),
    ("reasoning_gym:leter_counting", ('did you mean "letter_counting"',)),
    ([{**GOOD, "customer": ""}], ("the cluster in customer is wanted as text or a whole number, found ''",)),
    ([{**GOOD, "customer": True}], ("found True",)),
]


@pytest.mark.parametrize(("source", "fragments"), SOURCES)
def test_sources(source: object, fragments: tuple[str, ...]) -> None:
    """Wrong datasets, as Python or text."""
    with pytest.raises(InvalidRequestError) as caught:
        load_dataset(source, agent(), cluster="customer")

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


def test_records_of_an_agent_that_does_not_tell_its_fields() -> None:
    """An entrypoint takes records that say inputs and expected themselves."""
    config = agent_from_json(minimal(AgentKind.ENTRYPOINT), allowed=ALLOWED)
    with pytest.raises(InvalidRequestError) as caught:
        load_dataset([GOOD], config)

    assert "record 1: the field inputs, expected is wanted, found answer, question" in str(caught.value)
    assert "possible: {inputs: {...}, expected: {...}}" in str(caught.value)


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_label_of_another_shape(value: object) -> None:
    """A list is no number."""
    with pytest.raises(InvalidRequestError, match=r"record 1: answer is wanted as int, found (list|dict)"):
        load_dataset([{"question": "a", "answer": value}], agent("question -> answer: int"))


def test_a_label_of_another_type() -> None:
    """What cannot become the type of the signature is refused with its line."""
    with pytest.raises(InvalidRequestError) as caught:
        load_dataset([{"question": "a", "answer": "many"}], agent("question -> answer: int"))

    assert "record 1: answer is wanted as int, found str 'many'" in str(caught.value)


METRICS: list[tuple[list[object], tuple[str, ...]]] = [
    ([None], ("metrics[0]: a metric type is wanted, found None", "possible: exact_match, normalized_match")),
    (["exact"], ("a metric type is wanted, found 'exact'", "token_f1")),
    ([{"name": "x"}], ("a metric type is wanted, found None",)),
    ([{"type": "exact_macth"}], ('did you mean "exact_match"',)),
    (
        [{"type": "exact_match", "feild": "a"}],
        ("'feild' is no known key", 'mean "field"', "possible keys: type, name, field"),
    ),
    ([{"type": "exact_match", "name": "a b"}], ("a metric name is wanted, found str 'a b'",)),
    (["exact_match", "exact_match"], ("metrics[1]: every metric has a name of its own, found exact_match again",)),
    ([{"type": "numeric", "tolerance": -1}], ("tolerance", "found int -1; possible: from 0 on")),
    ([{"type": "numeric", "extract": "last"}], ("true or false is wanted",)),
    ([{"type": "json_match", "fields": "a"}], ("fields: a list is wanted",)),
    ([{"type": "json_match", "fields": [1]}], ("a list of field names is wanted",)),
    ([{"type": "function"}], ("function is missing", "possible: package.module:function")),
    ([{"type": "function", "function": "os:system"}], ("os:system is not on the allow-list", "sample_metrics:*")),
    ([{"type": "function", "function": "sample_metrics:f", "low": 1, "high": 1}], ("a number above low (1)",)),
    ([{"type": "function", "function": "sample_metrics:f"}], ("sample_metrics cannot be imported", "install it")),
    ([{"type": "judge", "rubric": "x"}], ("a judge needs a language model, found none here", "possible: exact_match")),
    (["exact_match"] * 33, ("at most 32 metrics are accepted, found 33",)),
]


@pytest.mark.parametrize(("specs", "fragments"), METRICS)
def test_metrics(specs: list[object], fragments: tuple[str, ...]) -> None:
    """Wrong metrics."""
    with pytest.raises(InvalidRequestError) as caught:
        metrics_from_specs(specs, allowed=ALLOWED)

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


def test_a_judge_that_complains() -> None:
    """The place is added to what the judge says."""

    def judge(spec: object) -> None:
        raise InvalidRequestError("judge: rubric is missing")

    with pytest.raises(InvalidRequestError, match=r"metrics\[0\]: judge: rubric is missing"):
        metrics_from_specs([{"type": "judge"}], allowed=ALLOWED, judge=judge)


OBJECTIVES: list[tuple[object, tuple[str, ...]]] = [
    ({}, ("objectives: a list of 1 to 16 is wanted, found dict", "exact_match")),
    ([], ("found 0 objectives",)),
    ([3], ("objectives[0]: a mapping is wanted, found int 3",)),
    ([{}], ("metric is missing", "possible: exact_match, cost_usd")),
    (["exact_mtch"], ('found exact_mtch (did you mean "exact_match"?)', "success_rate")),
    ([{"metric": "exact_match", "wieght": 1}], ('did you mean "weight"',)),
    ([{"metric": "exact_match", "direction": "up"}], ("'up' is not known", "possible: maximize, minimize")),
    ([{"metric": "exact_match", "weight": 0}], ("weight", "found int 0; possible: above 0 up to")),
    ([{"metric": "exact_match", "target_value": "high"}], ("a number is wanted, found str 'high'",)),
    ([{"metric": "cost_usd", "direction": "maximize"}], ("cost_usd is better when it is less",)),
    ([{"metric": "latency", "direction": "maximize"}], ("latency_seconds is better when it is less",)),
    (
        [{"metric": "cost_efficiency", "direction": "maximize", "target_value": 0.8}],
        ("no target for cost_efficiency", '"metric": "cost_usd"'),
    ),
    ([{"metric": "exact_match", "margin": 0.2}], ("a margin on a guardrail only",)),
    (
        [{"metric": "exact_match", "guardrail": True}],
        ("at least one that is no guardrail is wanted, found 1 guardrail",),
    ),
    (["exact_match", "success_rate"], ("every metric stands once, found twice: exact_match",)),
]


@pytest.mark.parametrize(("data", "fragments"), OBJECTIVES)
def test_objectives(data: object, fragments: tuple[str, ...]) -> None:
    """Wrong objectives."""
    metrics = metrics_from_specs(["exact_match"], allowed=ALLOWED)
    with pytest.raises(InvalidRequestError) as caught:
        objectives_from_json(data, metrics)

    assert [] == [fragment for fragment in fragments if fragment not in str(caught.value)], str(caught.value)


def test_a_success_rate_without_a_metric_of_correctness() -> None:
    """Cost and latency say nothing about success."""
    with pytest.raises(InvalidRequestError, match="a metric that is specified is wanted, found success_rate"):
        objectives_from_json(["success_rate"], metrics_from_specs([], allowed=ALLOWED))
