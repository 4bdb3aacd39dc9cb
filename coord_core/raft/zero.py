"""What 0 means in this package: names for the absence of a node, an index, a term."""

from typing import Final

from coord_core.types import LogIndex, NodeId, Term

#: No node: no vote, no known leader, nobody to hand over to.
NOBODY: Final = NodeId(0)
#: Before the first entry.
START: Final = LogIndex(0)
#: Before the first election; also the term of what is not known.
NO_TERM: Final = Term(0)
