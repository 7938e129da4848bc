"""A third cloud joins a deployment that runs: servers sign, operators and clients take it, owners consent."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import mipp
from mipp.crypto import schedule, signing
from mipp.demo.servers import free_ports
from mipp.deployment.ceremony import (
    assemble,
    connect_folder,
    init_server,
    join_server,
    read_description,
    sign_description,
)
from mipp.deployment.rotation import rotate_server
from mipp.deployment.servers import ServerSecrets
from mipp.deployment.settings import SETTINGS_NAME
from mipp.errors import AccessDeniedError, DeploymentError, MippError
from mipp.io.durable import replace_file
from mipp.params import Params
from mipp.rpc import peer_messages as pm
from mipp.rpc.description import DeploymentConfig
from mipp.rpc.membership import check_next, proposed, signed_by
from mipp.rpc.wire import encode
from tests.clouds.test_away import agree, until
from tests.conftest import ALL_RANKINGS, server_card, three_cards, vectors
from tests.network import Network


class Signers:
    """A deployment's description, and the identities of its servers."""

    def __init__(self, encoding):
        self.secrets = [ServerSecrets.new() for _ in range(3)]
        cards = three_cards()
        config = assemble(cards, encoding)
        servers = {i: secret.public() for i, secret in enumerate(self.secrets, 1)}
        self.config = dataclasses.replace(config, servers=servers)

    def sign(self, config, *servers):
        for i in servers:
            config = signed_by(config, i, signing.private_key(self.secrets[i - 1].sign))
        return config


@pytest.fixture
def signers(encoding):
    return Signers(encoding)


def test_the_next_version(signers):
    card = server_card(name="west")
    later = proposed(signers.config, card)
    assert later.params == Params(n=4, t=1) and later.version == 2 and later.addresses[4] == card.address
    assert later.params_hash == signers.config.params_hash  # stored files stay as they are
    for few in ((), (2,)):
        with pytest.raises(DeploymentError, match="2 must"):
            check_next(signers.config, signers.sign(later, *few))
    for enough in ((1, 2), (2, 3), (1, 2, 3)):
        signed = signers.sign(later, *enough)
        assert check_next(signers.config, signed) == 4
        again = DeploymentConfig.from_json(signed.to_json())
        assert again == signed and again.fingerprint == later.fingerprint == signed.fingerprint


def test_what_is_no_next_version(signers, encoding):
    later = proposed(signers.config, server_card(name="west"))
    other = dataclasses.replace(later.addresses[1], url="https://elsewhere.example:1")
    own = ServerSecrets.new()
    changed = [
        dataclasses.replace(later, registrar=bytes(32)),
        dataclasses.replace(later, version=3),
        dataclasses.replace(later, id=bytes(16)),
        dataclasses.replace(later, addresses={**later.addresses, 1: other}),
        dataclasses.replace(later, servers={**later.servers, 3: own.public()}),
        dataclasses.replace(later, rankings=("user",)),
        dataclasses.replace(later, encoding=mipp.Encoding("cosine", encoding.dim, bits=7)),
        dataclasses.replace(signers.config, version=2),
        signers.config,
    ]
    for config in changed:
        with pytest.raises(DeploymentError):
            check_next(signers.config, signers.sign(config, 1, 2, 3))
    signed = signers.sign(later, 1, 2)
    for wrong in (
        {1: signed.signatures[1], 2: signed.signatures[1]},  # one server twice
        {1: signed.signatures[1], 4: signed_by(later, 4, signing.private_key(own.sign)).signatures[4]},  # the new one
        {1: signed.signatures[1], 2: bytes(64)},
        signers.sign(proposed(signers.config, server_card(name="east")), 1, 2).signatures,  # of another cloud
    ):
        with pytest.raises(DeploymentError, match=r"not valid|no server of the version"):
            check_next(signers.config, dataclasses.replace(later, signatures=wrong))


def test_who_cannot_join(signers, tmp_path, encoding):
    with pytest.raises(DeploymentError, match="key-centre"):
        proposed(signers.config, server_card("key-centre", "west"))
    for card in (server_card(name="north"), server_card(name="west", url="https://north.example:7443")):
        with pytest.raises(DeploymentError):
            proposed(signers.config, card)
    four = proposed(signers.config, server_card(name="west"))
    with pytest.raises(DeploymentError, match=r"3 clouds .* takes no further one"):
        proposed(four, server_card(name="east"))
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        config = deployment.config
    with pytest.raises(DeploymentError, match="embedded"):
        proposed(config, server_card(name="west"))
    with pytest.raises(DeploymentError, match="takes no further one"):
        two = [server_card(), server_card("key-centre", "mid")]
        proposed(assemble(two, encoding), server_card(name="west"))


def test_descriptions_with_wrong_signatures_are_corrupt(signers):
    text = signers.sign(proposed(signers.config, server_card(name="west")), 1, 2).to_json()
    for change in ({"signatures": {"1": "00"}}, {"signatures": []}, {"signatures": {"x": "00" * 64}}):
        with pytest.raises(DeploymentError, match="corrupt"):
            DeploymentConfig.from_json(json.dumps(json.loads(text) | change))


def test_a_server_signs_one_description_of_a_version(tmp_path, encoding):
    network = Network(tmp_path, encoding)
    later, other = (proposed(network.config, server_card(name=name)) for name in ("west", "east"))
    first = sign_description(network.home(1), later)
    assert sign_description(network.home(1), first).signatures == first.signatures  # again is fine
    with pytest.raises(DeploymentError, match="signed another description of version 2"):
        sign_description(network.home(1), other)
    assert list(sign_description(network.home(2), first).signatures) == [1, 2]
    with pytest.raises(DeploymentError, match="has this version already"):
        sign_description(network.home(2), network.config)


# --- over a network -------------------------------------------------------------------------------------------------


class Growing(Network):
    """Servers of a deployment of two clouds, and a third one that joins."""

    def grow(self, *signing_servers):
        (port,) = free_ports(1)
        card = init_server(self.folder / "cloud4", "cloud", "cloud4", f"https://127.0.0.1:{port}")
        later = proposed(self.config, card)
        for server in signing_servers:
            later = sign_description(self.home(server), later)
        settings = f'listen = "127.0.0.1:{port}"\nthreads = 1\nrepair = false\n'
        replace_file(self.folder / "cloud4" / SETTINGS_NAME, settings.encode())
        if len(signing_servers) > 1:
            join_server(self.folder / "cloud4", later)
        self.names = {**self.names, 4: "cloud4"}
        return later


@pytest.fixture
def growing(tmp_path, encoding):
    made = Growing(tmp_path, encoding)
    yield made.start().ready()
    made.stop()


@pytest.mark.slow
def test_a_cloud_joins_a_deployment_that_runs(growing, encoding):
    x = vectors(60)
    with growing.connect() as before:
        anna, bob, ulla = before.create_owner("anna"), before.create_owner("bob"), before.create_user("ulla")
        ids = anna.add_vectors(x[:20], [("a.png", b"...")] * 20)
        others = bob.add_vectors(x[20:40])
        for owner in (anna, bob):
            owner.grant(ulla.id, rankings=ALL_RANKINGS)
        later = growing.grow(1, 3)
        # one server after the other takes it, while the others and an old client go on
        for server in (3, 1, 2):
            growing.stop(server)
            assert join_server(growing.home(server), later) == server
            growing.start(server)
            if server != 2:
                until(lambda: all(p.server.ready for p in growing.processes.values()))
                assert ulla.search(x[3], 1, ranking="user").hits[0].row == 3
        growing.start(4).ready()
        # a client that has not heard of it goes on, too
        ids += anna.add_vectors(x[40:50])
        assert ulla.search(x[45], 1, ranking="server").hits[0].id == f"{ids[25][0].hex()}:5"
    assert not growing.processes[4].server.store.chains.heads()  # nobody consented
    connect_folder(growing.folder / "client", later, None)
    with growing.connect() as client:
        anna, bob, ulla = client.owner("anna"), client.owner("bob"), client.user("ulla")
        assert [note for note in client.notes if "mipp owner reseal" in note] and len(client.notes) == 2
        assert anna.away.now() == {4}
        # owners who have not consented go on as before, and their rows go to the three servers of before
        ids += anna.add_vectors(x[50:55])
        for _ in range(4):
            found = ulla.nearest(x[[3, 25]], 1, ranking="user")
            assert found.index.servers == (1, 2, 3) and not found.left_out and found.index.total == 55
        # nobody can have the shares of one who has not
        wanted = [pm.BeginCompletion(4, anna.id, ids[0][0], np.empty(0, "<i8"))] * 2
        wanted.append(pm.PackRequest(4, anna.id, ids[0][0], b"", 0))
        for msg, holder in zip(wanted, (1, 3, 2), strict=True):
            with pytest.raises(AccessDeniedError, match="has not consented"):
                growing.processes[4].channel.gather({holder: encode(msg)})
        client.reseal(anna)
        assert anna.away.now() == frozenset()
        until(lambda: anna.id in growing.processes[4].server.store.chains.heads())
        until(lambda: growing.processes[4].server.store.chains.heads()[anna.id][0] == 3)
        done, problems = growing.processes[4].repairer.repair()
        assert (done, problems) == (4, [])  # three shares, and one pack of images
        hashes = [b.share_hash for b in growing.processes[4].server.store.repairs.lost_batches(read=True)]
        assert not hashes
        used = set()
        for _ in range(6):
            found = ulla.nearest(x[[3, 52]], 1, owners="anna", ranking="user")
            assert [found.index.ids()[r] for r in found.rows[:, 0]] == [ids[3], ids[32]] and found.verified
            used.add(found.index.servers)
            assert ulla.nearest(x[[3, 52]], 1, owners="anna", ranking="server").rows[:, 0].tolist() == [3, 32]
        assert used == {(1, 2, 3), (1, 3, 4), (2, 3, 4)}
        # tags of what was uploaded before are made by comparing the clouds
        assert not anna.audit().ok and len(anna.renew_tags()) == 2 and anna.audit().ok
        # over both owners, those servers that have all
        found = ulla.nearest(x[[3, 25]], 1, ranking="user")
        assert found.index.servers == (1, 2, 3) and found.index.total == 55
        assert [found.index.ids()[r] for r in found.rows[:, 0]] == [ids[3], others[5]]
        client.reseal(bob)
        until(lambda: bob.id in growing.processes[4].server.store.chains.heads())
        agree(growing)
        growing.processes[4].repairer.repair()
        growing.stop(2)
        found = ulla.nearest(x[[3, 25]], 1, ranking="server")
        assert found.index.servers == (1, 3, 4) and found.index.total == 55
    with growing.connect() as again:
        assert not again.notes and again.owner("anna").away.now() <= {2}


@pytest.mark.slow
def test_what_is_refused(growing, tmp_path):
    unsigned = growing.grow(2)
    with pytest.raises(DeploymentError, match="2 must"):
        join_server(growing.folder / "cloud4", unsigned)
    with pytest.raises(DeploymentError, match="joined no deployment yet"):
        sign_description(growing.folder / "cloud4", unsigned)
    with pytest.raises(DeploymentError, match="2 must"):
        join_server(growing.home(2), unsigned)
    with pytest.raises(DeploymentError, match="2 must"):
        connect_folder(growing.folder / "client", unsigned, None)
    signed = sign_description(growing.home(1), unsigned)
    with pytest.raises(DeploymentError, match="needs the fingerprint"):
        connect_folder(tmp_path / "new", signed, None)
    for given in (unsigned, signed):
        with pytest.raises(MippError):
            connect_folder(tmp_path / "new", given, growing.config.fingerprint)
    with pytest.raises(DeploymentError, match="2 must"):
        connect_folder(tmp_path / "new", unsigned, unsigned.fingerprint)
    growing.stop()
    for server in (1, 2, 3):
        join_server(growing.home(server), signed)
        join_server(growing.home(server), signed)
        with pytest.raises(DeploymentError, match="another version"):
            join_server(growing.home(server), growing.config)
    connect_folder(growing.folder / "client", signed, signed.fingerprint)
    with pytest.raises(DeploymentError, match="another version"):
        connect_folder(growing.folder / "client", growing.config, growing.config.fingerprint)
    assert read_description(growing.home(3)) == signed


@pytest.mark.slow
def test_an_owner_cannot_change_its_secrets_by_consenting(growing):
    with growing.connect() as client:
        anna = client.create_owner("anna")
        anna.add_vectors(vectors(5))
    later = growing.grow(1, 2)
    growing.stop()
    for server in (1, 2, 3):
        join_server(growing.home(server), later)
    growing.start().ready()
    connect_folder(growing.folder / "client", later, None)
    with growing.connect() as client:
        anna = client.owner("anna")
        real = anna.image_parts
        anna.image_parts = lambda: (real()[0], schedule.random_bytes(32))
        with pytest.raises(AccessDeniedError, match="other secrets"):
            client.reseal(anna)
        anna.image_parts = real
        client.reseal(anna)
        client.reseal(anna)


@pytest.mark.slow
@pytest.mark.parametrize("server", [pytest.param(2, marks=pytest.mark.nightly), 3])
def test_a_restore_after_a_cloud_joined(growing, server):
    """It takes over owners who registered before the cloud joined, and have not consented."""
    growing.stop(server)
    shutil.copytree(growing.home(server), growing.folder / "saved", ignore=shutil.ignore_patterns("*.sock"))
    growing.start(server).ready()
    x = vectors(9)
    with growing.connect() as client:
        bob, ulla = client.create_owner("bob"), client.create_user("ulla")
        bob.add_vectors(x[:5])
        bob.grant(ulla.id, rankings=ALL_RANKINGS)
    later = growing.grow(1, 3)
    growing.stop()
    for one in (1, 2, 3):
        join_server(growing.home(one), later)
    growing.start().ready()
    growing.stop(server)
    shutil.rmtree(growing.home(server))
    shutil.copytree(growing.folder / "saved", growing.home(server))
    join_server(growing.home(server), later)
    growing.start(server).ready(30)
    if server == 2:
        growing.processes[server].repairer.repair()
    connect_folder(growing.folder / "client", later, None)
    with growing.connect() as client:
        bob, ulla = client.owner("bob"), client.user("ulla")
        until(lambda: ulla.nearest(x[:5], 1, ranking="user").rows[:, 0].tolist() == list(range(5)))
        bob.add_vectors(x[5:])
        client.reseal(bob)
        agree(growing)
        growing.processes[4].repairer.repair()
        assert ulla.nearest(x, 1, ranking="server").rows[:, 0].tolist() == list(range(9))


@pytest.mark.slow
def test_clients_of_the_version_before_after_a_rotation(growing):
    """They name keys of the servers that they know."""
    x = vectors(9)
    with growing.connect() as before:
        anna, ulla = before.create_owner("anna"), before.create_user("ulla")
        anna.add_vectors(x)
        anna.grant(ulla.id, rankings=ALL_RANKINGS)
        rotate_server(growing.home(1), new_keys=True)
        rotate_server(growing.home(1), finish=True)
        later = growing.grow(1, 2)
        growing.stop()
        for server in (1, 2, 3):
            join_server(growing.home(server), later)
        growing.start().ready()
        for ranking in ("user", "server"):
            until(lambda ranking=ranking: ulla.nearest(x, 1, ranking=ranking).rows[:, 0].tolist() == list(range(9)))
        new = before.create_owner("new")  # who has not heard of it registers, and is stored at the two clouds
        new.add_vectors(x)
    assert not growing.processes[4].server.store.chains.heads()
