"""The names that every room shares.

Identifiers are plain integers at run time (they travel and are compared in hot loops) and distinct types to the type checker, so
that a term is never passed where an index is meant.  All of them stay below 2**53, so that JSON and JavaScript can hold them.
"""

from typing import NewType

#: Raft term (Raft, section 5.1).  Zero before the first election.
Term = NewType("Term", int)

#: Position in the replicated log, from 1.  Also used as revision, fencing token and epoch: it never repeats and only rises.
LogIndex = NewType("LogIndex", int)

#: A node of the cluster: a server process and its data directory.  Never reused.
NodeId = NewType("NodeId", int)

#: The log index of the entry that opened the session.
SessionId = NewType("SessionId", int)

#: The log index of the entry that opened the attachment; a session's first attachment has the session's own number.
AttachmentId = NewType("AttachmentId", int)

#: The log index of the entry that subscribed.
SubscriptionId = NewType("SubscriptionId", int)

#: The log index at which a candidate entered an election; also the number of its subscription to it.
CandidateId = NewType("CandidateId", int)

#: The log index at which a candidate was elected: unique and strictly rising over the election's whole life.
Epoch = NewType("Epoch", int)

#: The log index at which a member joined its group; also the number of its subscription to it.
MemberId = NewType("MemberId", int)

#: The log index at which a topic was made: one that is deleted and made anew has another.
TopicNumber = NewType("TopicNumber", int)

#: The log index at which work was submitted to a member of a group.
WorkId = NewType("WorkId", int)

#: Numbers the commands of one attachment, from 1.
RequestNumber = NewType("RequestNumber", int)

#: The log index at which a lock was granted: strictly rising over a lock's whole life, never reused.
FencingToken = NewType("FencingToken", int)
