"""The session's states, its lease and its way to a leader, as scripts: time is a parameter, the test plays the cluster."""

import itertools

import pytest

from coord_core.client.session import SessionState
from coord_core.client.settings import DetachedConfig
from coord_core.errors import (
    AuthenticationFailed,
    OutcomeUnknown,
    SessionClosed,
    SessionExpired,
    Unavailable,
    WrongCluster,
)
from coord_core.protocol.commands import Attempt, CloseAttachment, CloseSession, OpenAttachment
from coord_core.protocol.messages import Ask, Hello, KeepAlive, KeptAlive, Redirect, Refused, Reply, Told, Welcome
from coord_core.protocol.queries import LockInfo, LockState, SessionInfo
from coord_core.protocol.queries import SessionState as SessionStateAnswer
from coord_core.protocol.results import AttachmentOpened, DetachedOpened, Done, Failed, Granted
from coord_core.types import AttachmentId, FencingToken, RequestNumber, SessionId
from tests.client.script import (
    MARGIN_MS,
    MEMBERS,
    TTL_MS,
    A,
    B,
    C,
    Script,
    calls_of,
    command_of,
    kinds_of,
    seq_of,
    session_opened,
)

TOKEN = FencingToken(200)


def holding(script: Script) -> Script:
    """Open a session and get the lock under `TOKEN`."""
    script.opened()
    call = script.acquire()
    (sent,) = script.take()
    script.answer(sent, Granted(TOKEN))
    assert script.outcomes[call] == Granted(TOKEN)
    return script


# --- opening ---------------------------------------------------------------------------------------------------------------------


def test_nothing_is_done_before_the_first_use() -> None:
    """A client made at import must not connect."""
    script = Script()
    assert script.take() == []
    assert script.at == ""
    assert script.session.next_wakeup_ms() is None


def test_first_call_connects_opens_a_session_and_is_then_sent() -> None:
    """Sessions are opened lazily."""
    script = Script()
    script.acquire()
    (open_,) = script.connect()
    assert kinds_of([open_]) == ["OpenSession"]
    sent = script.answer(open_, session_opened(100))
    assert [(call.session, call.request) for call in calls_of(sent)] == [(100, 1)]
    assert script.states == [SessionState.CONNECTED]


def test_hello_carries_token_and_the_cluster_once_it_is_known() -> None:
    """The first node says which cluster it is; from then on no other will do."""
    script = Script(token="secret")
    script.session.open(script.now_ms)
    script.take()
    script.session.connected(script.at, script.now_ms)
    assert script.take() == [Hello(1, 1, "client", "", "secret")]
    script.welcome(A)
    script.cut()
    script.sleep(50)
    script.session.connected(script.at, script.now_ms)
    assert script.take() == [Hello(1, 1, "client", "cluster", "secret")]


def test_lease_of_a_new_session_counts_from_when_opening_was_sent() -> None:
    """Not from when the answer came: the cluster may have opened it at any moment in between."""
    script = Script()
    script.session.open(script.now_ms)
    (open_,) = script.connect()
    sent_ms = script.now_ms
    script.now_ms += 400
    script.answer(open_, session_opened())
    assert script.session.lease_deadline_ms == sent_ms + TTL_MS - MARGIN_MS


def test_opening_that_took_longer_than_its_lease_is_closed_and_begun_anew() -> None:
    """There is nothing left of such a lease; the session would only be LOST at once."""
    script = Script()
    script.session.open(script.now_ms)
    (open_,) = script.connect()
    script.now_ms += TTL_MS
    sent = script.answer(open_, session_opened(100))
    assert kinds_of(sent) == ["CloseSession", "OpenSession"]
    assert script.session.session_id is None


def test_detached_session_that_was_long_in_coming_is_taken_up_again_and_not_closed() -> None:
    """What it holds was another process's work: a slow network must not end it.  The same process is answered as before."""
    script = Script(detached=DetachedConfig("/job", Attempt(1), b"me"))
    script.session.open(script.now_ms)
    (first,) = script.connect()
    script.now_ms += TTL_MS
    (again,) = script.answer(first, DetachedOpened(SessionId(100), AttachmentId(120), TTL_MS, RequestNumber(7), resumed=True))
    assert kinds_of([first, again]) == ["OpenDetached", "OpenDetached"]
    assert command_of(first) == command_of(again)
    script.answer(again, DetachedOpened(SessionId(100), AttachmentId(120), TTL_MS, RequestNumber(7), resumed=True))
    assert script.session.state is SessionState.CONNECTED


def test_opening_is_sent_again_after_a_lost_connection() -> None:
    """It has no number: a spare session holds nothing and expires."""
    script = Script()
    script.session.open(script.now_ms)
    script.connect()
    script.cut()
    assert kinds_of(script.connect()) == ["OpenSession"]


def test_refused_opening_fails_the_calls_that_wait_for_it() -> None:
    """The cluster will not have this session; waiting for it would be for ever."""
    script = Script()
    call = script.acquire()
    (open_,) = script.connect()
    script.answer(open_, Failed("InvalidRequest", "ttl_ms is too small", {}))
    assert script.outcomes[call].code == "InvalidRequest"
    assert script.session.refusal is not None
    script.acquire()
    assert kinds_of(script.take()) == ["OpenSession"], "the next call tries again"


# --- the lease -------------------------------------------------------------------------------------------------------------------


def test_keep_alive_goes_every_third_of_the_ttl() -> None:
    """So that two may be lost before the lease is."""
    script = Script()
    script.opened()
    sent_ms = []
    for _ in range(3):
        assert script.sleep(TTL_MS // 3 - 1) == [], "not before its time"
        (keep_alive,) = script.sleep(1)
        sent_ms.append(script.now_ms)
        script.kept_alive(keep_alive)
    assert [b - a for a, b in itertools.pairwise(sent_ms)] == [TTL_MS // 3] * 2


def test_lease_counts_from_the_send_time_of_the_answered_keep_alive() -> None:
    """The cluster may have renewed it at any moment between sending and answer (Gray and Cheriton 1989)."""
    script = Script()
    script.opened()
    (keep_alive,) = script.sleep(TTL_MS // 3)
    sent_ms = script.now_ms
    script.now_ms += 300
    script.kept_alive(keep_alive)
    assert script.session.lease_deadline_ms == sent_ms + TTL_MS - MARGIN_MS


def test_holding_is_believed_up_to_the_deadline_and_not_at_it() -> None:
    """The deadline itself is already too late."""
    script = holding(Script())
    deadline_ms = script.session.lease_deadline_ms
    assert deadline_ms is not None
    assert script.session.believes_held("/lock", TOKEN, deadline_ms - 1)
    assert not script.session.believes_held("/lock", TOKEN, deadline_ms)


def test_released_token_is_not_believed_from_the_moment_of_the_call() -> None:
    """Another may have it before the answer comes."""
    script = holding(Script())
    script.release(TOKEN)
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)


def test_two_locks_granted_by_one_entry_are_held_apart() -> None:
    """A session that ends frees all it held in one entry; whoever waited for two of them has both under that entry's index."""
    script = Script()
    script.opened()
    script.acquire("/a")
    script.acquire("/b")
    for sent in script.take():
        script.say(Reply(seq_of(sent), Granted(TOKEN)))
    script.release(TOKEN, "/a")
    assert not script.session.believes_held("/a", TOKEN, script.now_ms)
    assert script.session.believes_held("/b", TOKEN, script.now_ms)


def test_keep_alive_without_answer_makes_the_client_try_another_node() -> None:
    """A leader cut off from its quorum answers nothing."""
    script = Script(seeds=(A, B))
    script.opened()
    first = script.at
    script.sleep(TTL_MS // 3 + 2_100)
    assert script.disconnects == 1
    assert script.at not in ("", first)
    assert script.states[-1:] == [SessionState.SUSPENDED]


def test_call_without_answer_is_followed_by_a_keep_alive_as_probe() -> None:
    """A silent node is found out long before the next keep-alive is due."""
    script = Script()
    script.opened()
    script.acquire()
    script.take()
    assert kinds_of(script.sleep(500)) == ["KeepAlive"]


def test_answered_probe_leaves_a_waiting_call_in_peace() -> None:
    """A lock that others hold is no sign of a dead leader: ten thousand waiters must not probe without end."""
    script = Script()
    script.opened()
    script.acquire()
    script.take()
    (probe,) = script.sleep(500)
    script.kept_alive(probe)
    assert script.sleep(4_000) == []
    assert script.disconnects == 0


# --- SUSPENDED -------------------------------------------------------------------------------------------------------------------


def test_lost_connection_suspends_and_an_answered_keep_alive_reconnects() -> None:
    """A lost connection elects nobody: the session outlives it."""
    script = holding(Script())
    script.cut()
    assert script.states[-1:] == [SessionState.SUSPENDED]
    assert script.session.believes_held("/lock", TOKEN, script.now_ms)
    (keep_alive,) = script.connect()
    assert keep_alive == KeepAlive(1, SessionId(100), 1)
    assert script.states[-1:] == [SessionState.SUSPENDED], "the node's word is not yet the quorum's"
    script.kept_alive(keep_alive)
    assert script.states[-1:] == [SessionState.CONNECTED]


def test_redirect_is_followed_to_the_leader_that_it_names() -> None:
    """At once, without backoff."""
    script = Script()
    script.opened()
    call = script.set()
    (sent,) = script.take()
    script.say(Redirect(seq_of(sent), C))
    assert script.at == C
    again = calls_of(script.connect())
    assert [(command.session, command.request) for command in again] == [(100, 1)]
    assert call not in script.outcomes


def test_refusal_of_a_node_that_does_not_lead_is_a_redirect_too() -> None:
    """Whichever way it says so."""
    script = Script()
    script.opened()
    script.set()
    (sent,) = script.take()
    script.answer(sent, Failed("NotLeader", "another leads", {"leader": B}))
    assert script.at == B


def test_lost_leader_is_left_with_a_little_jitter() -> None:
    """All its clients lose it in the same moment."""
    delays = set()
    for seed in range(20):
        script = Script(seeds=(A, B, C), seed=seed)
        script.opened()
        script.kept_alive(script.sleep(TTL_MS // 3)[0])
        cut_ms = script.now_ms
        script.cut()
        script.dial()
        delays.add(script.now_ms - cut_ms)
    assert len(delays) > 5
    assert max(delays) <= 25


def test_welcome_of_a_follower_is_followed_before_anything_is_sent() -> None:
    """It names the leader already; a request would only be redirected."""
    script = Script()
    script.session.open(script.now_ms)
    script.dial()
    assert script.welcome(leader=B) == []
    assert script.at == B


def test_without_a_leader_the_nodes_are_tried_in_turn_with_growing_delays() -> None:
    """Full jitter: clients of a fallen leader must not come back in step."""
    script = Script(seeds=(A, B, C))
    script.session.open(script.now_ms)
    seen, times = [], []
    for _ in range(12):
        seen.append(script.dial())
        times.append(script.now_ms)
        script.welcome(leader="")
    assert set(seen[:3]) == {A, B, C}
    assert times[2] == times[0], "the first round goes without delay"
    delays = [after - before for before, after in itertools.pairwise(times)]
    assert max(delays[2:]) > 25
    assert max(delays) <= 1_000


def test_hint_that_names_the_leader_just_lost_is_not_followed() -> None:
    """Followers name it until they have noticed; without this the client would dial the dead in circles."""
    script = Script(seeds=(A, B, C))
    script.opened()
    dead = script.at
    script.cut()
    other = script.dial()
    assert other != dead
    script.welcome(leader=dead)
    script.sleep(60)
    assert script.at not in ("", dead, other)


def test_members_named_by_a_node_are_tried_as_well() -> None:
    """One seed is enough to find the cluster, also after that seed has gone."""
    script = Script(seeds=(A,))
    script.opened()
    script.cut()
    tried = set()
    for _ in range(6):
        tried.add(script.dial())
        script.cut()
    assert tried == {A, B, C}


def test_node_that_does_not_answer_the_greeting_is_left() -> None:
    """A port that accepts and says nothing must not hold the client."""
    script = Script(seeds=(A, B))
    script.session.open(script.now_ms)
    first = script.dial()
    script.sleep(2_000)
    assert script.at not in ("", first)


def test_connection_that_cannot_be_made_in_time_is_given_up() -> None:
    """A host that drops packets must not hold the client."""
    script = Script(seeds=(A, B))
    script.session.open(script.now_ms)
    script.take()
    first = script.at
    script.sleep(2_000)
    assert script.disconnects == 1
    assert script.at not in ("", first)


# --- LOST ------------------------------------------------------------------------------------------------------------------------


def test_session_is_lost_at_its_deadline_without_asking_anyone() -> None:
    """That LOST arrives must not depend on the network that was lost (kazoo 89)."""
    script = holding(Script())
    script.cut()
    deadline_ms = script.session.lease_deadline_ms
    assert deadline_ms is not None
    script.sleep(deadline_ms - script.now_ms - 1)
    assert script.states[-1:] == [SessionState.SUSPENDED]
    script.sleep(1)
    assert script.states[-1:] == [SessionState.LOST]
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)
    assert script.session.session_id is None


def test_late_tick_does_not_prolong_what_is_believed() -> None:
    """A stalled loop costs liveness, never safety: belief looks at the clock itself."""
    script = holding(Script())
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms + TTL_MS)


def test_grant_that_arrives_after_the_deadline_is_dropped() -> None:
    """Even where the tick at the deadline has not run yet (etcd 11456)."""
    script = Script()
    script.opened()
    call = script.acquire()
    (sent,) = script.take()
    script.now_ms += TTL_MS
    script.say(Reply(seq_of(sent), Granted(TOKEN)))
    assert isinstance(script.outcomes[call], OutcomeUnknown)
    assert script.session.held() == frozenset()
    assert script.session.state is SessionState.LOST


def test_first_act_after_loss_closes_the_old_session() -> None:
    """So that whatever the cluster still holds for it is free now, not after its TTL."""
    script = holding(Script())
    script.cut()
    script.sleep(TTL_MS)
    assert script.session.state is SessionState.LOST
    script.acquire()
    sent = script.connect()
    assert next(command_of(message) for message in sent) == CloseSession(SessionId(100))
    assert kinds_of(sent) == ["CloseSession", "OpenSession"]
    assert script.states[-1:] == [SessionState.CONNECTING]
    script.answer(sent[0], Done())
    script.answer(sent[1], session_opened(300))
    assert script.session.session_id == 300


def test_numbers_start_again_in_a_new_session() -> None:
    """They number the commands of one attachment."""
    script = holding(Script())
    script.sleep(TTL_MS)
    script.acquire()
    sent = script.connect()
    (call,) = calls_of(script.answer(sent[-1], session_opened(300)))
    assert (call.session, call.request, call.low_water) == (300, 1, 0)


def test_grant_of_a_lost_session_is_not_believed_in_the_next_one() -> None:
    """The new lease covers only what was granted under it."""
    script = holding(Script())
    script.sleep(TTL_MS)
    script.acquire("/other")
    sent = script.connect()
    script.answer(sent[-1], session_opened(300))
    assert script.session.lease_deadline_ms is not None
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)


def test_old_session_is_closed_even_if_nobody_asks_for_a_new_one() -> None:
    """The lock's next holder waits for it."""
    script = holding(Script())
    script.cut()
    script.sleep(TTL_MS)
    assert kinds_of(script.connect()) == ["CloseSession"]


def test_cluster_that_says_expired_ends_the_session_at_once() -> None:
    """It knows better than the lease here."""
    script = holding(Script())
    (keep_alive,) = script.sleep(TTL_MS // 3)
    script.say(Reply(seq_of(keep_alive), Failed("SessionExpired", "gone", {})))
    assert script.states[-1:] == [SessionState.LOST]
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)
    assert script.take() == [], "there is nothing left to close"


def test_loss_tells_of_each_call_whether_its_outcome_is_known() -> None:
    """Sent: unknown.  Never sent: not applied."""
    script = Script()
    script.opened()
    sent = script.set()
    script.take()
    script.cut()
    unsent = script.set()
    script.session.tick(script.now_ms + TTL_MS)
    script.take()
    assert isinstance(script.outcomes[sent], OutcomeUnknown)
    assert script.outcomes[sent].details["lost"] == "SessionExpired"
    assert isinstance(script.outcomes[unsent], SessionExpired)


def test_reads_survive_the_loss_of_the_session() -> None:
    """They belong to none."""
    script = Script()
    script.opened()
    script.cut()
    script.now_ms += TTL_MS
    script.session.tick(script.now_ms)
    call = script.session.ask(LockInfo("/lock"), script.now_ms)
    script.take()
    sent = script.connect()
    asks = [message for message in sent if isinstance(message, Ask)]
    answer = LockState(None, (), 0)
    script.say(Told(asks[0].seq, answer))
    assert script.outcomes[call] == answer


def test_answer_to_an_old_keep_alive_does_not_revive_a_lost_session() -> None:
    """LOST is final."""
    script = Script()
    script.opened()
    (keep_alive,) = script.sleep(TTL_MS // 3)
    script.now_ms += TTL_MS
    script.say(KeptAlive(seq_of(keep_alive), TTL_MS))
    assert script.session.state is SessionState.LOST
    assert script.session.lease_deadline_ms is None


# --- CLOSED ----------------------------------------------------------------------------------------------------------------------


def test_close_sends_close_session_and_finishes_with_its_answer() -> None:
    """What is held is free at once, not after the TTL."""
    script = holding(Script())
    script.session.close(script.now_ms)
    (close,) = script.take()
    assert command_of(close) == CloseSession(SessionId(100))
    assert not script.session.believes_held("/lock", TOKEN, script.now_ms)
    assert not script.finished
    script.answer(close, Done())
    assert script.finished


def test_close_before_the_first_use_finishes_at_once() -> None:
    """There is nothing to close."""
    script = Script()
    script.session.close(script.now_ms)
    script.take()
    assert script.finished
    assert script.at == ""


def test_closed_client_that_gives_up_on_its_last_words_sends_nothing_after_hanging_up() -> None:
    """The connection stood just when closing was not worth trying any longer: found by the simulator, with a stopped process."""
    script = Script()
    script.opened()
    script.cut()
    script.session.close(script.now_ms)
    given_up_ms = max(until_ms for _, until_ms in script.session._burials)
    script.sleep(given_up_ms - script.now_ms - 1_500)
    while not script.at:
        script.sleep(1)
    script.now_ms = given_up_ms
    script.session.connected(script.at, script.now_ms)
    script.session.tick(script.now_ms)
    effects = script.session.take()
    assert (effects.disconnect, effects.send, effects.finished) == (True, [], True)


def test_close_while_the_session_is_being_opened_closes_what_comes_of_it() -> None:
    """Else it would live, and hold nothing, until its TTL."""
    script = Script()
    script.session.open(script.now_ms)
    (open_,) = script.connect()
    script.session.close(script.now_ms)
    script.take()
    assert not script.finished
    (close,) = script.answer(open_, session_opened(100))
    assert command_of(close) == CloseSession(SessionId(100))
    script.answer(close, Done())
    assert script.finished


def test_closed_client_takes_no_calls_and_fails_those_it_has() -> None:
    """Sent: unknown.  Never sent: not applied."""
    script = Script()
    unsent = script.set()
    script.session.close(script.now_ms)
    script.take()
    assert isinstance(script.outcomes[unsent], SessionClosed)
    with pytest.raises(SessionClosed):
        script.acquire()
    with pytest.raises(SessionClosed):
        script.session.ask(LockInfo("/lock"), script.now_ms)


# --- refusals --------------------------------------------------------------------------------------------------------------------


def test_refusal_by_all_nodes_fails_what_was_never_sent() -> None:
    """A wrong token stays wrong: the caller should hear it now, not after a timeout."""
    script = Script(seeds=(A, B), token="wrong")
    call = script.acquire()
    for _ in range(2):
        script.dial()
        assert call not in script.outcomes
        script.say(Refused("AuthenticationFailed", "the token was refused"))
    assert isinstance(script.outcomes[call], AuthenticationFailed)


def test_attempts_count_from_nothing_once_a_leader_has_answered_a_client_that_only_reads() -> None:
    """It has no keep-alives: without that its pauses only ever grow, and one node with a wrong token speaks for all."""
    script = Script(seeds=(A, B, C))
    for _ in range(10):
        call = script.session.ask(LockInfo("/lock"), script.now_ms)
        before_ms = script.now_ms
        (ask,) = script.connect()
        script.say(Told(seq_of(ask), LockState(None, (), 0)))
        assert call in script.outcomes
        assert script.now_ms - before_ms <= 25
        script.cut()
        script.now_ms += 60_000
    call = script.session.ask(LockInfo("/lock"), script.now_ms)
    script.dial()
    script.say(Refused("AuthenticationFailed", "the token was refused"))
    assert call not in script.outcomes


def test_node_of_an_unknown_version_is_left() -> None:
    """Its messages would not be understood."""
    script = Script(seeds=(A, B))
    call = script.acquire()
    script.dial()
    script.say(Welcome(99, "cluster", "n1", MEMBERS, A))
    assert call not in script.outcomes
    script.dial()
    script.say(Refused("UnsupportedVersion", "too old"))
    assert script.outcomes[call].code == "UnsupportedVersion"


def test_a_node_of_another_cluster_is_passed_over_for_as_long_as_it_takes() -> None:
    """A founder that lost its disk and founded anew leads, and has none of the locks: every Hello names the cluster that is meant.

    That no other node leads at the moment is no reason to believe the stranger, nor to end the calls that wait.
    """
    script = Script(seeds=(A, B, C))
    script.opened()
    script.cut()
    call = script.set()
    refused = 0
    while refused < 5:
        if script.dial() != A:
            script.welcome("")
            continue
        assert script.hello is not None
        assert script.hello.cluster_id == "cluster"
        script.say(Refused("WrongCluster", "this node belongs to cluster new, not to cluster"))
        assert script.session.trouble.startswith(f"{A}: belongs to another cluster")
        refused += 1
    assert call not in script.outcomes
    assert script.session.refusal is None


def test_a_node_of_another_cluster_that_welcomes_us_is_passed_over_too() -> None:
    """An older release may not look at what the Hello says."""
    script = Script(seeds=(A, B))
    script.opened()
    script.cut()
    stranger = script.dial()
    script.say(Welcome(1, "another", "n9", (), stranger))
    assert script.session.leader_address is None
    assert script.session.trouble == f"{stranger}: belongs to another cluster: this is node n9 of cluster another"
    assert script.session.members == MEMBERS


def test_where_every_node_is_of_another_cluster_the_calls_end() -> None:
    """The cluster that was meant is gone: waiting would not bring it back."""
    script = Script(seeds=(A, B), cluster_id="former")
    call = script.acquire()
    for _ in range(2):
        script.dial()
        script.say(Refused("WrongCluster", "this node belongs to cluster new, not to former"))
    assert isinstance(script.outcomes[call], WrongCluster)


def test_error_of_a_timeout_says_why_no_leader_was_reached() -> None:
    """ "Unavailable" alone helps nobody at three in the morning."""
    script = Script()
    call = script.set()
    script.take()
    script.session.connection_failed(A, script.now_ms, "Connection refused")
    script.take()
    script.session.tick(script.now_ms + 10_000)
    script.take()
    assert isinstance(script.outcomes[call], Unavailable)
    assert "a:7400: Connection refused" in str(script.outcomes[call])


# --- attached --------------------------------------------------------------------------------------------------------------------


def attached() -> Script:
    script = Script(session_id=SessionId(70))
    script.session.lease_renewed(script.now_ms + TTL_MS, script.now_ms)
    call = script.acquire()
    (open_,) = script.connect()
    assert isinstance(command_of(open_), OpenAttachment)
    (sent,) = script.answer(open_, AttachmentOpened(AttachmentId(90), TTL_MS))
    assert [(c.session, c.attachment, c.request) for c in calls_of([sent])] == [(70, 90, 1)]
    script.answer(sent, Granted(TOKEN))
    assert script.outcomes[call] == Granted(TOKEN)
    return script


def test_attached_client_sends_no_keep_alives_and_believes_its_keeper() -> None:
    """One process keeps the session alive; the others hear from it until when."""
    script = attached()
    deadline_ms = script.now_ms + 10_000
    script.session.lease_renewed(deadline_ms, script.now_ms)
    assert script.sleep(9_000) == []
    assert script.session.believes_held("/lock", TOKEN, deadline_ms - 1)
    assert not script.session.believes_held("/lock", TOKEN, deadline_ms)


def test_attached_client_ends_with_its_session() -> None:
    """It cannot open another: it would hold what nobody keeps alive."""
    script = attached()
    script.sleep(TTL_MS)
    assert script.session.state is SessionState.LOST
    with pytest.raises(SessionExpired):
        script.acquire()
    with pytest.raises(SessionExpired):
        script.session.open(script.now_ms)


def test_attached_client_asks_after_reconnecting_whether_the_session_lives() -> None:
    """Its keeper may have closed it meanwhile."""
    script = attached()
    script.cut()
    (ask,) = script.connect()
    assert ask == Ask(1, SessionInfo(SessionId(70)))
    script.say(Told(1, SessionStateAnswer(alive=False, attachments=0, holdings=0)))
    assert script.session.state is SessionState.LOST


def test_closed_attachment_ends_the_client_and_nothing_else() -> None:
    """What a dead child's late command meets."""
    script = attached()
    call = script.set()
    (sent,) = script.take()
    script.answer(sent, Failed("AttachmentClosed", "closed by its session", {}))
    assert script.outcomes[call].code == "AttachmentClosed"
    assert script.session.state is SessionState.LOST


def test_closing_an_attached_client_closes_its_attachment_only() -> None:
    """The session belongs to its keeper."""
    script = attached()
    script.session.close(script.now_ms)
    (close,) = script.take()
    assert command_of(close) == CloseAttachment(SessionId(70), AttachmentId(90))
