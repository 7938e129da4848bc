"""The rendezvous alone: the order of starts, refusals, and what it keeps."""

import pytest

from mipp.errors import AccessDeniedError, BusyError, MippError, ProtocolError
from mipp.server import rendezvous as rendezvous_module
from mipp.server.rendezvous import RUNNING, LocalRendezvous


class Ticket:
    servers = (1, 2, 3)

    def __init__(self):
        self.started, self.error = None, None

    def go(self, attempt, link):
        assert self.started is None and self.error is None
        self.started = attempt

    def refused(self, error):
        assert self.started is None and self.error is None
        self.error = error


def test_rankings_start_in_the_order_in_which_they_are_complete():
    meet, tickets = LocalRendezvous(), {}

    def have(key, server):
        tickets[key, server] = Ticket()
        meet.have((b"u", key), server, tickets[key, server])

    names = list(range(RUNNING + 3))
    for server in (1, 2):
        for name in names:
            have(name, server)
    assert not any(t.started for t in tickets.values())
    order = names[::-1]
    for name in order:
        have(name, 3)

    def started():
        return [n for n in order if all(tickets[n, s].started for s in (1, 2, 3))]

    assert started() == order[:RUNNING]
    attempts = {n: {tickets[n, s].started for s in (1, 2, 3)} for n in started()}
    assert all(len(a) == 1 for a in attempts.values()) and len(set.union(*attempts.values())) == RUNNING
    for done, name in enumerate(order):
        attempt = tickets[name, 1].started
        for server in (1, 2, 3):
            assert started() == order[: RUNNING + done]  # the slot is free when all three have ended
            meet.done(attempt, server)
            meet.done(attempt, server)
    assert started() == order and not meet._running and not meet._complete and not meet._gathering


def test_users_with_the_same_hash_do_not_meet():
    meet, tickets = LocalRendezvous(), [Ticket() for _ in range(4)]
    for server, user, ticket in ((1, b"a", 0), (2, b"a", 1), (3, b"b", 2)):
        meet.have((user, b"h"), server, tickets[ticket])
    meet.refuse((b"b", b"h"), 2, AccessDeniedError("no"))
    assert isinstance(tickets[2].error, AccessDeniedError)
    assert not any(t.started or t.error for t in tickets[:2])
    meet.have((b"a", b"h"), 3, tickets[3])
    assert all(tickets[t].started for t in (0, 1, 3))


def test_refusals_are_remembered_in_bounded_number(monkeypatch):
    monkeypatch.setattr(rendezvous_module, "USER_REFUSALS", 3)
    monkeypatch.setattr(rendezvous_module, "REFUSALS", 5)
    now = [0.0]
    meet = LocalRendezvous(lambda: now[0])
    for number in range(20):
        meet.refuse((b"a", number), 1, AccessDeniedError("no"))
    assert [key for _, key in meet._refusals[1]] == [17, 18, 19]
    for number in range(20):
        meet.refuse((bytes([number]), 0), 1, ZeroDivisionError("a secret"))
    assert len(meet._refusals[1]) == 5
    late = Ticket()
    meet.have((b"\x13", 0), 2, late)
    assert isinstance(late.error, MippError) and "secret" not in str(late.error)
    now[0] += rendezvous_module.GATHER_LIMIT
    meet.sweep()
    assert not meet._refusals


def test_a_server_that_refused_may_come_again():
    meet, tickets = LocalRendezvous(), [Ticket() for _ in range(4)]
    meet.refuse((b"a", b"h"), 3, AccessDeniedError("no"))
    meet.have((b"a", b"h"), 1, tickets[0])
    assert isinstance(tickets[0].error, AccessDeniedError)
    for server in (3, 1, 2):
        meet.have((b"a", b"h"), server, tickets[server])
    assert all(t.started for t in tickets[1:])


def test_a_refusal_of_a_complete_query_that_waits_for_its_turn():
    meet, tickets = LocalRendezvous(running=0), [Ticket() for _ in range(3)]
    for server, ticket in enumerate(tickets, 1):
        meet.have((b"a", b"h"), server, ticket)
    meet.sweep()
    assert not any(t.error for t in tickets)  # its turn comes, however long it waits
    meet.refuse((b"a", b"h"), 1, ProtocolError("the server stops"))
    assert all(isinstance(t.error, ProtocolError) for t in tickets) and not meet._refusals


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("by", [2, 4])
def test_a_refusal_waits_until_it_is_known_whose_query_it_is(first, by):
    """Of four servers, three have a query; what a cloud says of it counts once the key centre has told which."""
    meet, tickets, key = (
        LocalRendezvous(servers=(1, 2, 3, 4), always=(3,)),
        {s: Ticket() for s in (1, 2, 3)},
        (b"u", b"h"),
    )
    tickets[1].servers = tickets[2].servers = ()  # a cloud's word is not taken for it
    if first:
        meet.refuse(key, by, BusyError("no"))
    meet.have(key, 1, tickets[1])
    if not first:
        meet.refuse(key, by, BusyError("no"))
    assert tickets[1].error is None and not tickets[1].started
    meet.have(key, 3, tickets[3])
    if by == 4:
        meet.have(key, 2, tickets[2])
        assert all(t.started and t.error is None for t in tickets.values())
    else:
        assert all(isinstance(tickets[s].error, BusyError) and not tickets[s].started for s in (1, 3))


FLOODS = {
    "nothing": [],
    "the query itself": [(b"u", b"h")],
    "queries of its user": [(b"u", n) for n in range(rendezvous_module.USER_REFUSALS + 1)],
    "queries of others": [(n, b"h") for n in range(rendezvous_module.REFUSALS + 1)],
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("order", [(1, 3), (3, 1)])
def test_a_cloud_displaces_no_refusal_of_another(flood, before, order):
    """Of four servers the fourth has no part in the query; what it refuses hides nothing that server 2 said."""
    meet, key = LocalRendezvous(servers=(1, 2, 3, 4), always=(3,)), (b"u", b"h")
    tickets = {s: Ticket() for s in order}
    tickets[1].servers = ()

    def refuse_others():
        for other in FLOODS[flood]:
            meet.refuse(other, 4, BusyError("no"))

    if before:
        refuse_others()
    meet.refuse(key, 2, AccessDeniedError("no grant"))
    if not before:
        refuse_others()
    for server in order:
        meet.have(key, server, tickets[server])
    assert all(isinstance(t.error, AccessDeniedError) for t in tickets.values())
    assert all(len(of) <= rendezvous_module.REFUSALS for of in meet._refusals.values())
    assert not any(key in of for of in meet._refusals.values())


def test_clouds_that_both_refused_may_come_again():
    """Refusals of one attempt are one: a later attempt meets none that is left over."""
    for refusing in ((1, 2, 3), (3, 1, 2), (1, 3), (2, 1), (1, 2, 4)):
        meet, key = LocalRendezvous(servers=(1, 2, 3, 4), always=(3,)), (b"u", b"h")
        for server in refusing:
            meet.refuse(key, server, BusyError("no"))
        for server in {1, 2, 3} - set(refusing):
            ticket = Ticket()
            ticket.servers = (1, 2, 3) if server == 3 else ()
            meet.have(key, server, ticket)
            assert isinstance(ticket.error, BusyError), (refusing, server)
        tickets = {server: Ticket() for server in (3, 1, 2)}
        tickets[1].servers = tickets[2].servers = ()
        for server, ticket in tickets.items():
            meet.have(key, server, ticket)
        assert all(t.started for t in tickets.values()), refusing
        assert not meet._refusals
