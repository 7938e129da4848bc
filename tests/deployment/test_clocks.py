"""A server whose clock is wrong: clients sign in each receiver's clock, and nobody else's is touched."""

import time

import pytest

import mipp
from mipp.rpc.bodies import TIME_HEADER
from mipp.rpc.http_channel import MAX_AHEAD, HttpChannel
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import QUERY, Hosted, Plain, found, some

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ahead", some([600, -600, 86400, -86400], -600, 86400))
def test_one_clock_is_wrong(tmp_path, ahead):
    net = Hosted(tmp_path / "net", mipp.Encoding("cosine", DIM))
    try:
        net.start(1).start(2, clock=ahead).start(3)
        net.agreed()
        with net.connect() as client:
            # the registrar's invitation ends soon: one that would be over at this server is for another test
            kept = {"seconds": 3 * 86400}
            owner = client.create_owner("anna", invitation=net.invitation("owner", "anna", **kept))
            user = client.create_user("ulla", invitation=net.invitation("user", "ulla", **kept))
            owner.grant(user.id, rankings=ALL_RANKINGS)
            x = vectors(8)
            plain = Plain(net.config.encoding)
            plain.rows = dict(zip(owner.add_vectors(x), x, strict=True))
            assert found(user) == plain.scores(QUERY)
            assert found(user, "server", k=3) == plain.scores(QUERY)[:3]
            assert abs(client.channel.ahead(2) - ahead) < 5
            assert abs(client.channel.ahead(1)) < 5
            # the clock is put right: the refusal tells it, and the request is signed again
            net.kill(2)
            net.start(2)
            net.agreed()
            assert found(user) == plain.scores(QUERY)
    finally:
        net.stop()


@pytest.mark.parametrize(
    "told", ["", "x", "-5", "1" * 30, pytest.param(str(int((time.time() + 2 * MAX_AHEAD) * 1000)), id="far"), "٣"]
)
def test_a_clock_that_is_none(told):
    channel = HttpChannel.__new__(HttpChannel)
    channel._ahead = {}
    channel._note_clock(1, told)
    assert channel.ahead(1) == 0


def test_a_lying_clock_reaches_its_server_alone(tmp_path):
    """Requests for other servers, and what is signed for all, bear this machine's time."""
    net = Hosted(tmp_path / "net", mipp.Encoding("cosine", DIM))
    with net.connect() as client:
        from mipp.client.client import Client
        from mipp.rpc import messages as m
        from mipp.rpc.wire import decode

        client.channel._note_clock(2, str(int((time.time() + 9e6) * 1000)))
        asker = Client("anna", net.config, client.channel, bytes(32))
        asker.id, asker.ahead = bytes(16), client.channel.ahead
        issued = {s: decode(asker.sign(m.HeadRequest(bytes(16)), s)).issued / 1000 - time.time() for s in (1, 2, 3)}
        assert abs(issued[1]) < 5 and abs(issued[3]) < 5 and abs(issued[2] - 9e6) < 5
        assert abs(decode(asker.sign(m.AbortOp(bytes(16)), 2)).issued / 1000 - time.time()) < 5
    assert TIME_HEADER == "mipp-time"
