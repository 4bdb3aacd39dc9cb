"""Leader elections: candidates in order of arrival, the first leads.

An *epoch* is the log index at which a candidate was elected: unique and rising, so it serves as a fencing token.
"""

import msgspec

from coord_core.protocol.base import AnswerStruct, OperationStruct, Owner, QueryStruct, ResultStruct
from coord_core.types import AttachmentId, CandidateId, Epoch, SessionId


class Candidate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Somebody who leads, or would."""

    candidate: CandidateId
    session: SessionId
    attachment: AttachmentId
    owner: Owner
    #: 0: it does not lead.
    epoch: Epoch
    #: Milliseconds of cluster time since it was elected, or began to wait.
    since_ms: int


class ElectionEnter(OperationStruct, frozen=True, tag=12):
    """Become a candidate, and subscribe to the election.  Answers `Entered`: from then on it can be elected."""

    path: str
    owner: Owner
    #: Of a detached session: take a lower attempt's place at once, though that may still believe that it leads.
    fences: bool = True


class ElectionResign(OperationStruct, frozen=True, tag=13):
    """Leave the election, as its leader or as one who waits; the next candidate leads from the same entry on.

    Answers `Done`, also where the candidate is gone already; `NotHolder` where it is another attachment's.
    """

    path: str
    candidate: CandidateId


class ElectionTransfer(OperationStruct, frozen=True, tag=14):
    """Let another candidate lead; the leader goes to the end of the queue.

    Answers `Done`, or `NotHolder` where the election is not led under `epoch`, `InvalidRequest` where there is no such candidate.
    """

    path: str
    epoch: Epoch
    #: 0: whoever is next.
    to: CandidateId


class Entered(ResultStruct, frozen=True, tag=11):
    candidate: CandidateId
    #: 0: somebody else leads.
    epoch: Epoch


class LeaderElected(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    leader: Candidate


class LeaderGone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Nobody leads any more, and there is no candidate."""

    #: Of the last leader.
    epoch: Epoch


class ElectionInfo(QueryStruct, frozen=True, tag=10):
    """Who leads and who would.  Answers `ElectionState`; at most `candidates_max` who wait are named."""

    path: str
    candidates_max: int = 100


class ElectionState(AnswerStruct, frozen=True, tag=110):
    leader: Candidate | None
    #: Those who wait, the next one first.
    candidates: tuple[Candidate, ...]
    candidates_total: int
