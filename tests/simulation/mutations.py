"""Bugs to put back in: each takes a pytest `MonkeyPatch` and breaks one thing, as a real implementation once did or easily could.

`test_mutations` demands that a seed of a small fixed range finds each, and says what of it is found.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from coord_core.client.calls import Calls
from coord_core.client.session import ClientSession
from coord_core.client.settings import SessionConfig
from coord_core.machine import Restoring, Snapshot, semaphores
from coord_core.machine.claims import Claim
from coord_core.machine.detached import Detached
from coord_core.machine.limiters import Limiter
from coord_core.machine.locks import Lock, LockRow, Locks
from coord_core.machine.semaphores import Semaphore, Semaphores
from coord_core.machine.sessions import Attachment, Session, Sessions, SessionView
from coord_core.machine.windows import RequestWindow, WindowRow
from coord_core.machine.works import Errands, Works
from coord_core.protocol.messages import Ask, KeepAlive, KeptAlive, Told
from coord_core.protocol.operations import LockAcquire
from coord_core.protocol.results import Done, Failed, Result
from coord_core.protocol.works import WorkCancel
from coord_core.raft import replication
from coord_core.raft.log import RaftLog
from coord_core.raft.messages import HardState
from coord_core.raft.quorum import joint_index
from coord_core.replica import Effects, Replica
from coord_core.replica.leading import Leading
from coord_core.replica.leases import LeaseClock, Leases
from coord_core.replica.snapshots import Snapshots
from coord_core.storage.api import Batch
from coord_core.storage.memory import MemoryStorage
from coord_core.testing.disk import SimulatedDisk
from coord_core.testing.node import Node
from coord_core.types import AttachmentId, LogIndex, MemberId, NodeId, RequestNumber

Mutation = Callable[[pytest.MonkeyPatch], None]


def vote_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    """hashicorp/raft#661, PySyncObj#84."""
    write = SimulatedDisk.write

    def forgetful(disk: SimulatedDisk, batch: Batch) -> None:
        hard_state = batch.hard_state
        if hard_state is not None:
            hard_state = HardState(hard_state.term, NodeId(0), hard_state.commit)
        write(disk, replace(batch, hard_state=hard_state))

    patch.setattr(SimulatedDisk, "write", forgetful)


def term_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    """PySyncObj#202."""
    write = SimulatedDisk.write

    def forgetful(disk: SimulatedDisk, batch: Batch) -> None:
        write(disk, replace(batch, hard_state=None))

    patch.setattr(SimulatedDisk, "write", forgetful)


def write_is_acknowledged_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """etcd#14370."""
    begin = Node._begin_write

    def hasty(node: Node, effects: Any) -> bool:
        crashed = begin(node, effects)
        if effects.persist is not None and not crashed:
            node.arrive(node.replica.persisted, effects.persist.ack)
        return crashed

    def late(node: Node, life: int, ack: Any) -> None:
        if life == node.life and node.up and node.disk.busy:
            node.disk.complete()

    patch.setattr(Node, "_begin_write", hasty)
    patch.setattr(Node, "_written", late)
    # The next write may be handed out while this one is on its way.
    start = SimulatedDisk.begin

    def queued(disk: SimulatedDisk, batch: Batch) -> int:
        if disk.busy:
            disk.complete()
        return start(disk, batch)

    patch.setattr(SimulatedDisk, "begin", queued)


def entries_of_earlier_terms_commit_by_counting(patch: pytest.MonkeyPatch) -> None:
    """Raft, figure 8."""

    def eager(state: Any) -> bool:
        matches = {peer: progress.match for peer, progress in state.progress.items()}
        index = LogIndex(joint_index(state.configuration.voters, state.configuration.outgoing, matches))
        return bool(index > state.log.commit and state.log.commit_to(index))

    patch.setattr(replication, "maybe_commit", eager)


def votes_go_to_any_log(patch: pytest.MonkeyPatch) -> None:
    """Raft, 5.4.1, left out."""
    patch.setattr(RaftLog, "is_up_to_date", lambda log, last_index, last_term: True)


def window_forgets_its_answers(patch: pytest.MonkeyPatch) -> None:
    """A command that is sent again is applied again."""

    def forget(window: RequestWindow, request: RequestNumber, answer: Any) -> None:
        if answer is None:
            record(window, request, answer)

    record = RequestWindow.record
    patch.setattr(RequestWindow, "record", forget)
    patch.setattr(RequestWindow, "settle", lambda window, request, answer: window.answers.pop(request, None))


def keep_alive_needs_no_quorum(patch: pytest.MonkeyPatch) -> None:
    """A deposed leader in a minority goes on to promise what its successor takes away."""
    request = Replica.request

    def promise(replica: Replica, connection: int, message: Any) -> None:
        view = replica.machine.session(message.session) if isinstance(message, KeepAlive) else None
        if view is None or replica._leading is None:
            request(replica, connection, message)
            return
        clock = replica._lease_clock
        replica._leading._leases.renew(view.session, clock._last_ms - clock._stalled_ms)
        replica._refusals.append((connection, KeptAlive(message.seq, view.ttl_ms)))

    patch.setattr(Replica, "request", promise)


def read_needs_no_quorum(patch: pytest.MonkeyPatch) -> None:
    """A stale read by a leader that does not know it was deposed (etcd#7331)."""
    request = Replica.request

    def answer(replica: Replica, connection: int, message: Any) -> None:
        if isinstance(message, Ask) and replica.status().ready:
            replica._refusals.append((connection, Told(message.seq, replica.machine.query(message.query))))
        else:
            request(replica, connection, message)

    patch.setattr(Replica, "request", answer)


def client_counts_its_lease_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    """The answer may have been on its way for long."""
    received = ClientSession.received

    def optimistic(session: ClientSession, message: Any, now_ms: int) -> None:
        if isinstance(message, KeptAlive) and session._probe is not None:
            session._probe.sent_ms = now_ms
        received(session, message, now_ms)

    patch.setattr(ClientSession, "received", optimistic)


def client_never_declares_its_session_lost(patch: pytest.MonkeyPatch) -> None:
    """kazoo#89, curator#1144: whoever is cut off believes for ever."""
    patch.setattr(SessionConfig, "margin_ms", lambda config, ttl_ms: -1_000_000)


def leases_run_while_the_leader_is_stopped(patch: pytest.MonkeyPatch) -> None:
    """What arrived meanwhile has not been read: the living are expired."""
    patch.setattr(LeaseClock, "advance", lambda clock, now_ms: now_ms)


def new_leader_grants_no_fresh_leases(patch: pytest.MonkeyPatch) -> None:
    """It counts from a time at which it heard nobody."""
    begin = Leading.__init__

    def stingy(leading: Leading, term: Any, machine: Any, reads: Any, now_ms: int, lease_ms: int) -> None:
        begin(leading, term, machine, reads, now_ms, lease_ms)
        leading._leases = Leases()
        for view in machine.sessions():
            leading._leases.grant(view.session, 0, lease_ms)

    patch.setattr(Leading, "__init__", stingy)


def cancel_leaves_the_grant(patch: pytest.MonkeyPatch) -> None:
    """atomix#500: the caller has given up, and holds the lock for ever."""
    withdraw = Locks.withdraw

    def careless(locks: Locks, attachment: Any, request: Any, answer: Any) -> bool:
        held = locks._held.get(attachment.id)
        if held is not None and request in held:
            return True
        return withdraw(locks, attachment, request, answer)

    patch.setattr(Locks, "withdraw", careless)


def expiry_frees_nothing(patch: pytest.MonkeyPatch) -> None:
    """atomix#64: a dead holder keeps its lock."""
    patch.setattr(Locks, "attachments_ended", lambda locks, ended, answer: None)


def last_waiter_goes_first(patch: pytest.MonkeyPatch) -> None:
    """No queue at all."""
    enqueue = Locks._enqueue

    def jump(locks: Locks, lock: Any, claim: Any, wait_ms: int | None) -> Any:
        refused = enqueue(locks, lock, claim, wait_ms)
        if refused is None:
            lock.waiters.move_to_end(claim, last=False)
        return refused

    patch.setattr(Locks, "_enqueue", jump)


def client_sends_again_under_a_new_number(patch: pytest.MonkeyPatch) -> None:
    """What makes a retry safe is its number."""
    lost = Calls.connection_lost

    def renumber(calls: Calls) -> None:
        lost(calls)
        again, calls._again = list(calls._again), type(calls._again)()
        for request in again:
            calls._ledger.unanswered.pop(request.number)
            calls._ledger.enter(request)
            calls._again.append(request)

    patch.setattr(Calls, "connection_lost", renumber)


def machines_differ(patch: pytest.MonkeyPatch) -> None:
    """State that depends on the process: here on how often it looked."""
    looks = iter(range(10**9))
    grant = Locks._grant

    def uneven(locks: Locks, claim: Any) -> Any:
        granted = grant(locks, claim)
        if next(looks) % 10 == 9:
            claim.since_ms += 1
        return granted

    patch.setattr(Locks, "_grant", uneven)


def snapshot_mixes_two_indexes(patch: pytest.MonkeyPatch) -> None:
    """What changes while the snapshot is written is written as it is later (etcd#13766 and its kind)."""
    patch.setattr(Snapshot, "before_change", lambda snapshot, path, resource: None)
    patch.setattr(Snapshot, "before_attachment", lambda snapshot, attachment: None)


def snapshot_has_no_cached_answers(patch: pytest.MonkeyPatch) -> None:
    """copycat#14: a restored node applies again what is sent again."""
    restored = RequestWindow.restored.__func__  # type: ignore[attr-defined]

    def forgetful(cls: Any, row: Any) -> Any:
        return restored(cls, WindowRow(row.low_water, row.ranges, [item for item in row.answers if item[1] is None]))

    patch.setattr(RequestWindow, "restored", classmethod(forgetful))


def snapshot_has_no_cluster_time(patch: pytest.MonkeyPatch) -> None:
    """copycat#134: timers of a restored node fire at other entries than everybody else's."""
    begin = Restoring._begin

    def timeless(restoring: Restoring, header: Any) -> None:
        begin(restoring, header)
        restoring._entry.time_ms = 0

    patch.setattr(Restoring, "_begin", timeless)


def snapshot_forgets_what_waits(patch: pytest.MonkeyPatch) -> None:
    """A waiter's place in the queue lives in the resource."""
    row = Locks.row

    def without_queue(locks: Locks, path: str, lock: Any) -> Any:
        found, size = row(locks, path, lock)
        return LockRow(found.path, found.holder, []), size

    patch.setattr(Locks, "row", without_queue)


def snapshot_is_installed_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """LogCabin#174: the log is replaced in one write, the snapshot published in none."""
    batch = Effects.batch

    def careless(effects: Effects) -> Batch | None:
        found = batch(effects)
        if found is None or found.publish is None:
            return found
        return replace(found, publish=None)

    patch.setattr(Effects, "batch", careless)


def entries_behind_a_snapshot_are_applied_again(patch: pytest.MonkeyPatch) -> None:
    """etcd#13766: a restarted node begins at the wrong entry."""
    begin = Replica.__init__

    def early(replica: Replica, config: Any, restored: Any, **more: Any) -> None:
        begin(replica, config, restored, **more)
        log = replica._raft._state.log
        if restored.snapshot is not None and log.first_index <= log.applied:
            log.handed = log.applied = LogIndex(log.applied - 1)

    patch.setattr(Replica, "__init__", early)


def term_is_taken_from_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """jgroups-raft#23."""
    write = SimulatedDisk.write

    def old_term(disk: SimulatedDisk, batch: Batch) -> None:
        if batch.publish is not None:
            term = batch.publish.info.metadata.term
            state = batch.hard_state or disk.hard_state
            batch = replace(batch, hard_state=HardState(term, NodeId(0), state.commit))
        write(disk, batch)

    patch.setattr(SimulatedDisk, "write", old_term)


def log_is_trimmed_beyond_the_snapshot(patch: pytest.MonkeyPatch) -> None:
    """What the snapshot does not cover is gone from everywhere."""
    publish = Snapshots._write_publish

    def greedy(snapshots: Snapshots, taking: Any) -> Batch:
        found = publish(snapshots, taking)
        assert found.publish is not None
        return replace(found, publish=replace(found.publish, log_index=LogIndex(found.publish.log_index + 1)))

    patch.setattr(Snapshots, "_write_publish", greedy)


def chunks_of_a_former_life_are_kept(patch: pytest.MonkeyPatch) -> None:
    """A crash in mid-stage, and the next snapshot grows out of the pieces."""
    load = MemoryStorage.load

    def keep(storage: MemoryStorage) -> Any:
        staged = dict(storage._staged)
        found = load(storage)
        storage._staged = staged
        return found

    patch.setattr(MemoryStorage, "load", keep)


def delay_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A lock goes on at once though its holder ended without a release and had asked for a delay."""

    def hasty(locks: Locks, lock: Lock, released: Claim, reason: str, duration_ms: int) -> None:
        locks._give_back(lock, released)

    patch.setattr(Locks, "_close", hasty)


def closed_lock_is_granted_to_who_asks(patch: pytest.MonkeyPatch) -> None:
    """Who waits, waits; who comes then gets it."""
    enqueue = Locks._enqueue

    def generous(locks: Locks, place: Any, claim: Claim, wait_ms: int | None) -> Any:
        refused = enqueue(locks, place, claim, wait_ms)
        if place.closed is not None and refused is None:
            locks._timers.cancel(place.closed.timer)
            place.closed.timer = None
            locks._open(claim.path, place)
        return refused

    patch.setattr(Locks, "_enqueue", generous)


def broken_lock_stays_held(patch: pytest.MonkeyPatch) -> None:
    """The operator is told that it was taken from its holder."""
    patch.setattr(Locks, "_take_away", lambda locks, path, lock: None)


def permits_are_counted_by_holders(patch: pytest.MonkeyPatch) -> None:
    """Whoever wants two gets them where one is left."""
    patch.setattr(semaphores, "_has_room", lambda semaphore, claim: semaphore.taken < semaphore.limit)


def few_permits_pass_many(patch: pytest.MonkeyPatch) -> None:
    """Who asks for what is there gets it, though another waits for more: the first starves."""
    acquire = Semaphores._acquire

    def unfair(these: Semaphores, attachment: Any, request: Any, operation: Any) -> Any:
        semaphore = these._names.find(operation.path, Semaphore)
        hidden = None
        if isinstance(semaphore, Semaphore) and semaphore.taken + operation.permits <= semaphore.limit:
            hidden, semaphore.waiters = semaphore.waiters, None
        answer = acquire(these, attachment, request, operation)
        if isinstance(semaphore, Semaphore) and hidden is not None:
            semaphore.waiters = hidden
        return answer

    patch.setattr(Semaphores, "_acquire", unfair)


def expiry_frees_no_permits(patch: pytest.MonkeyPatch) -> None:
    """atomix#64, of semaphores."""
    patch.setattr(Semaphores, "attachments_ended", lambda semaphores, ended, answer: None)


def bucket_fills_twice(patch: pytest.MonkeyPatch) -> None:
    """The time that has passed is counted again with every look."""

    def fill(limiter: Limiter, now_ms: int) -> None:
        limiter.level = min(limiter.burst * limiter.per_ms, limiter.level + (now_ms - limiter.as_of_ms) * limiter.permits)

    patch.setattr(Limiter, "fill", fill)


def snapshot_opens_closed_locks(patch: pytest.MonkeyPatch) -> None:
    """After a restore nobody knows of the delay any more."""
    row = Locks.row

    def open_row(locks: Locks, path: str, lock: Lock) -> Any:
        found, size = row(locks, path, lock)
        return LockRow(found.path, found.holder, found.waiters), size

    patch.setattr(Locks, "row", open_row)


def former_process_keeps_its_number(patch: pytest.MonkeyPatch) -> None:
    """Whoever had a detached session goes on beside whoever has it now."""
    renumber = Sessions.renumber

    def lenient(sessions: Sessions, session: Session, attachment: Attachment, number: AttachmentId) -> None:
        former = attachment.number
        renumber(sessions, session, attachment, number)
        session.attachments[former] = attachment

    patch.setattr(Sessions, "renumber", lenient)


def later_attempt_waits_for_nobody(patch: pytest.MonkeyPatch) -> None:
    """The lock is taken from an attempt that may still be at work."""
    take_up = Locks._take_up

    def hasty(locks: Locks, lock: Lock, claim: Claim, detached: Detached, operation: LockAcquire) -> Result | None:
        return take_up(locks, lock, claim, detached, structs.replace(operation, fences=True))

    patch.setattr(Locks, "_take_up", hasty)


def replaced_process_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The one that replaced it gives the lock back, and a stranger has it, while the first goes on within its lease."""
    patch.setattr(Detached, "replace", lambda detached, number, index, time_ms: None)


def handed_off_session_ends_with_its_lease(patch: pytest.MonkeyPatch) -> None:
    """Nobody renews it until somebody takes it up."""

    def begin(leading: Leading, view: SessionView, lease_ms: int) -> None:
        leading._leases.grant(view.session, view.ttl_ms, lease_ms)

    patch.setattr(Leading, "_begin", begin)


def every_call_moves_on(patch: pytest.MonkeyPatch) -> None:
    """What a dead member had begun is done again by the next, though nobody has said that it may be."""
    member_ended = Errands.member_ended

    def moved(errands: Errands, path: str, works: Works, member: MemberId, heirs: Sequence[MemberId]) -> None:
        for work in works.of_member(member):
            work.retry = True
        member_ended(errands, path, works, member, heirs)

    patch.setattr(Errands, "member_ended", moved)


def cancelled_call_is_begun(patch: pytest.MonkeyPatch) -> None:
    """Its submitter is told that it was withdrawn, and the member that it may begin."""

    def cancel(errands: Errands, operation: WorkCancel, works: Works) -> Result:
        return Done() if operation.work in works.by_id and not works.by_id[operation.work].begun else Failed("NotFound", "", {})

    patch.setattr(Errands, "cancel", cancel)
