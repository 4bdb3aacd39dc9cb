"""What must hold of a machine between any two entries.  For the tests and the simulator: it looks at everything, so it is slow.

It reads the private state of this package's classes: that is its purpose, and nobody else's.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from coord_core.machine.bays import Bay, Lot, Piece
from coord_core.machine.bounds import SEGMENTS_MAX, WINDOW_CONTROL_MAX, WORK_BYTES_PER_MEMBER_MAX
from coord_core.machine.claims import Claim, Claims, Queued
from coord_core.machine.detached import ACTORS_KEPT
from coord_core.machine.machine import Machine
from coord_core.machine.parked import has_room
from coord_core.machine.sessions import Attachment
from coord_core.machine.timers import Timer
from coord_core.machine.versions import VERSION_FIRST, VERSION_MAX
from coord_core.types import AttachmentId, SubscriptionId


def check(machine: Machine) -> None:
    """Raise AssertionError where an invariant is broken."""
    assert VERSION_FIRST <= machine.version <= VERSION_MAX
    attachments = _check_sessions(machine)
    _check_relays(machine, attachments)
    _check_locks(machine, attachments)
    _check_semaphores(machine, attachments)
    _check_limiters(machine, attachments)
    _check_windows(machine, attachments)
    _check_streams(machine, attachments)
    _check_elections(machine, attachments)
    _check_groups(machine, attachments)
    _check_topics(machine, attachments)
    _check_parking(machine, attachments)
    _check_logs(machine)
    _check_names(machine)
    _check_timers(machine)


def _check_sessions(machine: Machine) -> dict[AttachmentId, Attachment]:
    attachments = {}
    for session in machine._sessions:
        assert session.id <= machine._entry.index
        for number, attachment in session.attachments.items():
            assert number == attachment.number >= attachment.id
            assert attachment.alive, f"attachment {attachment.id} is dead, but not gone"
            assert attachment.session == session.id
            assert attachment.id not in attachments, f"attachment {attachment.id} is in two sessions"
            attachments[attachment.id] = attachment
        assert list(session.attachments) == sorted(session.attachments), "attachments end in the order in which they were opened"
    assert machine._sessions._attachment_count == len(attachments)
    assert {number: found for shard in machine._sessions._attachments for number, found in shard.items()} == attachments
    return attachments


def _check_relays(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    lines = machine._relays._lines
    in_lines = [attachment for line in lines.values() for attachment in line]
    assert {attachment.id for attachment in in_lines} == {it.id for it in attachments.values() if it.detached is not None}
    for attachment in attachments.values():
        assert (attachment.number == attachment.id) or attachment.detached is not None, "only what is detached is renumbered"
    for name, line in lines.items():
        assert line, f"nobody of {name} is left"
        found = []
        for attachment in line:
            detached, session = attachment.detached, machine._sessions.get(attachment.session)
            assert detached is not None
            assert session is not None
            assert attachments[attachment.id] is attachment
            assert detached.line is line
            assert detached.name == name
            assert session.generation == attachment.number
            assert session.ttl_ms == detached.ttl_ms
            assert len(detached.replaced) <= ACTORS_KEPT
            assert list(session.attachments.values()) == [attachment], f"{name} has two processes"
            found.append(detached)
        assert [each.attempt for each in found] == sorted({each.attempt for each in found}), f"{name}: attempts are out of order"
        assert [each.superseded for each in found] == [True] * (len(found) - 1) + [False] or all(e.superseded for e in found)


def _check_locks(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    holders: list[Claim] = []
    for path, lock in machine._locks.all():
        if lock.holder is None:
            assert lock.closed is not None, f"{path} has no holder and is not closed"
            assert lock.closed.timer is not None, f"{path} never opens"
        else:
            assert lock.closed is None, f"{path} is held and closed"
            assert 0 < lock.holder.token <= machine._entry.index, f"{path} has no holder"
            holders.append(lock.holder)
        assert not any(claim.token for claim in lock.waiters or ()), f"{path}: a waiter has a token"
    _check_claims(machine._locks, dict(machine._locks.all()), holders, attachments)
    assert not machine._locks._due


def _check_semaphores(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    holders: list[Claim] = []
    for path, semaphore in machine._semaphores.all():
        waiters = list(semaphore.waiters or ())
        assert semaphore.holders or waiters or semaphore.is_set, f"{path} is kept for nobody"
        tokens = [*semaphore.holders, *(claim.token for claim in waiters)]
        assert tokens == sorted(set(tokens)), f"{path}: not in order of arrival"
        assert all(claim.token == token for token, claim in semaphore.holders.items())
        assert all(claim.terms > 0 for claim in (*semaphore.holders.values(), *waiters))
        assert semaphore.taken == sum(claim.terms for claim in semaphore.holders.values())
        if waiters:
            assert semaphore.taken + waiters[0].terms > semaphore.limit, f"{path}: the first waits for nothing"
        holders += semaphore.holders.values()
    _check_claims(machine._semaphores, dict(machine._semaphores.all()), holders, attachments)


def _check_limiters(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    for path, limiter in machine._limiters.all():
        full = limiter.burst * limiter.per_ms
        assert limiter.timer is not None, f"{path} waits for nothing"
        assert limiter.level <= full
        assert limiter.as_of_ms <= machine.time_ms
        assert limiter.waiters or limiter.level < full, f"{path} is full and nobody waits"
        assert limiter.wanted == sum(claim.terms for claim in limiter.waiters or ())
    _check_claims(machine._limiters, dict(machine._limiters.all()), [], attachments)


def _check_claims(
    claims: Claims, places: Mapping[str, Queued], holders: list[Claim], attachments: dict[AttachmentId, Attachment]
) -> None:
    assert all(place.waiters is None or len(place.waiters) > 0 for place in places.values())
    waiters = [claim for place in places.values() for claim in place.waiters or ()]
    assert all(claim.timer is None for claim in holders), "who holds waits no more"
    assert all(claim.path == path for path, place in places.items() for claim in place.waiters or ())
    assert all(attachments.get(claim.attachment.id) is claim.attachment for claim in (*holders, *waiters)), "claimed by the dead"
    assert claims._waiters_total == len(waiters)
    for index, found in ((claims._held, holders), (claims._waiting, waiters)):
        assert all(index.values()), "an attachment without claims is still indexed"
        indexed = {(number, request): claim for number, of in index.items() for request, claim in of.items()}
        assert indexed == {(claim.attachment.id, claim.request): claim for claim in found}


def _check_windows(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    for attachment in attachments.values():
        window = attachment.window
        waiting = {request for request, answer in window.answers.items() if answer is None}
        in_queues = [request for claims in _claims(machine) for request in claims._waiting.get(attachment.id, ())]
        in_queues += [work.request for _, work in machine._groups._errands.submitted(attachment) if work.request]
        assert sorted(waiting) == sorted(in_queues), "what waits is in a queue, and the other way round"
        assert len(window.answers) <= WINDOW_CONTROL_MAX
        twice = [request for request in window.answers if request in window.forgotten and request not in waiting]
        assert not twice, f"attachment {attachment.id}: answers {twice} are kept and forgotten"


def _check_streams(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    streams = machine._streams
    found = {number: sub for stream in streams.by_name.values() for number, sub in stream.subscriptions.items()}
    assert found == streams._subscriptions
    assert found == {number: sub for table in streams._of_attachment.values() for number, sub in table.items()}
    assert all(attachments.get(sub.attachment.id) is sub.attachment for sub in found.values()), "the dead are subscribed"
    assert dict(streams.all()) == {f"{kind}:{path}": stream for (kind, path), stream in streams.by_name.items()}
    living = streams.records()
    assert [record.revision for record in living] == sorted(record.revision for record in living)
    assert (streams._count, streams._bytes) == (len(living), sum(record.size for record in living))
    for stream in streams.by_name.values():
        records = stream.left()
        assert stream.subscriptions, "a stream to which nobody is subscribed"
        assert records == [record for record in living if record.stream is stream]
        assert not records or records[0].previous == stream.floor, "whoever has read to the floor can go on"
        assert all(before.revision == after.previous for before, after in pairwise(records)), "a gap in a stream"
        assert stream.last == (records[-1].revision if records else stream.floor)


def _check_elections(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    found = {}
    for path, election in machine._elections.all():
        assert 0 < election.leader.epoch <= machine._entry.index, f"{path} has no leader"
        assert not any(runner.epoch for runner in election.waiting.values()), f"{path} has two leaders"
        for runner in (election.leader, *election.waiting.values()):
            assert runner.path == path
            assert attachments.get(runner.attachment.id) is runner.attachment, f"a dead candidate of {path}"
            assert SubscriptionId(runner.id) in machine._streams._subscriptions, f"a candidate of {path} hears nothing"
            found[runner.id] = runner
    assert found == {number: runner for table in machine._elections._runners.values() for number, runner in table.items()}


def _check_groups(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    found = {}
    for path, group in machine._groups.all():
        assert group.members, f"{path} is empty"
        assert list(group.members) == sorted(group.members)
        assert group.size == sum(member.size for member in group.members.values())
        for member in group.members.values():
            assert member.path == path
            assert attachments.get(member.attachment.id) is member.attachment, f"a dead member of {path}"
            assert SubscriptionId(member.id) in machine._streams._subscriptions, f"a member of {path} hears nothing"
            found[member.id] = member
        for it in group.members:
            assert group.works.bytes_of(it) <= WORK_BYTES_PER_MEMBER_MAX, f"{path}: member {it} has more than goes into a frame"
        for number, work in group.works.by_id.items():
            assert number == work.id
            assert work.done is not None or work.member in group.members, f"{path}: work of one who has left"
            assert not (work.timer and work.begun), f"{path}: work {number} was begun before it was due"
            assert work.submitter is None or attachments.get(work.submitter.id) is work.submitter, f"{path}: work of the dead"
            assert not (work.done is not None and (work.submitter is None or work.request)), f"{path}: nobody asks for {number}"
            assert not (work.is_call and work.submitter and not work.request), f"{path}: nobody waits for {number}"
    works = {number: work for _, group in machine._groups.all() for number, work in group.works.by_id.items() if work.submitter}
    submitted = machine._groups._errands._submitted.values()
    assert works == {number: work for table in submitted for number, (_, work) in table.items()}
    assert found == {number: member for table in machine._groups._members.values() for number, member in table.items()}


def _check_topics(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    topics, claims = machine._topics, {}
    assert {topic.number: topic for _, topic in topics.all()} == topics.by_number
    assert topics._paths == [path for path, _ in topics.all()]
    for path, topic in topics.all():
        kept, segments = topic.kept, list(topic.kept._segments)
        assert kept.bytes == sum(segment.bytes for segment in segments)
        assert len(segments) <= SEGMENTS_MAX
        assert all(before.first + before.count == after.first for before, after in pairwise(segments)), f"{path} has a gap"
        assert all(segment.count > 0 and segment.first_ms <= segment.last_ms for segment in segments)
        assert not segments or segments[-1].first + segments[-1].count == kept.end
        assert len(segments) < 2 or kept.bytes <= kept.retention.bytes, f"{path} keeps too much"
        assert topic.timer is not None or kept.goes_at_ms() is None, f"{path} will not age"
        for name, group in topic.groups.items():
            assert group.committed is not None or group.claim is not None, f"group {name} of {path} remembers nothing"
            assert group.committed is None or 0 <= group.committed <= kept.end
            if group.claim is not None:
                assert (group.claim.path, group.claim.group) == (path, name)
                assert attachments.get(group.claim.attachment.id) is group.claim.attachment, f"{path} is claimed by the dead"
                claims[path, name] = group.claim
    assert claims == {key: claim for table in topics._cursors._claims.values() for key, claim in table.items()}


def _check_parking(machine: Machine, attachments: dict[AttachmentId, Attachment]) -> None:
    parking, lots, bays = machine._parking, machine._parking.lots, machine._parking.bays()
    assert lots == dict(machine._names.of_type(Lot))
    assert not machine._entry.gates.due
    assert {name: bay for table in parking._lots.of_gate.values() for name, bay in table.items()} == dict(bays)
    assert all(table for table in parking._lots.of_gate.values()), "a gate that nobody waits for is watched"
    claims = {}
    for path, lot in lots.items():
        group = lot.groups.get("consumer")
        assert lot.bays or (group is not None and group.claim is not None), f"{path} is kept for nobody"
        assert {bay.name: bay for bay in lot.bays.values()} == {name: bay for name, bay in bays if bay.path == path}
        _check_lot(lot)
        if group is not None and group.claim is not None:
            assert attachments.get(group.claim.attachment.id) is group.claim.attachment, f"{path} is consumed by the dead"
            claims[path, "consumer"] = group.claim
    assert claims == {key: claim for table in parking._cursors._claims.values() for key, claim in table.items()}
    for name, bay in bays:
        assert bay.name == name
        _check_bay(machine, bay)
    pieces = [piece for _, bay in bays for piece in bay.pieces.values() if piece.has_message]
    assert (parking._lots.pieces, parking._lots.bytes) == (len(pieces), sum(piece.size for piece in pieces))


def _check_lot(lot: Lot) -> None:
    pieces = [piece for bay in lot.bays.values() for piece in bay.pieces.values()]
    kept = [piece for piece in pieces if piece.has_message]
    assert (lot.pieces, lot.bytes) == (len(kept), sum(piece.size for piece in kept))
    assert lot.offsets == sorted(lot.deliveries)
    delivered = {piece.delivery: piece for piece in kept if piece.delivery is not None}
    assert {offset: piece for offset, (_, piece) in lot.deliveries.items()} == delivered
    assert all(offset < lot.end for offset in lot.deliveries)
    assert list(lot.bins) == sorted(lot.bins)
    for number, found in lot.bins.items():
        places = [piece.at for piece in kept if piece.bin == number]
        assert len(set(places)) == len(places) == found.left > 0, "a bin is kept for the pieces that are in it"
        assert all(place < found.end for place in places)
    assert {piece.bin for piece in kept} == set(lot.bins)


def _check_bay(machine: Machine, bay: Bay) -> None:
    assert bay.pieces, f"a bay of {bay.path} is empty"
    expired = [piece for piece in bay.pieces.values() if piece.expired]
    everything = [*bay.waiting, *bay.called.values(), *expired]
    assert sorted(piece.id for piece in everything) == sorted(bay.pieces)
    assert all(bay.pieces[name] is piece and name == piece.id for name, piece in bay.called.items())
    tickets = [piece.ticket for piece in bay.waiting]
    assert tickets == sorted(set(tickets)), "pieces wait in order"
    offsets = [piece.delivery for piece in bay.called.values()]
    assert offsets == sorted(offsets, key=lambda offset: offset or 0), "pieces are called in order"
    assert not any(piece.passed or piece.committed or piece.expired or piece.delivery is not None for piece in bay.waiting)
    for piece in bay.called.values():
        assert piece.delivery is not None
        assert not (piece.passed and piece.committed), f"{piece.id} keeps a place that it does not need"
        assert (piece.timer is not None) == piece.committed
    assert not any(piece.committed or piece.timer for piece in expired)
    gate = machine._names.look_up(bay.gate)
    assert not bay.waiting or not has_room(gate, bay), f"{bay.waiting[0].id} waits for {bay.gate}, which has room"


def _check_logs(machine: Machine) -> None:
    logs = {number: topic.kept for number, topic in machine._topics.by_number.items()}
    bins = {number: found for lot in machine._parking.lots.values() for number, found in lot.bins.items()}
    assert len(logs) + len(bins) == len(logs | bins), "two logs have one number"
    assert dict(machine.logs) == logs | bins


def _check_names(machine: Machine) -> None:
    values = machine._values.all()
    resources = machine._registry.resources
    paths = [path for resource in resources for path, _ in machine._names.of_type(resource.named)]
    assert len(machine._names) == sum(map(len, machine._names.shards())) == len(paths), "a name is bound to nothing"
    assert machine._names._bytes == sum(len(path.encode()) for path in paths)
    assert machine._values._count == len(values)
    assert machine._values._bytes == sum(len(value.content) for _, value in values)


def _check_timers(machine: Machine) -> None:
    for timer in _timers(machine):
        assert timer.on_due is not None, "a timer in use has fired or was cancelled"
    assert len(machine._timers) == len(list(_timers(machine))), "a timer is set for nothing"
    items = [item for block in machine._timers._blocks for item in block]
    assert len(machine._timers) == len(items)
    assert items == sorted(items)
    assert all(item == (*item[2].row(), item[2]) and item[2].on_due is not None for item in items)


def _timers(machine: Machine) -> Iterator[Timer]:
    for claims in _claims(machine):
        found = (claim.timer for of in claims._waiting.values() for claim in of.values())
        yield from (timer for timer in found if timer is not None)
    yield from (lock.closed.timer for _, lock in machine._locks.all() if lock.closed is not None and lock.closed.timer is not None)
    yield from (limiter.timer for _, limiter in machine._limiters.all() if limiter.timer is not None)
    yield from (topic.timer for topic in machine._topics.by_number.values() if topic.timer is not None)
    yield from (piece.timer for piece in _pieces(machine) if piece.timer is not None)
    yield from (value.timer for _, value in machine._values.all() if value.timer is not None)
    works = (work for _, group in machine._groups.all() for work in group.works.by_id.values())
    yield from (work.timer for work in works if work.timer is not None)


def _pieces(machine: Machine) -> Iterator[Piece]:
    return (piece for _, bay in machine._parking.bays() for piece in bay.pieces.values())


def _claims(machine: Machine) -> tuple[Claims, ...]:
    return machine._locks, machine._semaphores, machine._limiters
