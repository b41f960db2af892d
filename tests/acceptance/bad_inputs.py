"""Wrong inputs, one by one: what somebody does, and what the message has to say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from cli_world import AGENT, CliWorld, records

Prepare: TypeAlias = Callable[[CliWorld], object]

OPTIMIZE = ("optimize", "agent.yaml", "--display", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadInput:
    """One wrong input."""

    name: str
    """What is wrong, in a few words."""
    kind: str
    """files, configuration, dataset, metrics, options, settings, models, keys, runs."""
    prepare: Prepare
    says: tuple[str, ...]
    """Parts of the message: what was wanted, what was found, what is possible."""
    words: tuple[str, ...] = OPTIMIZE
    environment: Mapping[str, str | None] = field(default_factory=dict)
    config: str | None = None
    """The configuration file of the settings; None: one that works."""
    code: int = 2


def job(**changes: object) -> Prepare:
    return lambda world: world.write_job(**changes)


def agent(**changes: object) -> Prepare:
    return job(agent={key: value for key, value in ({**AGENT, **changes}).items() if value is not None})


def signature(**changes: object) -> Prepare:
    base = AGENT["signature"]
    assert isinstance(base, dict)
    return agent(signature={**base, **changes})


def data(name: str, content: str | bytes, **changes: object) -> Prepare:
    def prepare(world: CliWorld) -> None:
        world.write_job(data=name, **changes)
        world.write(name, content)

    return prepare


def rows(*given: object, **changes: object) -> Prepare:
    def prepare(world: CliWorld) -> None:
        world.write_job(data="rows.jsonl", **changes)
        world.write_lines("rows.jsonl", given)

    return prepare


def nothing(_world: CliWorld) -> None:
    """Nothing is there."""


FILES = [
    BadInput(
        name="a file that is not there", kind="files", prepare=nothing,
        says=("a readable file is wanted", "No such file", "check the path"),
    ),
    BadInput(
        name="an agent file of another kind", kind="files", prepare=lambda world: world.write("agent.txt", "x"),
        words=("optimize", "agent.txt"), says=(".yaml, .yml or .json file is wanted", "found .txt", "rename it"),
    ),
    BadInput(
        name="an empty agent file", kind="files", prepare=lambda world: world.write("agent.yaml", ""),
        says=("a mapping is wanted", "found nothing", "possible keys: agent, data", "dspy-opt init"),
    ),
    BadInput(
        name="an agent file that is a list", kind="files", prepare=lambda world: world.write("agent.yaml", "- a\n"),
        says=("a mapping is wanted", "found list ['a']"),
    ),
    BadInput(
        name="broken YAML", kind="files", prepare=lambda world: world.write("agent.yaml", "agent: {name: [}\n"),
        says=("YAML is wanted", "line 1, column", "mend it there"),
    ),
    BadInput(
        name="a key twice", kind="files", prepare=lambda world: world.write("agent.yaml", "data: a\ndata: b\n"),
        says=("the key 'data' twice", "line 2"),
    ),
    BadInput(
        name="a YAML tag that would run code", kind="files",
        prepare=lambda world: world.write("agent.yaml", "agent: !!python/object/apply:os.system [ls]\n"),
        says=("YAML without tags is wanted", "possible: text, numbers"),
    ),
    BadInput(
        name="a file that is not UTF-8", kind="files",
        prepare=lambda world: world.write("agent.yaml", b"agent: \xff\n"),
        says=("UTF-8 text is wanted", "0xff in line 1", "save the file as UTF-8"),
    ),
    BadInput(
        name="a report where a folder is", kind="files", prepare=job(), words=(*OPTIMIZE, "--report", "."),
        says=("--report: a file is wanted", "found the folder", "possible: a file in a folder that can be written"),
    ),
    BadInput(
        name="init over existing files", kind="files", prepare=job(), words=("init", "."), code=1,
        says=("a folder without agent.yaml", "found: agent.yaml", "another folder"),
    ),
]  # fmt: skip

CONFIGURATION = [
    BadInput(
        name="an unknown key in the file", kind="configuration", prepare=job(objective="exact_match"),
        says=("'objective' is no known key", 'did you mean "objectives"', "possible keys: agent, data, metrics"),
    ),
    BadInput(
        name="no agent", kind="configuration", prepare=job(agent=None),
        says=("agent.yaml: agent is missing", "possible: an agent"),
    ),
    BadInput(
        name="an unknown kind of agent", kind="configuration", prepare=agent(kind="chain_of_thoughts"),
        says=("'chain_of_thoughts' is not known", 'did you mean "chain_of_thought"', "possible: predict"),
    ),
    BadInput(
        name="an agent without a signature", kind="configuration", prepare=agent(signature=None),
        says=("signature is missing", "the kind predict needs signature"),
    ),
    BadInput(
        name="a field type that does not exist", kind="configuration",
        prepare=signature(outputs=[{"name": "answer", "type": "strng"}]), says=("outputs", "strng", "possible"),
    ),
    BadInput(
        name="tools for an agent that calls none", kind="configuration", prepare=agent(tools=["m:f"]),
        says=("the kind predict has no tools", "possible: remove it", "react"),
    ),
    BadInput(
        name="a tool that is not allowed", kind="configuration", prepare=agent(kind="react", tools=["os:system"]),
        says=("os:system is not on the allow-list", "possible: none", "the owner of the engine adds names"),
    ),
    BadInput(
        name="a demo with a field nobody has", kind="configuration",
        prepare=agent(demos=[{"word": "a", "anwser": "A"}]),
        says=("'anwser' is no field of the signature", 'did you mean "answer"', "possible: word, answer"),
    ),
    BadInput(
        name="every component frozen", kind="configuration", prepare=agent(components={"self": {"frozen": True}}),
        says=("a component to optimize", "every component of capitals is frozen", "unfreeze one"),
    ),
    BadInput(
        name="a component the agent does not have", kind="configuration",
        prepare=agent(components={"prdict": {"frozen": True}}), says=("prdict", "possible", "self"),
    ),
    BadInput(
        name="a temperature out of range", kind="configuration", prepare=agent(model={"temperature": 9}),
        says=("temperature: a number", "found int 9", "from 0 to 2"),
    ),
    BadInput(
        name="a cap that is no number", kind="configuration", prepare=job(constraints={"max_calls": "many"}),
        says=("constraints.max_calls: a whole number is wanted", "found str 'many'", "possible: from 1"),
    ),
    BadInput(
        name="a time limit without a unit", kind="configuration", prepare=job(constraints={"time_limit": "90"}),
        says=("time_limit: a time with its unit is wanted", "found '90'", "possible: 45s, 30m, 2h"),
    ),
    BadInput(
        name="a cap too small to prove anything", kind="configuration", prepare=job(constraints={"max_calls": 20}),
        says=("max_lm_calls: wanted at least 180", "found: 20", "a higher cap or a smaller dataset"),
    ),
]  # fmt: skip

SAME = [{"word": f"word {n} {n * n}", "answer": "x", "split": ("train", "val", "test")[n % 3]} for n in range(60)]
FEW = [{"word": f"word {n} {n * n}", "answer": f"x{n}", "split": ("train", "val", "test")[n % 3]} for n in range(9)]
LEAKING = [
    *records(),
    {"word": "the very same sentence with many words in it stands here", "answer": "A", "split": "train"},
    {"word": "the very same sentence with many words in it stands here!", "answer": "A", "split": "test"},
]

DATASETS = [
    BadInput(
        name="no data", kind="dataset", prepare=job(data=None),
        says=("the examples of capitals are wanted", "found none named", "--data FILE"),
    ),
    BadInput(
        name="a data file that is not there", kind="dataset", prepare=job(data="missing.jsonl"),
        says=("missing.jsonl: a readable file is wanted", "No such file"),
    ),
    BadInput(
        name="a data file of another kind", kind="dataset", prepare=data("rows.xlsx", "x"),
        says=("a dataset file is wanted", "found .xlsx", ".jsonl, .ndjson, .json, .csv, .tsv"),
    ),
    BadInput(
        name="a line that is no JSON", kind="dataset",
        prepare=data("rows.jsonl", '{"word": "a", "answer": "A"}\n{"word":\n'),
        says=("rows.jsonl, line 2", "JSON is wanted", "column 9"),
    ),
    BadInput(
        name="an empty data file", kind="dataset", prepare=data("rows.jsonl", ""),
        says=("at least one example is wanted", "found none", "possible: {word: ..., answer: ...}"),
    ),
    BadInput(
        name="an input spelt otherwise", kind="dataset", prepare=rows({"wrd": "a", "answer": "A"}),
        says=("line 1: the field word is wanted", "found answer, wrd", 'did you mean "wrd"'),
    ),
    BadInput(
        name="no expected answers", kind="dataset",
        prepare=rows({"word": "a", "label": "A"}, {"word": "b", "label": "B"}),
        says=("what should come out is wanted (answer)", "found in no example", "the first has: label, word"),
    ),
    BadInput(
        name="a CSV row with a cell too many", kind="dataset", prepare=data("rows.csv", "word,answer\na,A,x\n"),
        says=("rows.csv, line 2", "2 cells are wanted", "found 3", "quote cells"),
    ),
    BadInput(
        name="a split with an unknown name", kind="dataset",
        prepare=rows({"word": "a", "answer": "A", "split": "eval"}),
        says=("split is wanted", "found 'eval'", "possible: train, val, test"),
    ),
    BadInput(
        name="a split without examples", kind="dataset",
        prepare=rows(*({"word": f"w{n}", "answer": "A", "split": ("train", "val")[n % 2]} for n in range(8))),
        says=("examples for each of train, val and test are wanted", "found none for test"),
    ),
    BadInput(
        name="one class only", kind="dataset", prepare=rows(*SAME),
        says=("Not usable", "at least two different values of answer", "found only"),
    ),
    BadInput(
        name="too few examples", kind="dataset", prepare=rows(*FEW),
        says=("Not usable", "at least 7 examples in test are wanted", "found 3", "more examples"),
    ),
    BadInput(
        name="the same case in two splits", kind="dataset", prepare=rows(*LEAKING),
        says=("Not usable", "no case in two splits is wanted", "move both into one split"),
    ),
    BadInput(
        name="shares that do not sum to 1", kind="dataset",
        prepare=job(data={"path": "words.jsonl", "shares": {"train": 0.5, "val": 0.5, "test": 0.5}}),
        says=("shares that sum to 1 are wanted", "found 1.5", "train: 0.3"),
    ),
    BadInput(
        name="an unknown reasoning-gym task", kind="dataset", prepare=job(data="reasoning_gym:spel_backward"),
        says=("spel_backward", "spell_backward"),
    ),
]  # fmt: skip

METRICS = [
    BadInput(
        name="no objective", kind="metrics", prepare=job(objectives=None),
        says=("objectives: at least one is wanted", "found none", "--objective exact_match"),
    ),
    BadInput(
        name="an unknown metric", kind="metrics", prepare=job(objectives=["exact_mach"]),
        says=("a metric that is specified is wanted", "found exact_mach", "possible: exact_match"),
    ),
    BadInput(
        name="an unknown metric type", kind="metrics", prepare=job(metrics=["exact"]),
        says=("a metric type is wanted", "found 'exact'", "possible: exact_match, normalized_match"),
    ),
    BadInput(
        name="an option the metric does not have", kind="metrics",
        prepare=job(metrics=[{"type": "exact_match", "tolerance": 1}]),
        says=("'tolerance' is no known key", "possible keys: type, name, field"),
    ),
    BadInput(
        name="a metric function that is not allowed", kind="metrics",
        prepare=job(metrics=[{"type": "function", "name": "own", "function": "os:getcwd"}], objectives=["own"]),
        says=("os:getcwd is not on the allow-list", "metrics"),
    ),
    BadInput(
        name="a judge without a rubric", kind="metrics", prepare=job(metrics=["judge"], objectives=["judge"]),
        says=("metrics[0]", "rubric"),
    ),
    BadInput(
        name="cost to be maximized", kind="metrics",
        prepare=job(objectives=["exact_match", {"metric": "cost_usd", "direction": "maximize"}]),
        says=("cost_usd is better when it is less", "possible: minimize"),
    ),
    BadInput(
        name="guardrails alone", kind="metrics", prepare=job(objectives=[{"metric": "exact_match", "guardrail": True}]),
        says=("at least one that is no guardrail is wanted", "found 1 guardrail", "guardrail: false"),
    ),
    BadInput(
        name="an objective twice", kind="metrics", prepare=job(objectives=["exact_match", "exact_match"]),
        says=("every metric stands once", "found twice: exact_match"),
    ),
    BadInput(
        name="a weight of 0", kind="metrics", prepare=job(objectives=[{"metric": "exact_match", "weight": 0}]),
        says=("objectives[0].weight: a number above 0", "found int 0"),
    ),
    BadInput(
        name="a target that no agent can reach", kind="metrics",
        prepare=job(objectives=[{"metric": "exact_match", "target_value": 85}]),
        says=("wanted: a target_value that exact_match can have, from 0 to 1", "found: 85"),
    ),
    BadInput(
        name="a target on a guardrail", kind="metrics",
        prepare=job(objectives=["exact_match", {"metric": "tokens", "guardrail": True, "target_value": 50}]),
        says=("found: one on the guardrail tokens", "margin says how much"),
    ),
    BadInput(
        name="an unknown policy", kind="metrics", prepare=job(policy="pareto"),
        says=("policy.type: a policy is wanted", "found 'pareto'", "possible: weights, target_values, lexicographic"),
    ),
    BadInput(
        name="the knee of one objective", kind="metrics", prepare=job(policy="knee"),
        says=("knee needs at least two objectives to be improved", "found exact_match alone"),
    ),
    BadInput(
        name="a cap on cost without an objective of cost", kind="metrics",
        prepare=job(policy={"type": "max_cost", "at_most": 0.01}),
        says=("max_cost needs an objective of what an answer takes", "found exact_match", "cost_usd or latency"),
    ),
    BadInput(
        name="an order of priority that names a guardrail", kind="metrics",
        prepare=job(
            objectives=["exact_match", {"metric": "tokens", "guardrail": True}],
            policy={"type": "lexicographic", "order": ["exact_match", "tokens"]},
        ),
        says=("policy.order: an objective to be improved is wanted", "found the guardrail tokens"),
    ),
    BadInput(
        name="targets as a policy without a target", kind="metrics", prepare=job(policy="target_values"),
        says=("target_values needs an objective to be improved that has a target_value", "found none"),
    ),
]  # fmt: skip

OPTIONS = [
    BadInput(
        name="an unknown option of the command", kind="options", prepare=job(), words=(*OPTIMIZE, "--max-call", "5"),
        says=("No such option", "--max-calls"),
    ),
    BadInput(
        name="a cap of 0 calls", kind="options", prepare=job(), words=(*OPTIMIZE, "--max-calls", "0"),
        says=("--max-calls", "a whole number is wanted", "found '0'", "possible: from 1"),
    ),
    BadInput(
        name="a dollar cap that is no number", kind="options", prepare=job(), words=(*OPTIMIZE, "--max-usd", "nan"),
        says=("--max-usd: a finite number above 0 is wanted", "found 'nan'", "possible: 5, 0.5"),
    ),
    BadInput(
        name="a time limit nobody can read", kind="options", prepare=job(), words=(*OPTIMIZE, "--time-limit", "soon"),
        says=("--time-limit: a time with its unit is wanted", "found 'soon'"),
    ),
    BadInput(
        name="an unknown algorithm", kind="options", prepare=job(), words=(*OPTIMIZE, "-a", "gepaa"),
        says=("no algorithm is called 'gepaa'", "did you mean gepa?", "possible: bootstrap_fewshot"),
    ),
    BadInput(
        name="auto beside a name", kind="options", prepare=job(), words=(*OPTIMIZE, "-a", "auto", "-a", "gepa"),
        says=("auto alone, or names", "found: auto, gepa", "leave auto out"),
    ),
    BadInput(
        name="an option the algorithm does not have", kind="options", prepare=job(),
        words=(*OPTIMIZE, "--option", "labeled_fewshot.demo=3"),
        says=("labeled_fewshot has no option 'demo'", "did you mean demos?", "possible: demos, sets"),
    ),
    BadInput(
        name="an option of the wrong type", kind="options", prepare=job(),
        words=(*OPTIMIZE, "--option", "labeled_fewshot.demos=many"),
        says=("the option demos of labeled_fewshot", "wanted int", "found str 'many'"),
    ),
    BadInput(
        name="a given candidate that says nothing", kind="options",
        prepare=job(algorithms=[{"given": {"candidates": [{"components": {}}]}}]),
        says=("options of given: candidates[0].components is missing", "instructions"),
    ),
    BadInput(
        name="an option for an algorithm not chosen", kind="options", prepare=job(),
        words=(*OPTIMIZE, "--option", "gepa.seed=1"),
        says=("of a chosen algorithm is wanted", "found 'gepa'", "labeled_fewshot.<option>"),
    ),
    BadInput(
        name="an objective with an unknown direction", kind="options", prepare=job(),
        words=(*OPTIMIZE, "-o", "exact_match:up"),
        says=("metric[:max|min][:weight above 0] is wanted", "found 'up'", "exact_match:max"),
    ),
    BadInput(
        name="an unknown display", kind="options", prepare=job(), words=("optimize", "agent.yaml", "--display", "liv"),
        says=("one of live, plain, none is wanted", "found 'liv'", 'did you mean "live"'),
    ),
    BadInput(
        name="a --fail-under that is no number", kind="options", prepare=job(),
        words=(*OPTIMIZE, "--fail-under", "inf"),
        says=("--fail-under: a finite number is wanted", "found 'inf'"),
    ),
    BadInput(
        name="an unknown command", kind="options", prepare=nothing, words=("optimise",),
        says=("No such command 'optimise'", "Did you mean 'optimize'"),
    ),
]  # fmt: skip

SETTINGS = [
    BadInput(
        name="a database that is no PostgreSQL", kind="settings", prepare=job(),
        environment={"DATABASE_URL": "mysql://u:hunter2@h/x"},
        says=("DATABASE_URL", "postgresql://user:password@host:5432/name", "found mysql://…"),
    ),
    BadInput(
        name="a database that does not answer", kind="settings", prepare=job(),
        environment={"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:9/x"},
        says=("wanted: the database at u@127.0.0.1:9/x", "Connection refused", "another host or port in DATABASE_URL"),
    ),
    BadInput(
        name="a level that is no probability", kind="settings", prepare=job(),
        environment={"STATISTICAL_SIGNIFICANCE_THRESHOLD": "5"},
        says=("STATISTICAL_SIGNIFICANCE_THRESHOLD", "less than 0.5", "found '5'"),
    ),
    BadInput(
        name="a configuration file that is not there", kind="settings", prepare=job(),
        environment={"DSPY_CONFIG_PATH": "/nowhere/config.yaml"},
        says=("DSPY_CONFIG_PATH", "wanted a YAML file", "No such file"),
    ),
    BadInput(
        name="an unknown key in the configuration file", kind="settings", prepare=job(), config="model: {}\n",
        says=("model: unknown key", "did you mean models?", "Known: models, named_models, allow"),
    ),
    BadInput(
        name="a tracking address without a scheme", kind="settings", prepare=job(),
        environment={"MLFLOW_TRACKING_URI": "mlflow.example.org"},
        says=("MLFLOW_TRACKING_URI", "wanted an address such as http://mlflow.example.org:5000"),
    ),
]  # fmt: skip

MODELS = [
    BadInput(
        name="a model string without a provider", kind="models", prepare=job(), config="models: {task: gpt-4o-mini}\n",
        says=("models.task.model", "a LiteLLM string such as openai/gpt-4o-mini", "found 'gpt-4o-mini'"),
    ),
    BadInput(
        name="a model the agent names and nobody knows", kind="models", prepare=agent(model={"name": "house"}),
        words=("estimate", "agent.yaml"), says=("wanted 'house'", "found no named model", "under named_models"),
    ),
    BadInput(
        name="an address of a model that is none", kind="models", prepare=job(),
        config="models: {task: {model: {base_url: 'ftp://x', model: m}}}\n", says=("models.task.model", "http"),
    ),
    BadInput(
        name="models that lead back to themselves", kind="models", prepare=job(),
        config="models: {task: a}\nnamed_models: {a: {model: m/n, fallbacks: [b]}, b: {model: m/o, fallbacks: [a]}}\n",
        says=("wanted models that do not lead back to themselves",),
    ),
    BadInput(
        name="a dollar cap on a model without a price", kind="models", prepare=job(),
        words=(*OPTIMIZE, "--max-usd", "5"),
        config="models: {task: {model: {base_url: 'http://127.0.0.1:9/v1', model: m}}}\n",
        says=("wanted: a price for every model", "found: none for the task model m", "cap calls or tokens"),
    ),
    BadInput(
        name="a model in the agent's file", kind="models", prepare=agent(lm="openai/gpt-4o"),
        says=("lm is refused", "models come from the settings"),
    ),
]  # fmt: skip

KEYS = [
    BadInput(
        name="a key that is not set", kind="keys", prepare=job(),
        config="models: {task: {model: openai/gpt-4o-mini, api_key_env: NO_SUCH_KEY}}\n",
        says=("wanted a key in the environment variable NO_SUCH_KEY", "found it not set"),
    ),
    BadInput(
        name="a key in the configuration file", kind="keys", prepare=job(),
        config="models: {task: {model: openai/gpt-4o-mini, api_key: sk-hunter2}}\n",
        says=("a key does not belong into a file", "name that variable in api_key_env"),
    ),
    BadInput(
        name="a key where the name of a variable belongs", kind="keys", prepare=job(),
        config="models: {task: {model: openai/gpt-4o-mini, api_key_env: 'sk-hunter2-x'}}\n",
        says=("the name of an environment variable", "not shown: it may be the key itself"),
    ),
    BadInput(
        name="a key in the agent's file", kind="keys", prepare=agent(api_key="sk-hunter2"),
        says=("api_key is refused", "never in a file that is shared"),
    ),
    BadInput(
        name="an address in the agent's file", kind="keys", prepare=agent(model={"base_url": "http://evil"}),
        says=("base_url is refused", "so that no file can send your data elsewhere"),
    ),
]  # fmt: skip

RUNS = [
    BadInput(
        name="a run nobody knows", kind="runs", prepare=nothing, words=("runs", "show", "0199"),
        says=("an optimization whose id begins with '0199'", "found: none", "dspy-opt optimize starts one"),
    ),
    BadInput(
        name="an agent nobody knows", kind="runs", prepare=nothing, words=("agents", "show", "orders"),
        says=("wanted: an agent or version orders", "found: none", "none yet"),
    ),
    BadInput(
        name="an algorithm nobody knows", kind="runs", prepare=nothing, words=("algorithms", "mipro"),
        says=("no algorithm is called 'mipro'", "did you mean miprov2?"),
    ),
]  # fmt: skip

BAD_INPUTS = (*FILES, *CONFIGURATION, *DATASETS, *METRICS, *OPTIONS, *SETTINGS, *MODELS, *KEYS, *RUNS)
