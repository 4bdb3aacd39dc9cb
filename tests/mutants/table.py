"""The bugs that are put back in: where each was seen, what is changed, and what must notice.

A mutant is a few replacements in the sources.  Each old text must stand in its file exactly once (`test_table` holds that), so that
a mutant whose place has moved is an error and not a mutant of nothing.  Every catcher must fail on it, and for a reason of its
own: one that fails because the mutant is no running program has caught nothing (`catching`).

The numbers are those of `tests/raft/test_known_bugs.py`; 21 and 22 are the two more that concern snapshots, 23 to 25 those of what
is told: gaps in it, announcements that are over too early or too late, elections.  A number may have several mutants, where a bug
has several faces.
"""

from dataclasses import dataclass

ANNOUNCEMENTS = "coord_core/replica/announcements.py"
ADMISSION = "coord_core/server/admission.py"
ELECTION = "coord_core/raft/election.py"
ELECTIONS = "coord_core/machine/elections.py"
GROUPS = "coord_core/machine/groups.py"
HANDSHAKE = "coord_core/server/handshake.py"
JOINING = "coord_core/server/joining.py"
LEADING = "coord_core/replica/leading.py"
LOG = "coord_core/raft/log.py"
MEMBERSHIP = "coord_core/raft/membership.py"
OUTBOX = "coord_core/raft/outbox.py"
PIPELINE = "coord_core/raft/pipeline.py"
READS = "coord_core/raft/reads.py"
REPLICA = "coord_core/replica/replica.py"
TELLING = "coord_core/replica/telling.py"
REPLICATION = "coord_core/raft/replication.py"
ROLES = "coord_core/raft/roles.py"
STREAMS = "coord_core/machine/streams.py"
SUBSCRIPTIONS = "coord_core/client/subscriptions.py"
WATCHES = "coord_core/replica/watches.py"

KNOWN = "tests/raft/test_known_bugs.py::"

#: Few ranges, each the worth of several bugs: without a bug all of a range must pass.
IN_CRASHES = "sim crashes 1..20"
IN_DIVIDED = "sim divided 1..30"
IN_ELECTIONS = "sim elections 1..60"
IN_MEMBERSHIP = "sim membership 1..40"
IN_LATER_MEMBERSHIP = "sim membership 81..120"
IN_SNAPSHOTS = "sim snapshots 1..30"
IN_STREAMS = "sim streams 1..10"


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug, put back in one way."""

    bug: int
    name: str
    #: Where it was seen; empty where it is only easily made.
    seen: str
    edits: tuple[Edit, ...]
    #: Pytest node ids, or `sim [DRILL] FIRST..LAST`: seeds of the simulator, one of which must fail.
    catchers: tuple[str, ...]


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        1,
        "the term is written first, the vote in a write of its own",
        "hashicorp#661",
        (
            Edit(
                OUTBOX,
                "    hard_state = state.hard_state()\n",
                "    hard_state = state.hard_state()\n"
                "    if hard_state.term != outbox.taken.term:\n"
                "        hard_state = HardState(hard_state.term, commit=hard_state.commit)\n",
            ),
        ),
        (KNOWN + "test_01_term_and_vote_are_written_together_and_before_the_vote_leaves", IN_ELECTIONS),
    ),
    Mutant(
        1,
        "a vote alone is not worth a write",
        "PySyncObj#84",
        (
            Edit(
                OUTBOX,
                "taken.term != state.term or taken.voted_for != state.voted_for:",
                "taken.term != state.term:",
            ),
        ),
        ("tests/raft/test_durability.py::test_vote_in_a_term_that_is_durable_already_waits_for_the_vote",),
    ),
    Mutant(
        2,
        "after a restart the term is that of the last entry",
        "PySyncObj#202",
        (
            Edit(
                "coord_core/raft/node.py",
                "        log = RaftLog(snapshot, entries, hard_state.commit",
                "        hard_state = HardState(entries[-1].term if entries else snapshot.term, NOBODY, hard_state.commit)\n"
                "        log = RaftLog(snapshot, entries, hard_state.commit",
            ),
        ),
        (KNOWN + "test_02_term_that_nobody_won_survives_a_restart_too", IN_CRASHES),
    ),
    Mutant(
        3,
        "who steps down has its vote back",
        "hazelcast#16643",
        (
            Edit(
                ROLES,
                "    _reset(state, term)\n    state.role = Role.FOLLOWER\n",
                "    _reset(state, term)\n"
                "    if state.role is not Role.FOLLOWER:\n"
                "        state.voted_for = NOBODY\n"
                "    state.role = Role.FOLLOWER\n",
            ),
        ),
        (KNOWN + "test_03_vote_is_kept_when_a_candidate_follows_the_leader_of_its_term", IN_ELECTIONS),
    ),
    Mutant(
        4,
        "an answer of a later term counts as a vote",
        "openraft#1220",
        (
            Edit(
                "coord_core/raft/dispatch.py",
                "    elif isinstance(message, VoteReply) and message.pre_vote and message.granted:\n",
                "    elif isinstance(message, VoteReply):\n",
            ),
            Edit(
                ELECTION,
                "state.votes.setdefault(message.sender, message.granted)",
                "state.votes.setdefault(message.sender, message.granted or message.term > state.term)",
            ),
        ),
        (KNOWN + "test_04_vote_of_a_later_term_is_not_counted_for_this_one",),
    ),
    Mutant(
        5,
        "the longer log wins, whatever its terms",
        "Raft, 5.4.1",
        (
            Edit(
                LOG,
                "(last_term, last_index) >= (self.last_term, self.last_index)",
                "(last_index, last_term) >= (self.last_index, self.last_term)",
            ),
        ),
        (KNOWN + "test_05_logs_are_compared_by_last_term_first", IN_DIVIDED),
    ),
    Mutant(
        6,
        "every Append cuts off what lies behind it",
        "Raft, figure 2",
        (
            Edit(
                REPLICATION,
                "    if known < len(entries):\n        log.replace(entries[known:] if known else entries)\n",
                "    if entries:\n        log.replace(entries)\n",
            ),
        ),
        (KNOWN + "test_06_delayed_shorter_append_does_not_cut_off_a_suffix_that_matches", IN_DIVIDED),
    ),
    Mutant(
        7,
        "a follower commits what the Append has not verified",
        "etcd-io/raft#139",
        (Edit(REPLICATION, "LogIndex(min(message.commit, last))", "LogIndex(min(message.commit, log.last_index))"),),
        (KNOWN + "test_07_follower_commits_nothing_that_the_leader_has_not_verified",),
    ),
    Mutant(
        7,
        "a heartbeat commits what the follower is not known to match",
        "etcd-io/raft#139",
        (Edit(REPLICATION, "known = LogIndex(min(progress.match, commit))", "known = commit"),),
        (KNOWN + "test_07_heartbeat_commits_nothing_that_the_follower_is_not_known_to_match", IN_DIVIDED),
    ),
    Mutant(
        8,
        "entries of earlier terms are committed by counting",
        "Raft, figure 8",
        (Edit(REPLICATION, " or state.log.term(index) != state.term:", ":"),),
        (KNOWN + "test_08_entry_of_an_earlier_term_is_not_committed_by_counting", IN_DIVIDED),
    ),
    Mutant(
        9,
        "an Append is filled up with later entries that still fit",
        "LogCabin#160",
        (
            Edit(
                REPLICATION,
                "        entries = log.slice(progress.next, high)\n",
                "        entries = log.slice(progress.next, high)\n"
                "        room = state.config.max_append_bytes - log.bytes_between(progress.next, high)\n"
                "        for entry in log.slice(LogIndex(high + 1), LogIndex(log.last_index + 1)):\n"
                "            if log.bytes_between(entry.index, entry.index + 1) <= room:\n"
                "                room -= log.bytes_between(entry.index, entry.index + 1)\n"
                "                entries += (entry,)\n",
            ),
        ),
        (
            KNOWN + "test_09_entries_split_by_size_leave_no_gap",
            "tests/raft/test_flow_control.py::test_append_is_limited_in_size_and_still_carries_at_least_one_entry",
            IN_DIVIDED,
        ),
    ),
    Mutant(
        9,
        "who needs compacted entries gets those that are left, as if nothing came before them",
        "openraft#1795",
        (
            Edit(
                REPLICATION,
                "    if prev_term is None:\n        return _send_snapshot(state, to, progress)\n",
                "    if prev_term is None:\n        prev_index = prev_term = 0\n        progress.next = log.first_index\n",
            ),
        ),
        ("tests/raft/test_snapshots.py::test_follower_that_needs_compacted_entries_is_offered_the_snapshot", IN_SNAPSHOTS),
    ),
    Mutant(
        10,
        "the log's end is cut in a transaction before the one that replaces it",
        "braft#119",
        (
            Edit(
                "coord_core/storage/writer.py",
                "        self._execute(sql.DELETE_ROWS_FROM, (first_index,))\n        if row is None:\n",
                "        self._execute(sql.DELETE_ROWS_FROM, (first_index,))\n"
                "        self._execute(sql.COMMIT)\n"
                "        self._execute(sql.BEGIN)\n"
                "        if row is None:\n",
            ),
        ),
        ("tests/storage/test_crash.py::test_a_crash_between_any_two_statements_leaves_the_old_log_or_the_new",),
    ),
    Mutant(
        11,
        "a follower acknowledges before its disk has the entries",
        "etcd#14370",
        (
            Edit(
                REPLICATION,
                "    outbox.send_after_persist(state, AppendReply(sender=state.node_id, to=to, term=state.term, index=index))\n",
                "    outbox.send(state, AppendReply(sender=state.node_id, to=to, term=state.term, index=index))\n",
            ),
        ),
        (KNOWN + "test_11_entry_is_acknowledged_after_the_disk_has_it", IN_CRASHES),
    ),
    Mutant(
        11,
        "a leader counts itself before its disk has the entries",
        "etcd#14370",
        (
            Edit(
                REPLICATION,
                "    outbox.acknowledge_own(state)\n    broadcast_append(state)\n",
                "    own = state.progress.get(state.node_id)\n"
                "    if own is not None and own.accepted(state.log.last_index):\n"
                "        maybe_commit(state)\n"
                "    broadcast_append(state)\n",
            ),
        ),
        ("tests/raft/test_durability.py::test_leader_counts_itself_only_when_its_own_disk_has_the_entry", IN_CRASHES),
    ),
    Mutant(
        12,
        "an acknowledged write counts where index and term are the same again",
        "etcd-io/raft, asynchronous storage writes",
        (
            Edit(
                OUTBOX,
                "    state.log.persisted()\n",
                "    if state.log.matches(ack.last_index, ack.last_term):\n"
                "        state.log.persisting = max(state.log.persisting, ack.last_index)\n"
                "        state.log.durable = state.log.persisting\n",
            ),
        ),
        (KNOWN + "test_12_acknowledgement_of_a_replaced_write_does_not_make_its_successor_durable",),
    ),
    Mutant(
        12,
        "an acknowledgement counts though its term is over",
        "etcd-io/raft, asynchronous storage writes",
        (Edit(PIPELINE, "    if ack.term == state.term:\n", "    if ack.last_index:\n"),),
        (
            "tests/raft/test_async_storage_writes.py::"
            "test_acknowledgement_of_a_past_term_is_passed_over_and_the_next_speaks_for_its_entries",
        ),
    ),
    Mutant(
        13,
        "a new leader changes the membership before its own entry is committed",
        "copycat#23",
        (
            Edit(
                MEMBERSHIP,
                "    if state.config.membership_waits_for_own_term and not state.own_term_committed:\n        raise",
                "    if False:\n        raise",
            ),
        ),
        (KNOWN + "test_13_new_leader_changes_no_membership_before_its_own_entry_is_committed",),
    ),
    Mutant(
        14,
        "a change is in force when it is proposed, and so in the snapshots",
        "canonical/raft#250",
        (
            Edit(
                MEMBERSHIP,
                "EntryKind.CONFIGURATION, encode(change))])\n",
                "EntryKind.CONFIGURATION, encode(change))])\n    switch(state, changed(state.configuration, change))\n",
            ),
        ),
        (KNOWN + "test_14_uncommitted_change_is_in_no_snapshot_and_in_force_nowhere", IN_MEMBERSHIP),
    ),
    Mutant(
        14,
        "a change that is cut off with its suffix is not rolled back",
        "canonical/raft#250",
        (Edit(LOG, "        del self._configurations[bisect_left(self._configurations, index) :]\n", ""),),
        ("tests/raft/test_log.py::test_configuration_entries_are_forgotten_with_their_suffix", IN_MEMBERSHIP),
    ),
    Mutant(
        15,
        "who restarts in a joint configuration counts by its new half alone",
        "dissertation, 4.3",
        (
            Edit(
                MEMBERSHIP,
                "    state.configuration = configuration\n    state.progress = {}\n",
                "    state.configuration = msgspec.structs.replace(configuration, outgoing=())\n    state.progress = {}\n",
            ),
        ),
        (KNOWN + "test_15_joint_configuration_of_a_snapshot_counts_jointly_after_a_restart", IN_LATER_MEMBERSHIP),
    ),
    Mutant(
        15,
        "reads are confirmed by the new half alone",
        "dissertation, 6.4",
        (
            Edit(
                READS,
                "joint_index(configuration.voters, configuration.outgoing, self.answered)",
                "joint_index(configuration.voters, (), self.answered)",
            ),
        ),
        ("tests/raft/test_reads.py::test_reads_in_a_joint_configuration_need_both_majorities",),
    ),
    Mutant(
        16,
        "a founder with a wiped disk is formed again under its old id",
        "openraft#2002",
        (
            Edit(
                ADMISSION,
                "            if member == caller.as_member(member.node_id):\n",
                "            if member.name == caller.name:\n",
            ),
            Edit(
                JOINING,
                "bootstrap.identity.name != own.name or bootstrap.identity.incarnation != own.incarnation:",
                "bootstrap.identity.name != own.name:",
            ),
        ),
        ("tests/server/test_forming.py::test_a_founder_with_a_wiped_disk_is_refused_and_stops",),
    ),
    Mutant(
        16,
        "a node of another life is heard under its old id",
        "etcd#20269",
        (Edit(HANDSHAKE, "member.incarnation != peer.incarnation or member.name != peer.name", "member.name != peer.name"),),
        ("tests/server/test_peers.py::test_only_a_member_in_its_present_life_is_heard",),
    ),
    Mutant(
        17,
        "nobody of an older term is told the newer",
        "openraft#1796",
        (
            Edit(ELECTION, "        if state.config.check_quorum or state.config.pre_vote:\n", "        if False:\n"),
            Edit(ELECTION, "    elif isinstance(message, VoteRequest) and message.pre_vote:\n", "    elif False:\n"),
        ),
        (KNOWN + "test_17_node_with_a_later_term_and_the_shorter_log_locks_nobody_out", IN_ELECTIONS),
    ),
    Mutant(
        17,
        "a leader of an older term is not told the newer",
        "etcd#8501",
        (Edit(ELECTION, "        if state.config.check_quorum or state.config.pre_vote:\n", "        if False:\n"),),
        ("tests/raft/test_lease.py::test_old_leader_is_told_the_newer_term",),
    ),
    Mutant(
        17,
        "a pre-candidate of an older term is not told the newer",
        "etcd#8243",
        (Edit(ELECTION, "    elif isinstance(message, VoteRequest) and message.pre_vote:\n", "    elif False:\n"),),
        ("tests/raft/test_lease.py::test_old_pre_candidate_is_told_the_newer_term",),
    ),
    Mutant(
        18,
        "followers vote although they hear a leader",
        "Omni-Paxos, 2023",
        (
            Edit(
                "coord_core/raft/dispatch.py",
                "        if not message.transfer and election.in_lease(state):\n            return False\n",
                "",
            ),
        ),
        (KNOWN + "test_18_bridge_does_not_carry_the_leadership_to_and_fro",),
    ),
    Mutant(
        19,
        "a new leader reads before an entry of its own is committed",
        "dissertation, 6.4",
        (Edit(READS, "    if not reads.waiting or not state.own_term_committed:\n", "    if not reads.waiting:\n"),),
        (KNOWN + "test_19_new_leader_does_not_read_before_it_knows_what_is_committed",),
    ),
    Mutant(
        19,
        "a leader reads by its lease",
        "etcd#7331",
        (
            Edit(
                READS,
                "    reads.answer(state.node_id, number, state.configuration)\n",
                "    if state.election_elapsed < state.config.election_timeout_ticks:\n"
                "        for peer in state.progress:\n"
                "            reads.answer(peer, number, state.configuration)\n",
            ),
        ),
        (KNOWN + "test_19_leader_that_has_handed_over_does_not_read_by_its_lease",),
    ),
    Mutant(
        20,
        "after a restart the applied entries are handed out once more",
        "etcd#13766",
        (Edit(LOG, "        self.handed = self.applied = applied\n", "        self.handed = self.applied = snapshot.index\n"),),
        ("tests/raft/test_membership.py::test_restart_with_an_applied_index_replays_the_changes_before_it",),
    ),
    Mutant(
        20,
        "entries behind a snapshot are handed out before it is installed",
        "",
        (Edit(LOG, "self.handed >= self.commit or self.installing is not None:", "self.handed >= self.commit:"),),
        ("tests/raft/test_snapshots.py::test_entries_that_arrive_behind_a_snapshot_are_written_with_it",),
    ),
    Mutant(
        20,
        "an older snapshot takes the log back",
        "etcd#15247",
        (Edit(MEMBERSHIP, "    if metadata.index > log.commit:\n", "    if metadata.index != log.commit:\n"),),
        ("tests/raft/test_snapshots.py::test_snapshot_of_what_is_compacted_here_is_ignored",),
    ),
    Mutant(
        20,
        "what a snapshot covers is handed out after it",
        "",
        (
            Edit(
                LOG,
                "        self.commit = self.handed = self.persisting = self.durable = self.last_index = snapshot.index\n",
                "        self.commit = self.persisting = self.durable = self.last_index = snapshot.index\n",
            ),
        ),
        (KNOWN + "test_20_entries_around_a_snapshot_are_handed_out_once", IN_SNAPSHOTS),
    ),
    Mutant(
        20,
        "a new leader lets leases run out that were renewed elsewhere",
        "copycat#14",
        (
            Edit(
                LEADING,
                "            self._begin(view, lease_ms)\n\n    def stamp_ms",
                "            self._leases.grant(view.session, 0, lease_ms)\n\n    def stamp_ms",
            ),
        ),
        ("tests/replica/test_turns.py::test_a_new_leader_gives_every_session_a_full_ttl", IN_CRASHES),
    ),
    Mutant(
        21,
        "the hard state is written before the snapshot that it rests on",
        "",
        (
            Edit(
                OUTBOX,
                "        snapshot=log.installing,\n",
                "        snapshot=log.installing if hard_state == outbox.taken else None,\n",
            ),
        ),
        (
            "tests/raft/test_snapshots.py::test_crash_after_the_first_write_of_an_installation_leaves_the_whole_snapshot",
            IN_SNAPSHOTS,
        ),
    ),
    Mutant(
        21,
        "a follower that lost what it had of a snapshot is never offered it again",
        "LogCabin#174",
        (
            Edit(
                "coord_core/raft/node.py",
                "        if not ok:\n            progress.pending_snapshot = START\n",
                "        if not ok:\n            return\n",
            ),
        ),
        ("tests/raft/test_snapshots.py::test_failed_transfer_is_tried_again_after_a_heartbeat",),
    ),
    Mutant(
        22,
        "the term becomes that of the snapshot",
        "jgroups-raft#23",
        (
            Edit(
                MEMBERSHIP,
                "            log.install(metadata)\n",
                "            log.install(metadata)\n            state.term = metadata.term\n",
            ),
        ),
        ("tests/raft/test_snapshots.py::test_term_does_not_come_from_a_snapshot", IN_SNAPSHOTS),
    ),
    Mutant(
        23,
        "who comes back is told what happens from then on",
        "etcd#18089",
        (
            Edit(
                WATCHES,
                "        follower = Follower(number, connection, message.attachment, subscription.stream.name, message.after)\n",
                "        after = subscription.stream.last if message.after else message.after\n"
                "        follower = Follower(number, connection, message.attachment, subscription.stream.name, after)\n",
            ),
        ),
        ("tests/replica/test_watches.py::test_follower_that_says_where_it_stands_gets_what_follows",),
    ),
    Mutant(
        23,
        "the same, and the client does not notice the gap",
        "etcd#18089",
        (
            Edit(
                WATCHES,
                "        follower = Follower(number, connection, message.attachment, subscription.stream.name, message.after)\n",
                "        after = subscription.stream.last if message.after else message.after\n"
                "        follower = Follower(number, connection, message.attachment, subscription.stream.name, after)\n",
            ),
            Edit(SUBSCRIPTIONS, "            if record.previous > followed.cursor:\n", "            if record.previous < 0:\n"),
        ),
        (IN_STREAMS,),
    ),
    Mutant(
        23,
        "who fell behind what is kept is told the rest of it",
        "etcd#18089",
        (Edit(STREAMS, "        if after < stream.floor:\n", "        if not after:\n"),),
        ("tests/replica/test_watches.py::test_follower_that_fell_behind_the_ring_is_told_the_state",),
    ),
    Mutant(
        23,
        "who has read all that was pushed out is told the state again",
        "",
        (Edit(STREAMS, "        if after < stream.floor:\n", "        if after <= stream.floor:\n"),),
        ("tests/machine/test_streams.py::test_full_ring_pushes_out_the_oldest_whosever_they_are", IN_STREAMS),
    ),
    Mutant(
        23,
        "an older connection's late word takes the records from the newer",
        "",
        (
            Edit(
                WATCHES,
                "            if former.connection > connection and former.attachment == message.attachment:\n",
                "            if former.connection < 0:\n",
            ),
        ),
        ("tests/replica/test_watches.py::test_what_an_older_connection_says_late_changes_nothing",),
    ),
    Mutant(
        23,
        "a client follows on its first connection only",
        "",
        (
            Edit(
                SUBSCRIPTIONS,
                "        for followed in self._followed.values():\n            followed.is_said = False\n",
                "",
            ),
        ),
        (IN_STREAMS,),
    ),
    Mutant(
        23,
        "a session is lost, and whoever follows in it waits on",
        "",
        (Edit("coord_core/client/session.py", "        self._subscriptions.session_lost(error)\n", ""),),
        (IN_STREAMS,),
    ),
    Mutant(
        23,
        "what an entry does pushes out what it did before",
        "",
        (
            Edit(
                STREAMS,
                "and ring[0].revision < index:\n",
                "and self._count > 1 and ring[0].revision <= index:\n",
            ),
        ),
        ("tests/machine/test_streams.py::test_records_of_the_entry_at_hand_push_out_each_other_never",),
    ),
    Mutant(
        24,
        "any word of a member counts as its having been told",
        "",
        (Edit(ANNOUNCEMENTS, "                if wait.result.revision <= revision:\n", "                if revision:\n"),),
        (IN_STREAMS,),
    ),
    Mutant(
        24,
        "a new leader answers a join at once that is asked for again",
        "",
        (
            Edit(
                REPLICA,
                " and result.audience and type(command) is Call:\n",
                " and result.revision == entry.index:\n                assert isinstance(command, Call)\n",
            ),
        ),
        ("tests/replica/test_watches.py::test_join_is_never_complete_early_across_a_failover", IN_STREAMS),
    ),
    Mutant(
        24,
        "who joins is one of those who are waited for",
        "",
        (
            Edit(
                GROUPS,
                "        audience = self._streams.audience(name, attachment.session if operation.from_listener else None)\n"
                "        answer = self._streams.subscribe(name, attachment)\n",
                "        answer = self._streams.subscribe(name, attachment)\n"
                "        audience = self._streams.audience(name, attachment.session if operation.from_listener else None)\n",
            ),
        ),
        ("tests/machine/test_groups.py::test_join_names_those_who_were_subscribed_before_as_its_audience", IN_STREAMS),
    ),
    Mutant(
        24,
        "received counts as worked off after a reconnect",
        "",
        (
            Edit(
                SUBSCRIPTIONS,
                "Follow(attachment, subscription, followed.cursor, followed.acknowledged)",
                "Follow(attachment, subscription, followed.cursor, followed.cursor)",
            ),
        ),
        (IN_STREAMS,),
    ),
    Mutant(
        24,
        "what is acknowledged before a leader is ready is lost",
        "",
        (Edit(WATCHES, "        if asked is not None:\n", "        if asked is not None and not asked.after:\n"),),
        ("tests/replica/test_watches.py::test_what_is_acknowledged_right_after_following_counts",),
    ),
    Mutant(
        24,
        "a client that counts wrongly says that it was told what it was not",
        "",
        (
            Edit(
                WATCHES,
                "        self.acknowledged.append((message.subscription, min(message.revision, follower.cursor)))\n",
                "        self.acknowledged.append((message.subscription, message.revision))\n",
            ),
        ),
        ("tests/replica/test_watches.py::test_acknowledging_more_than_was_pushed_completes_nothing",),
    ),
    Mutant(
        24,
        "whoever is gone is waited for to the end",
        "",
        (Edit(TELLING, "            self.announcements.gone(applied.unsubscribed)\n", ""),),
        ("tests/replica/test_watches.py::test_join_ends_when_the_one_who_is_waited_for_has_gone", IN_STREAMS),
    ),
    Mutant(
        25,
        "of those who end together the leader goes first, and a dead candidate is elected",
        "curator#1211",
        (
            Edit(ELECTIONS, "        for leads in (False, True):\n", "        for leads in (True, False):\n"),
            Edit(
                ELECTIONS, '        assert runner.attachment.alive, "who waits leaves in the entry that ends its attachment"\n', ""
            ),
            Edit(ELECTIONS, '        assert runner.epoch < self._entry.index, "an entry elects once"\n', ""),
        ),
        ("tests/machine/test_elections.py::test_leader_that_ends_with_its_session_is_not_followed_by_another_of_it", IN_STREAMS),
    ),
    Mutant(
        25,
        "an epoch is the candidate's number, whenever it is elected",
        "",
        (
            Edit(ELECTIONS, "        runner.epoch = Epoch(self._entry.index)\n", "        runner.epoch = Epoch(runner.id)\n"),
            Edit(ELECTIONS, '        assert runner.epoch < self._entry.index, "an entry elects once"\n', ""),
        ),
        ("tests/machine/test_elections.py::test_next_candidate_leads_in_the_entry_that_ends_the_leader", IN_STREAMS),
    ),
    Mutant(
        25,
        "nobody is told that nobody leads any more",
        "",
        (Edit(ELECTIONS, "            self._streams.emit(_stream(runner.path), LeaderGone(runner.epoch))\n", ""),),
        ("tests/machine/test_elections.py::test_changes_of_the_leader_are_told", IN_STREAMS),
    ),
)
