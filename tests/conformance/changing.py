"""Runs `confchange/` scenarios: what a membership change makes of a configuration, and of what is known about its nodes."""

import random

from coord_core.raft import membership
from coord_core.raft.config import RaftConfig
from coord_core.raft.membership import MembershipStep, StepKind
from coord_core.raft.messages import Configuration, Entry, HardState, SnapshotMetadata
from coord_core.raft.node import RaftNode
from coord_core.raft.refusals import MembershipRefused
from coord_core.types import LogIndex, NodeId, Term
from tests.conformance.datadriven import Directive, number
from tests.conformance.describe import configuration_text, progress_text

_KINDS = {"v": StepKind.ADD_VOTER, "l": StepKind.ADD_LEARNER, "r": StepKind.REMOVE, "u": StepKind.UPDATE}


class UnknownStep(Exception):
    """What is to be done to a node is none of the things that can be."""


def steps(text: str) -> tuple[MembershipStep, ...]:
    """Read `v1 l2 r3 u4`."""
    return tuple(map(_step, text.split()))


def _step(word: str) -> MembershipStep:
    if len(word) < 2:
        raise UnknownStep(f"unknown token {word}")
    if word[0] not in _KINDS:
        raise UnknownStep(f"unknown input: {word}")
    return MembershipStep(_KINDS[word[0]], NodeId(number(word[1:])))


class Changing:
    """Answers the directives of one file.  The log grows by one entry with each, as scenarios expect."""

    def __init__(self) -> None:
        nowhere = SnapshotMetadata(LogIndex(0), Term(0), Configuration(voters=()))
        node = RaftNode(RaftConfig(NodeId(99)), hard_state=HardState(), snapshot=nowhere, entries=(), rng=random.Random(0))
        self._state = node._state

    def answer(self, directive: Directive) -> list[str]:
        try:
            changes = steps(directive.input)
            configuration = self._changed(directive, changes)
        except (MembershipRefused, UnknownStep) as refused:
            return [str(refused)]
        else:
            membership.forget_removed(self._state, changes, configuration)
            membership.switch(self._state, configuration)
            return [configuration_text(configuration), *map(progress_text, self._state.progress.items())]
        finally:
            log = self._state.log
            log.append([Entry(LogIndex(log.last_index + 1), Term(1), 0, b"")])

    def _changed(self, directive: Directive, changes: tuple[MembershipStep, ...]) -> Configuration:
        now = self._state.configuration
        if directive.command == "simple":
            return membership.simple(now, changes)
        if directive.command == "enter-joint":
            return membership.enter_joint(now, changes, auto_leave=directive.flag("autoleave"))
        if directive.command == "leave-joint":
            if changes:
                raise UnknownStep("this command takes no input")
            return membership.leave_joint(now)
        raise NotImplementedError(f"the command {directive.command}")
