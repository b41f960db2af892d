"""The datasets that the service keeps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dspy_optimization.sdk.agent_source import AgentSource, named_agent
from dspy_optimization.sdk.catalog import Dataset, DatasetExample, DatasetReport
from dspy_optimization.sdk.pages import pages
from dspy_optimization.sdk.request import AgentOrTarget, Examples, ExamplesSource, Record, dataset_json, target_json
from dspy_optimization.sdk.transport import Transport, segment


class Datasets:
    """`client.datasets`: iterating it yields all of them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __iter__(self) -> Iterator[Dataset]:
        """Yield all datasets."""
        return pages(self._transport, Dataset, "/datasets")

    def create(
        self, name: str, examples: Examples | Sequence[Record] | Path | str, *, agent: AgentSource | None = None
    ) -> Dataset:
        """Return a dataset that is kept from now on; the same examples again are the same dataset.

        Args:
            name: what people call it.
            examples: `Examples` say which fields are inputs and how they are split.
            agent: says by its signature which fields are inputs, where the examples do not.
        Raises:
            InvalidRequestError: an example is wrong, or two splits share one; names it.
        """
        given = examples if isinstance(examples, Examples) else Examples(items=examples)
        body: dict[str, object] = {**given.to_json(), "name": name}
        if agent is not None:
            known = named_agent(agent)
            body["agent"] = known.name if known.config is None else known.config
        return self._transport.post_as(Dataset, "/datasets", body)

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset with its sizes. Raises `NotFoundError`."""
        return self._transport.get_as(Dataset, f"/datasets/{segment(dataset_id)}")

    def examples(self, dataset_id: str, split: str = "train") -> Iterator[DatasetExample]:
        """Yield the examples of train or val; test is sealed."""
        return pages(self._transport, DatasetExample, f"/datasets/{segment(dataset_id)}/examples", {"split": split})

    def check(self, examples: ExamplesSource, agent: AgentOrTarget) -> DatasetReport:
        """Return what these examples can prove of this agent; nothing is kept."""
        body = {"dataset": dataset_json(examples), "target": target_json(agent)}
        return self._transport.post_as(DatasetReport, "/datasets/check", body)
