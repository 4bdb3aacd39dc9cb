"""Runs `quorum/` scenarios: what a majority, or two, have committed and decided."""

from coord_core.raft.quorum import EVERYTHING, Outcome, joint_index, joint_outcome
from coord_core.types import NodeId
from tests.conformance.datadriven import Directive

_OUTCOMES = {Outcome.WON: "VoteWon", Outcome.LOST: "VoteLost", Outcome.PENDING: "VotePending"}


class Counting:
    """Answers the directives of one file."""

    def answer(self, directive: Directive) -> list[str]:
        voters = _nodes(directive, "cfg")
        outgoing = () if directive.one("cfgj") == "zero" else _nodes(directive, "cfgj")
        everybody = list(dict.fromkeys((*voters, *outgoing)))
        if directive.command == "vote":
            answers = zip(everybody, directive.options.get("votes", []), strict=False)
            votes = {node: text == "y" for node, text in answers if text != "_"}
            return [_OUTCOMES[joint_outcome(voters, outgoing, votes)]]
        if directive.command == "committed":
            reached = zip(everybody, directive.options.get("idx", []), strict=False)
            indexes = {node: int(text) for node, text in reached if text != "_"}
            return _describe(sorted(everybody), indexes, joint_index(voters, outgoing, indexes))
        raise NotImplementedError(directive.command)


def _nodes(directive: Directive, key: str) -> tuple[NodeId, ...]:
    return tuple(NodeId(int(text)) for text in directive.options.get(key, []))


def _describe(nodes: list[NodeId], indexes: dict[NodeId, int], committed: int) -> list[str]:
    result = "∞" if committed == EVERYTHING else str(committed)
    if not nodes:
        return [f"<empty majority quorum>{result}"]
    width = len(nodes)
    # A bar shows how many nodes are below this one.
    below = {node: sum(indexes.get(other, 0) < indexes.get(node, 0) for other in nodes) for node in nodes}
    lines = [" " * width + "    idx"]
    for node in nodes:
        bar = "x" * below[node] + ">" if node in indexes else "?"
        lines.append(f"{bar.ljust(width + 1)} {indexes.get(node, 0):5d}    (id={node})")
    return [*lines, result]
