-------------------------------- MODULE Coord --------------------------------
(***************************************************************************)
(* What Raft's own spec does not cover: leases that are kept in a leader's *)
(* memory, expiry, failover, one lock, and requests that are applied once. *)
(*                                                                         *)
(* Consensus is taken for granted: one log, and at most one node (`lead`)  *)
(* that a quorum follows.  Only it commits and confirms; others may go on  *)
(* believing that they lead (`leads`).  The machine's state is that of the *)
(* committed log.  Time is counted down, never up: no clock is stored, so  *)
(* the states are finitely many and runs may be of any length.             *)
(*                                                                         *)
(* One client a session.  Its odd requests acquire the lock; the even one  *)
(* after each gives it back, or cancels the acquire.  A message once sent  *)
(* may arrive at any time, any number of times, in any order, or never.    *)
(*                                                                         *)
(* `Broken` names a mistake to be made; "none" is the protocol as built.   *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS Nodes, Sessions,
          Ttl,        \* of a lease, in the leader's ticks
          Margin,     \* what the client's lease is shorter
          Drift,      \* by how many ticks in a Ttl a leader's clock may run ahead of a client's
          Requests,   \* how many a session may make
          Leased,     \* the sessions whose leases run; the others stand until they are closed
          Failovers,  \* whether leaders change
          Broken

Numbers == 1 .. Requests
Acquires == {r \in Numbers : r % 2 = 1}
ClientTtl == Ttl - Margin
Unwatched == Ttl + 1  \* A lease that does not run.

VARIABLES
  \* --- consensus, abstracted
  lead,      \* the node that a quorum follows
  leads,     \* the nodes that act as leaders; an old one has not noticed yet
  active,    \* those of them that applied their own term's first entry: replica/leading.py
  tail,      \* node -> sessions whose Expire is in its log, not committed as far as it knows
  \* --- a leader's memory
  lease,     \* node -> session -> ticks left
  todo,      \* node -> session -> keep-alives and expiry checks in order of arrival: replica/reads.py
  confirmed, \* node -> session -> how many of those a quorum has confirmed since they arrived
  \* --- the machine
  ended,     \* sessions closed or expired
  line,      \* claims <<session, request>>: the first holds the lock, the others wait
  token,     \* session -> request -> the fencing token it was granted; 0: never
  window,    \* session -> request -> "unseen", "seen" or "forgotten": machine/windows.py
  index,     \* of the last entry that changed anything
  \* --- clients
  belief,    \* session -> ticks for which its client believes in it; 0: LOST or closed, for good
  probe,     \* session -> the keep-alive under way: where it is, and how long ago it was sent
  sent,      \* session -> the last request sent
  cancels,   \* session -> those of the even requests that are a Cancel
  got,       \* session -> requests whose answer has arrived, or was made unimportant by a Cancel's
  \* --- history
  effects    \* session -> request -> how often it was applied

consensus == <<lead, leads, active, tail>>
memory == <<lease, todo, confirmed>>
machine == <<ended, line, token, window, index, effects>>
requests == <<sent, cancels, got>>
vars == <<consensus, memory, machine, belief, probe, requests>>

Least(a, b) == IF a < b THEN a ELSE b
Less(a) == IF a > 0 THEN a - 1 ELSE 0
Most(a, b) == IF a > b THEN a ELSE b
None == [at |-> "none", age |-> 0]
Full == [s \in Sessions |-> IF s \in Leased THEN Ttl ELSE Unwatched]
Void == [s \in Sessions |-> 0]

Init ==
  /\ lead \in Nodes
  /\ leads = {lead}
  /\ active = {lead}
  /\ tail = [n \in Nodes |-> {}]
  /\ lease = [n \in Nodes |-> IF n = lead \/ Broken = "old_deadlines" THEN Full ELSE Void]
  /\ todo = [n \in Nodes |-> [s \in Sessions |-> <<>>]]
  /\ confirmed = [n \in Nodes |-> [s \in Sessions |-> 0]]
  /\ ended = {}
  /\ line = <<>>
  /\ token = [s \in Sessions |-> [r \in Numbers |-> 0]]
  /\ window = [s \in Sessions |-> [r \in Numbers |-> "unseen"]]
  /\ index = 0
  /\ effects = [s \in Sessions |-> [r \in Numbers |-> 0]]
  /\ belief = [s \in Sessions |-> ClientTtl]
  /\ probe = [s \in Sessions |-> None]
  /\ sent = [s \in Sessions |-> 0]
  /\ cancels = [s \in Sessions |-> {}]
  /\ got = [s \in Sessions |-> {}]

------------------------------------------------------------------------------
(* Time.  A leader that is slow, stopped or starved is one that lets ticks  *)
(* pass before it acts; that its clock may be fast is in `Due`.             *)

Tick ==
  /\ belief' = [s \in Sessions |-> IF s \in Leased THEN Less(belief[s]) ELSE belief[s]]
  /\ lease' = [n \in Nodes |-> [s \in Sessions |-> IF lease[n][s] = Unwatched THEN Unwatched ELSE Less(lease[n][s])]]
  /\ probe' = [s \in Sessions |-> IF probe[s].at = "none" THEN None ELSE [probe[s] EXCEPT !.age = Least(@ + 1, ClientTtl)]]
  /\ UNCHANGED <<consensus, todo, confirmed, machine, requests>>

------------------------------------------------------------------------------
(* Failover.                                                                *)

Forget(n) ==  \* What a node knows only as a leader goes with its leadership, and so do its connections.
  /\ todo' = [todo EXCEPT ![n] = [s \in Sessions |-> <<>>]]
  /\ confirmed' = [confirmed EXCEPT ![n] = Void]
  /\ lease' = IF Broken = "old_deadlines" THEN lease ELSE [lease EXCEPT ![n] = Void]
  /\ probe' = [s \in Sessions |-> IF probe[s].at = n THEN None ELSE probe[s]]
  /\ active' = active \ {n}

Elect(m) ==  \* A quorum turns to m, which has any part of the uncommitted log; the old leader lives on.
  /\ Failovers
  /\ lead' = m
  /\ leads' = leads \union {m}
  /\ \E part \in SUBSET UNION {tail[n] : n \in Nodes} : tail' = [tail EXCEPT ![m] = part]
  /\ Forget(m)
  /\ UNCHANGED <<machine, belief, requests>>

StepDown(n) ==
  /\ n \in leads \ {lead}
  /\ leads' = leads \ {n}
  /\ Forget(n)
  /\ UNCHANGED <<lead, tail, machine, belief, requests>>

(* The leader applies its own term's first entry, behind what it inherited. *)
(* From here on nobody else's tail can win any more, and what a deposed     *)
(* leader does by its leases alone comes to nothing: neither is followed    *)
(* further.  What it has confirmed it may still answer, except for sessions *)
(* that it knows to be expiring.                                            *)
Ready ==
  LET silent(n, s) == n # lead /\ s \in tail[n]
  IN /\ lead \notin active
     /\ tail[lead] = {}
     /\ active' = {lead}
     /\ tail' = [n \in Nodes |-> {}]
     /\ todo' = [n \in Nodes |-> [s \in Sessions |-> IF silent(n, s) THEN <<>> ELSE todo[n][s]]]
     /\ confirmed' = [n \in Nodes |-> [s \in Sessions |-> IF silent(n, s) THEN 0 ELSE confirmed[n][s]]]
     /\ lease' = CASE Broken = "old_deadlines" -> lease
                   [] Broken = "forgets_inherited" -> [n \in Nodes |-> [s \in Sessions |-> IF n = lead THEN Unwatched ELSE 0]]
                   [] OTHER -> [n \in Nodes |-> IF n = lead THEN Full ELSE Void]
     /\ UNCHANGED <<lead, leads, machine, belief, probe, requests>>

------------------------------------------------------------------------------
(* Keep-alives and expiry, at a leader.  A round of one session here stands *)
(* for the batch of all: what matters is the order of one session's items.  *)

Has(items, kinds) == \E i \in DOMAIN items : items[i] \in kinds
Renewals == {"in time", "late"}

Receive(n, s) ==  \* "in time": it came before the lease can have run out.
  /\ n \in leads
  /\ ~(n = lead /\ s \in ended)  \* It would be refused.
  /\ probe[s].at = "net"
  /\ ~Has(todo[n][s], Renewals)
  /\ todo' = [todo EXCEPT ![n][s] = Append(@, IF n \in active /\ lease[n][s] > Drift THEN "in time" ELSE "late")]
  /\ probe' = [probe EXCEPT ![s].at = n]
  /\ UNCHANGED <<consensus, lease, confirmed, machine, belief, requests>>

Propose(n, s) ==  \* Where a later leader has become ready, what this one appends can never win.
  tail' = IF n \in active THEN [tail EXCEPT ![n] = @ \union {s}] ELSE tail

Due(n, s) ==  \* The lease is over by the leader's clock: look again behind what has arrived (ADR 8).
  /\ n \in active
  /\ lease[n][s] <= Drift
  /\ s \notin ended \union tail[n]
  /\ ~Has(todo[n][s], {"check"})
  /\ IF Broken = "expires_by_own_clock"
     THEN Propose(n, s) /\ UNCHANGED todo
     ELSE todo' = [todo EXCEPT ![n][s] = Append(@, "check")] /\ UNCHANGED tail
  /\ UNCHANGED <<lead, leads, active, lease, confirmed, machine, belief, probe, requests>>

Confirm(s) ==  \* A quorum follows the leader at this moment: a round begun after all this had arrived succeeds.
  /\ lead \in active \/ Broken = "answers_before_ready"
  /\ confirmed[lead][s] < Len(todo[lead][s])
  /\ confirmed' = [confirmed EXCEPT ![lead][s] = Len(todo[lead][s])]
  /\ UNCHANGED <<consensus, lease, todo, machine, belief, probe, requests>>

Renew(n, s) ==
  LET expiring == s \in tail[n] /\ n \in active /\ Broken # "answers_while_expiring"
      mine == probe[s].at = n
  IN IF expiring
     THEN /\ probe' = IF mine THEN [probe EXCEPT ![s] = None] ELSE probe
          /\ UNCHANGED lease
     ELSE /\ probe' = IF mine THEN [probe EXCEPT ![s].at = "told"] ELSE probe
          /\ lease' = IF n \in active THEN [lease EXCEPT ![n][s] = Ttl] ELSE lease

Serve(n, s) ==  \* Also by a leader deposed since the round: it need not know.
  LET item == Head(todo[n][s])
      rest == IF item # "check" /\ Broken # "stale_check"
              THEN SelectSeq(Tail(todo[n][s]), LAMBDA other : other # "check")  \* The lease that it was to look at is renewed.
              ELSE Tail(todo[n][s])
  IN /\ n \in leads
     /\ todo[n][s] # <<>>
     /\ confirmed[n][s] > 0 \/ (Broken = "answers_without_quorum" /\ item # "check")
     /\ todo' = [todo EXCEPT ![n][s] = rest]
     /\ confirmed' = [confirmed EXCEPT ![n][s] = Least(Less(@), Len(rest))]
     /\ IF item = "check"
        THEN /\ IF lease[n][s] <= Drift /\ s \notin ended THEN Propose(n, s) ELSE UNCHANGED tail
             /\ UNCHANGED <<lease, probe>>
        ELSE Renew(n, s) /\ UNCHANGED tail
     /\ UNCHANGED <<lead, leads, active, machine, belief, requests>>

------------------------------------------------------------------------------
(* The machine: an entry is committed and applied.                          *)

Granting(before, after, tokens) ==  \* Whoever has become the first in line is granted the lock in this entry.
  IF after # <<>> /\ (before = <<>> \/ Head(after) # Head(before))
  THEN [tokens EXCEPT ![Head(after)[1]][Head(after)[2]] = index + 1]
  ELSE tokens

Entry(after) ==
  /\ line' = after
  /\ token' = Granting(line, after, token)
  /\ index' = index + 1

Without(claim) == SelectSeq(line, LAMBDA other : other # claim)
HeldBy(s) == line # <<>> /\ Head(line)[1] = s

End(s) ==  \* All its claims go in one entry; those that wait go first, so that none of them is granted the lock on the way.
  LET after == SelectSeq(line, LAMBDA claim : claim[1] # s)
  IN /\ ended' = ended \union {s}
     /\ CASE Broken = "dead_wait_on" /\ HeldBy(s) -> Entry(Tail(line))
          [] Broken = "ends_in_one_pass" /\ HeldBy(s) ->
               /\ line' = after
               /\ token' = Granting(Tail(line), after, Granting(line, Tail(line), token))
               /\ index' = index + 1
          [] OTHER -> Entry(after)
     /\ UNCHANGED <<window, effects>>

Refuse(s) ==  \* The leader that applies a session's end has nothing good to say to what waits for it.
  /\ todo' = [todo EXCEPT ![lead][s] = <<>>]
  /\ confirmed' = [confirmed EXCEPT ![lead][s] = 0]

CommitExpire(s) ==
  /\ s \in tail[lead]
  /\ tail' = [tail EXCEPT ![lead] = @ \ {s}]
  /\ IF s \in ended THEN UNCHANGED machine ELSE End(s)
  /\ Refuse(s)
  /\ UNCHANGED <<lead, leads, active, lease, belief, probe, requests>>

CommitClose(s) ==  \* Sent by a client that closed its session, or lost it, and that listens for nothing any more.
  /\ lead \in active
  /\ belief[s] = 0
  /\ s \notin ended
  /\ End(s)
  /\ Refuse(s)
  /\ probe' = [probe EXCEPT ![s] = None]
  /\ UNCHANGED <<consensus, lease, belief, requests>>

LowWater(s) == CHOOSE low \in 0 .. Requests : (\A r \in 1 .. low : r \in got[s]) /\ (low + 1) \notin got[s]

CommitRequest(s, r, low) ==  \* Any copy of a request, sent at any time: `low` is what its client had settled then.
  /\ lead \in active
  /\ s \notin ended
  /\ r <= sent[s]
  /\ low < r /\ low <= LowWater(s)
  /\ LET forgotten == IF Broken = "forgets_numbers" THEN "unseen" ELSE "forgotten"
         known == [q \in Numbers |-> IF q <= low THEN forgotten ELSE window[s][q]]
         fresh == known[r] = "unseen" \/ Broken = "applies_repeats"
         target == IF r \in cancels[s] /\ Broken # "no_tombstone" THEN r - 1 ELSE r
         after == IF r \in Acquires THEN Append(line, <<s, r>>) ELSE Without(<<s, r - 1>>)
     IN IF fresh
        THEN /\ window' = [window EXCEPT ![s] =
                  [q \in Numbers |-> IF q \in {r, target} /\ known[q] = "unseen" THEN "seen" ELSE known[q]]]
             /\ effects' = [effects EXCEPT ![s][r] = @ + 1]
             /\ Entry(after)
             /\ UNCHANGED ended
        ELSE /\ window' = [window EXCEPT ![s] = known]
             /\ UNCHANGED <<ended, line, token, index, effects>>
  /\ UNCHANGED <<consensus, memory, belief, probe, requests>>

------------------------------------------------------------------------------
(* Clients.                                                                 *)

SendKeepAlive(s) ==
  /\ s \in Leased
  /\ belief[s] > 0
  /\ probe[s].at = "none"
  /\ probe' = [probe EXCEPT ![s] = [at |-> "net", age |-> 0]]
  /\ UNCHANGED <<consensus, memory, machine, belief, requests>>

DropLink(s) ==  \* What was sent may still be read and served; its answer finds nobody.
  /\ probe[s].at # "none"
  /\ probe' = [probe EXCEPT ![s] = None]
  /\ UNCHANGED <<consensus, memory, machine, belief, requests>>

HearKeptAlive(s) ==
  /\ probe[s].at = "told"
  /\ belief[s] > 0
  /\ belief' = [belief EXCEPT ![s] = IF Broken = "counts_from_receipt" THEN ClientTtl ELSE Most(@, ClientTtl - probe[s].age)]
  /\ probe' = [probe EXCEPT ![s] = None]
  /\ UNCHANGED <<consensus, memory, machine, requests>>

Stop(s) ==  \* The client closes, dies, or is told that its session is gone.
  /\ belief[s] > 0
  /\ belief' = [belief EXCEPT ![s] = 0]
  /\ UNCHANGED <<consensus, memory, machine, probe, requests>>

SendRequest(s) ==  \* An acquire that was granted is followed by its release, another by its Cancel.
  LET r == sent[s] + 1
  IN /\ belief[s] > 0
     /\ r <= Requests
     /\ sent' = [sent EXCEPT ![s] = r]
     /\ cancels' = IF r \notin Acquires /\ (r - 1) \notin got[s] THEN [cancels EXCEPT ![s] = @ \union {r}] ELSE cancels
     /\ UNCHANGED <<consensus, memory, machine, belief, probe, got>>

Withdrawn(s, r) == r \in Acquires /\ (r + 1) \in cancels[s]

HearAnswer(s, r) ==
  /\ belief[s] > 0
  /\ r \notin got[s]
  /\ IF r \in Acquires THEN token[s][r] > 0 /\ ~Withdrawn(s, r) ELSE effects[s][r] > 0
  /\ got' = [got EXCEPT ![s] = @ \union (IF r \in cancels[s] THEN {r - 1, r} ELSE {r})]
  /\ UNCHANGED <<consensus, memory, machine, belief, probe, sent, cancels>>

Believes(s, r) == belief[s] > 0 /\ r \in Acquires /\ r \in got[s] /\ sent[s] = r

------------------------------------------------------------------------------

Next ==
  \/ Tick
  \/ Ready
  \/ \E n \in Nodes : Elect(n) \/ StepDown(n)
  \/ \E s \in Sessions :
       \/ \E n \in Nodes : Receive(n, s) \/ Due(n, s) \/ Serve(n, s)
       \/ Confirm(s) \/ CommitExpire(s) \/ CommitClose(s)
       \/ SendKeepAlive(s) \/ DropLink(s) \/ HearKeptAlive(s) \/ Stop(s)
       \/ SendRequest(s)
       \/ \E r \in Numbers : HearAnswer(s, r) \/ \E low \in 0 .. Requests : CommitRequest(s, r, low)

Spec == Init /\ [][Next]_vars

(* A leader that stays does its work, and time passes.  Nothing is asked of clients. *)
Fairness ==
  /\ WF_vars(Tick)
  /\ \A s \in Sessions :
       /\ WF_vars(Confirm(s))
       /\ WF_vars(CommitExpire(s))
       /\ \A n \in Nodes : WF_vars(Due(n, s)) /\ WF_vars(Serve(n, s))

LiveSpec == Spec /\ Fairness

Symmetry == Permutations(Nodes) \union Permutations(Leased) \union Permutations(Sessions \ Leased)

------------------------------------------------------------------------------
(* What must hold.                                                          *)

Places == {"none", "net", "told"} \union Nodes
Claims == Sessions \X Acquires

TypesHold ==
  /\ lead \in leads /\ leads \subseteq Nodes /\ active \subseteq leads
  /\ tail \in [Nodes -> SUBSET Sessions]
  /\ lease \in [Nodes -> [Sessions -> 0 .. Unwatched]]
  /\ \A n \in Nodes, s \in Sessions : confirmed[n][s] <= Len(todo[n][s]) /\ Len(todo[n][s]) <= 2
  /\ ended \subseteq Sessions
  /\ \A i \in DOMAIN line : line[i] \in Claims
  /\ window \in [Sessions -> [Numbers -> {"unseen", "seen", "forgotten"}]]
  /\ belief \in [Sessions -> 0 .. ClientTtl]
  /\ probe \in [Sessions -> [at : Places, age : 0 .. ClientTtl]]
  /\ sent \in [Sessions -> 0 .. Requests]
  /\ cancels \in [Sessions -> SUBSET Numbers]
  /\ got \in [Sessions -> SUBSET Numbers]

OneHolderBelieves ==
  \A s, t \in Sessions : \A r, q \in Numbers : Believes(s, r) /\ Believes(t, q) => s = t /\ r = q

BeliefIsTrue ==  \* Nobody believes longer in a session, or in a grant, than the cluster does.
  /\ \A s \in Sessions : belief[s] > 0 => s \notin ended
  /\ \A s \in Sessions, r \in Numbers : Believes(s, r) => line # <<>> /\ Head(line) = <<s, r>>

NothingForTheEnded == \A i \in DOMAIN line : line[i][1] \notin ended

Granted == {claim \in Claims : token[claim[1]][claim[2]] > 0}
TokenOf(claim) == token[claim[1]][claim[2]]

TokensRise ==  \* No two grants bear one token, and the holder's is the highest ever granted.
  /\ \A one, other \in Granted : TokenOf(one) = TokenOf(other) => one = other
  /\ line # <<>> => Head(line) \in Granted /\ \A other \in Granted : TokenOf(other) <= TokenOf(Head(line))

AtMostOnce == \A s \in Sessions, r \in Numbers : effects[s][r] <= 1

AnsweredOnce ==  \* What was answered has happened once, and is asked for no more where the cluster has forgotten it.
  \A s \in Sessions, r \in Numbers :
    /\ r \in got[s] /\ ~Withdrawn(s, r) => effects[s][r] = 1
    /\ window[s][r] = "forgotten" => r \in got[s]

CancelledHoldsNothing ==
  \A s \in Sessions : \A r \in cancels[s] \intersect got[s] : Without(<<s, r - 1>>) = line

PromisesAreKept ==  \* A session whose keep-alive was answered stands for as long as the answer says.
  \A s \in Sessions : probe[s].at = "told" /\ probe[s].age < ClientTtl => s \notin ended

KeptAliveIsNotExpired ==  \* No expiry overtakes a keep-alive that was there in time.
  \A n \in Nodes, s \in Sessions : s \in tail[n] => ~Has(todo[n][s], {"in time"})

(* Where some leader stays, what a dead client holds is free in the end. *)
DeadHolderLetsGo ==
  <>[](lead \in active) => \A s \in Sessions : (belief[s] = 0 /\ HeldBy(s)) ~> ~HeldBy(s)

=============================================================================
