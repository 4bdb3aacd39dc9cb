"""Runs `quorum/` scenarios: what a majority, or two, have committed and decided."""

from coord_core.raft.quorum import EVERYTHING, Outcome, joint_index, joint_outcome
from coord_core.types import NodeId
from tests.conformance.datadriven import Directive, Malformed, number

_OUTCOMES = {Outcome.WON: "VoteWon", Outcome.LOST: "VoteLost", Outcome.PENDING: "VotePending"}
_VOTES = {"y": 2, "n": 1, "_": 0}


class Counting:
    """Answers the directives of one file."""

    def answer(self, directive: Directive) -> list[str]:
        voters = _nodes(directive, "cfg")
        outgoing = () if directive.one("cfgj") == "zero" else _nodes(directive, "cfgj")
        everybody = list(dict.fromkeys((*voters, *outgoing)))
        if directive.command == "vote":
            votes = [_vote(text) for text in directive.values("votes")]
            if len(votes) != len(everybody):
                return [_mismatched(everybody, votes)]
            said = {node: vote == _VOTES["y"] for node, vote in zip(everybody, votes, strict=True) if vote}
            return [_OUTCOMES[joint_outcome(voters, outgoing, said)]]
        if directive.command == "committed":
            reached = [0 if text == "_" else number(text) for text in directive.values("idx")]
            if len(reached) != len(everybody):
                return [_mismatched(everybody, reached)]
            indexes = {node: index for node, index in zip(everybody, reached, strict=True) if index}
            return _describe(sorted(everybody), indexes, joint_index(voters, outgoing, indexes))
        raise NotImplementedError(f"the command {directive.command}")


def _nodes(directive: Directive, key: str) -> tuple[NodeId, ...]:
    return tuple(dict.fromkeys(NodeId(number(text)) for text in directive.values(key)))


def _vote(text: str) -> int:
    if text not in _VOTES:
        raise Malformed(f"unknown vote: {text}")
    return _VOTES[text]


def _mismatched(nodes: list[NodeId], given: list[int]) -> str:
    voters = " ".join(f"{node}:{{}}" for node in sorted(nodes))
    return f"error: mismatched input (explicit or _) for voters map[{voters}]: [{' '.join(map(str, given))}]"


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
