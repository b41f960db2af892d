"""The agents that the service knows."""

from collections.abc import Iterator

from dspy_optimization.errors import InvalidRequestError
from dspy_optimization.sdk.agent_source import AgentSource, named_agent
from dspy_optimization.sdk.catalog import AgentVersion
from dspy_optimization.sdk.evidence import Diff
from dspy_optimization.sdk.pages import pages
from dspy_optimization.sdk.transport import Transport, segment


class Agents:
    """`client.agents`: iterating it yields the newest version of each."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __iter__(self) -> Iterator[AgentVersion]:
        """Yield all agents."""
        return pages(self._transport, AgentVersion, "/agents")

    def register(self, agent: AgentSource) -> AgentVersion:
        """Return the version that the configuration now is. Raises `InvalidRequestError` when it cannot be built."""
        config = named_agent(agent).config
        if config is None:
            raise InvalidRequestError(
                f"agent: wanted: a configuration or the file of one; found: the name {agent!r}; possible: agent.yaml"
            )
        return self._transport.post_as(AgentVersion, "/agents", config)

    def versions(self, name: str) -> Iterator[AgentVersion]:
        """Yield the versions of an agent."""
        return pages(self._transport, AgentVersion, f"/agents/{segment(name)}/versions")

    def get(self, name: str, version: str = "latest") -> AgentVersion:
        """Return a version with its configuration. Raises `NotFoundError`."""
        return self._transport.get_as(AgentVersion, f"/agents/{segment(name)}/versions/{segment(version)}")

    def diff(self, name: str, before: str, after: str | None = None) -> Diff:
        """Return what differs between two versions; not given, `after` is the newest. Raises `NotFoundError`."""
        return self._transport.get_as(Diff, f"/agents/{segment(name)}/diff", {"from": before, "to": after})
