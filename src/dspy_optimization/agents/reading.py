"""Reading examples: JSON lines, JSON, CSV, Python records. Every complaint names its line."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dspy_optimization.agents.candidate import canonical_json, content_hash
from dspy_optimization.agents.config import AgentConfig, AgentKind
from dspy_optimization.agents.document import parse_json, read_text
from dspy_optimization.agents.example import Example, ExampleId, Split
from dspy_optimization.agents.field_type import FieldType, TypeKind, parse_field_type
from dspy_optimization.agents.pipeline_reading import agent_fields
from dspy_optimization.agents.untrusted import checked_json, closest, listed, shown
from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.events import Json

MAX_FILE_BYTES = 64 << 20
MAX_RECORDS = 200_000
MAX_RECORD_BYTES = 1 << 20
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")

_NESTED = ("inputs", "expected", "cluster", "split", "metadata", "id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFields:
    """Which fields of a record mean what."""

    inputs: tuple[str, ...] = ()
    """Every record has them. Empty: records bring `inputs` and `expected` as mappings."""
    outputs: tuple[str, ...] = ()
    """What should come out; a record may lack some, and null counts as lacking."""
    cluster: str | None = None
    """The field that names the cluster: a conversation, a document, a customer."""
    split: str = "split"
    """The field that may hold train, val or test."""
    types: Mapping[str, FieldType] = field(default_factory=dict)
    """Text such as "3" becomes the number a field wants; what cannot is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a source holds, in its order; equal examples are still there as often as they were."""

    examples: tuple[Example, ...]
    splits: tuple[Split, ...] | None = None
    """The split of every example; None when the source leaves splitting to us."""


def fields_of(agent: AgentConfig, *, cluster: str | None = None) -> RecordFields:
    """Return how records for an agent read: by the inputs and outputs of its signature.

    An agent whose configuration does not tell its fields (an entrypoint, a bare HTTP agent) takes records that say
    `inputs` and `expected` themselves.
    """
    names = agent_fields(agent)
    if names is None:
        return RecordFields(cluster=cluster)
    types: dict[str, FieldType] = {}
    if agent.signature is not None:
        types = {one.name: parse_field_type(one.type) for one in agent.signature.inputs + agent.signature.outputs}
    elif agent.kind is AgentKind.PIPELINE and agent.steps[-1].agent.signature is not None:
        types = {one.name: parse_field_type(one.type) for one in agent.steps[-1].agent.signature.outputs}
    return RecordFields(inputs=names.inputs, outputs=names.outputs, cluster=cluster, types=types)


def example_id(inputs: Mapping[str, Json], expected: Mapping[str, Json]) -> ExampleId:
    """Return the content hash of an example."""
    return ExampleId(content_hash({"inputs": dict(inputs), "expected": dict(expected)}))


def examples_from_records(
    records: Iterable[object],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    cluster_field: str | None = None,
) -> tuple[Example, ...]:
    """Return examples from Python mappings, in their order.

    Raises:
        InvalidRequestError: names the record, counted from 1.
    """
    fields = RecordFields(inputs=tuple(inputs), outputs=tuple(outputs), cluster=cluster_field)
    return reading_from_records(records, fields).examples


def reading_from_records(records: Iterable[object], fields: RecordFields, where: str = "record") -> Reading:
    """Return what Python mappings say, with their splits when every one names its own."""
    rows: list[tuple[str, dict[str, Json]]] = []
    for number, record in enumerate(records, start=1):
        place = f"{where} {number}"
        value = checked_json(record, place, max_bytes=MAX_RECORD_BYTES)
        if not isinstance(value, dict):
            raise InvalidRequestError(
                f"{place}: a mapping is wanted, found {type(value).__name__} {shown(value)}; possible: "
                f"{_layout(fields)}"
            )
        if number > MAX_RECORDS:
            raise InvalidRequestError(f"{place}: at most {MAX_RECORDS:,} examples are read; possible: a sample of them")
        rows.append((place, value))
    return _RowReader(fields).read(rows, where)


def read_file(path: Path, fields: RecordFields) -> Reading:
    """Return what a `.jsonl`, `.ndjson`, `.json`, `.csv` or `.tsv` file holds.

    Raises:
        InvalidRequestError: names the file and the line (in JSON also the column).
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidRequestError(
            f"{path}: a dataset file is wanted, found {suffix or 'no suffix'}; possible: {', '.join(SUFFIXES)}"
        )
    text = read_text(path, max_bytes=MAX_FILE_BYTES)
    if suffix in (".jsonl", ".ndjson"):
        rows = _json_lines(text, path.name)
    elif suffix == ".json":
        value = parse_json(text, path.name, max_bytes=MAX_FILE_BYTES)
        if not isinstance(value, list):
            raise InvalidRequestError(
                f"{path.name}: a list of examples is wanted, found {type(value).__name__}; possible: [{{...}}, ...]"
            )
        return reading_from_records(value, fields, f"{path.name}, example")
    else:
        rows = _csv_rows(text, path.name, "\t" if suffix == ".tsv" else ",")
        return _RowReader(fields, blank_is_missing=True).read(rows, path.name)
    return _RowReader(fields).read(rows, path.name)


def read_split_files(paths: Mapping[Split, Path], fields: RecordFields) -> Reading:
    """Return what one file a split holds; a `split` field inside must agree.

    Raises:
        InvalidRequestError: a split has no file, or a line of a file names another split.
    """
    missing = [split.value for split in Split if split not in paths]
    if missing:
        raise InvalidRequestError(
            f"a file for each of train, val and test is wanted, found none for {', '.join(missing)}; possible: name "
            "it, or give one file and have it split"
        )
    examples: list[Example] = []
    splits: list[Split] = []
    for split in Split:
        reading = read_file(paths[split], fields)
        others = set(reading.splits or ()) - {split}
        if others:
            raise InvalidRequestError(
                f"{paths[split].name}: examples of the split {split} are wanted, found the split {listed(others)}; "
                f"possible: remove the field {fields.split}"
            )
        examples += reading.examples
        splits += [split] * len(reading.examples)
    return Reading(examples=tuple(examples), splits=tuple(splits))


def _json_lines(text: str, name: str) -> list[tuple[str, dict[str, Json]]]:
    rows: list[tuple[str, dict[str, Json]]] = []
    # str.splitlines would also cut at U+2028, which may stand inside a JSON text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        value = parse_json(line, place, max_bytes=MAX_RECORD_BYTES)
        if not isinstance(value, dict):
            raise InvalidRequestError(
                f"{place}: a JSON object is wanted, found {type(value).__name__} {shown(value)}; possible: one "
                "{...} a line"
            )
        rows.append((place, value))
        if len(rows) > MAX_RECORDS:
            raise InvalidRequestError(f"{place}: at most {MAX_RECORDS:,} examples are read; possible: a sample of them")
    return rows


def _csv_rows(text: str, name: str, delimiter: str) -> list[tuple[str, dict[str, Json]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, dict[str, Json]]] = []
    header: list[str] = []
    try:
        for cells in reader:
            place = f"{name}, line {reader.line_num}"
            if not cells:
                continue
            if not header:
                header = _checked_header(cells, place, delimiter)
                continue
            if len(cells) != len(header):
                raise InvalidRequestError(
                    f"{place}: {len(header)} cells are wanted ({', '.join(header)}), found {len(cells)}; possible: "
                    'quote cells that hold the delimiter: "a, b"'
                )
            row = checked_json(dict(zip(header, cells, strict=True)), place, max_bytes=MAX_RECORD_BYTES)
            rows.append((place, row if isinstance(row, dict) else {}))
            if len(rows) > MAX_RECORDS:
                raise InvalidRequestError(
                    f"{place}: at most {MAX_RECORDS:,} examples are read; possible: a sample of them"
                )
    except csv.Error as error:
        raise InvalidRequestError(
            f"{name}, line {reader.line_num}: CSV is wanted, found: {error}; possible: close every quote, double "
            f"quotes inside quotes, at most {csv.field_size_limit():,} characters a cell"
        ) from error
    return rows


def _checked_header(cells: list[str], place: str, delimiter: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    doubles = {name for name in header if header.count(name) > 1}
    if "" in header or doubles:
        raise InvalidRequestError(
            f"{place}: a header with a name of its own for every column is wanted, found "
            f"{'an empty name' if '' in header else listed(doubles) + ' twice'}; possible: rename the column"
        )
    if len(header) == 1 and delimiter == "," and (";" in header[0] or "\t" in header[0]):
        raise InvalidRequestError(
            f"{place}: commas between the columns are wanted, found {shown(header[0])}; possible: save with commas, "
            "or tabs as .tsv"
        )
    return header


def _layout(fields: RecordFields) -> str:
    if fields.inputs:
        return "{" + ", ".join(f"{name}: ..." for name in (*fields.inputs, *fields.outputs)) + "}"
    return "{inputs: {...}, expected: {...}}"


class _RowReader:
    """Turns the records of one source into examples."""

    def __init__(self, fields: RecordFields, *, blank_is_missing: bool = False) -> None:
        self._fields = fields
        self._blank_is_missing = blank_is_missing

    def read(self, rows: Sequence[tuple[str, dict[str, Json]]], where: str) -> Reading:
        if not rows:
            raise InvalidRequestError(
                f"{where}: at least one example is wanted, found none; possible: {_layout(self._fields)}"
            )
        examples = tuple(self._example(row, place) for place, row in rows)
        if self._fields.outputs and not any(example.expected for example in examples):
            raise InvalidRequestError(
                f"{where}: what should come out is wanted ({', '.join(self._fields.outputs)}), found in no example; "
                f"the first has: {listed(rows[0][1])}; possible: rename a field, or name the outputs"
            )
        return Reading(examples=examples, splits=self._splits(rows))

    def _example(self, row: dict[str, Json], place: str) -> Example:
        if self._is_nested(row):
            return self._nested(row, place)
        fields = self._fields
        missing = [name for name in fields.inputs if row.get(name) is None]
        if missing or not fields.inputs:
            hint = closest(missing[0], row) if missing else ""
            wanted = ", ".join(missing) or "inputs, expected"
            raise InvalidRequestError(
                f"{place}: the field {wanted} is wanted, found {listed(row)}{hint}; possible: {_layout(fields)}"
            )
        cluster = self._cluster(row, place)
        inputs = {name: self._converted(name, row[name], place) for name in fields.inputs}
        expected = {
            name: self._converted(name, row[name], place)
            for name in fields.outputs
            if not self._is_missing(row.get(name))
        }
        used = {*fields.inputs, *fields.outputs, fields.cluster, fields.split}
        return Example(
            id=example_id(inputs, expected),
            inputs=inputs,
            expected=expected,
            cluster=cluster,
            metadata={name: value for name, value in row.items() if name not in used},
        )

    def _is_nested(self, row: dict[str, Json]) -> bool:
        return (
            isinstance(row.get("inputs"), dict)
            and isinstance(row.get("expected", {}), dict)
            and "inputs" not in self._fields.inputs
            and set(row) <= {*_NESTED, self._fields.cluster, self._fields.split}
        )

    def _nested(self, row: dict[str, Json], place: str) -> Example:
        inputs, expected, metadata = (_part(row, name, place) for name in ("inputs", "expected", "metadata"))
        missing = [name for name in self._fields.inputs if inputs.get(name) is None]
        if missing or not inputs:
            raise InvalidRequestError(
                f"{place}: the input {', '.join(missing) or 'fields'} is wanted, found {listed(inputs)}; possible: "
                "{inputs: {...}, expected: {...}}"
            )
        inputs = {name: self._converted(name, value, place) for name, value in inputs.items()}
        expected = {name: self._converted(name, value, place) for name, value in expected.items() if value is not None}
        return Example(
            id=example_id(inputs, expected),
            inputs=inputs,
            expected=expected,
            cluster=self._cluster(row, place),
            metadata=metadata,
        )

    def _cluster(self, row: dict[str, Json], place: str) -> str | None:
        name = self._fields.cluster if self._fields.cluster is not None else "cluster"
        if self._fields.cluster is None and not self._is_nested(row):
            return None
        value = row.get(name)
        if value is None and self._fields.cluster is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise InvalidRequestError(
                f"{place}: the cluster in {name} is wanted as text or a whole number, found {shown(value)}; possible: "
                "a name every example of one conversation, document or customer shares"
            )
        return str(value)

    def _is_missing(self, value: Json) -> bool:
        """An empty cell is a missing label, for CSV has no null; in JSON an empty text is a label."""
        return value is None or (self._blank_is_missing and value == "")

    def _converted(self, name: str, value: Json, place: str) -> Json:
        wanted = self._fields.types.get(name)
        if wanted is None or wanted.accepts(value):
            return value
        if wanted.kind is TypeKind.STRING and isinstance(value, bool | int | float):
            return canonical_json(value)
        if isinstance(value, str):
            read = _literal(value)
            if wanted.accepts(read):
                return read
        raise InvalidRequestError(
            f"{place}: {name} is wanted as {wanted}, found {type(value).__name__} {shown(value)}; possible: a value "
            "of that type, or another type in the signature"
        )

    def _splits(self, rows: Sequence[tuple[str, dict[str, Json]]]) -> tuple[Split, ...] | None:
        name = self._fields.split
        if name in self._fields.inputs + self._fields.outputs or not any(row.get(name) for _, row in rows):
            return None
        words = {split.value: split for split in Split} | {"validation": Split.VAL, "dev": Split.VAL}
        found: list[Split] = []
        for place, row in rows:
            word = row.get(name)
            if not isinstance(word, str) or word.lower() not in words:
                raise InvalidRequestError(
                    f"{place}: {name} is wanted in every example once one has it, found {shown(word)}; possible: "
                    f"{', '.join(words)}, or no {name} anywhere"
                )
            found.append(words[word.lower()])
        return tuple(found)


def _part(row: dict[str, Json], name: str, place: str) -> dict[str, Json]:
    value = row.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(
            f"{place}: {name} is wanted as a mapping, found {type(value).__name__} {shown(value)}; possible: {{...}}"
        )
    return value


def _literal(text: str) -> Json:
    """Return the JSON value a cell spells; the text itself when it spells none."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
