"""Rotation of real servers: certificates and URLs change one after the other, while owners, users and peers go on."""

import http.client
import os
import pathlib
import shutil
import socket
import ssl
import stat
import threading
import time

import pytest

from mipp.crypto.certificates import certificate_pem, make_tls
from mipp.demo.servers import free_ports
from mipp.deployment import checks, tls_files, transport
from mipp.deployment.ceremony import init_server, join_server
from mipp.deployment.rotation import rotate_server
from mipp.deployment.servers import ServerSecrets
from mipp.deployment.settings import SETTINGS_NAME
from mipp.deployment.tls_files import load_tls
from mipp.errors import AuthenticationError, DeploymentError, ParameterError, StoreError, UnreachableError
from mipp.rpc import address_book, tls
from mipp.rpc.address_book import ADDRESSES_NAME, AddressBook, Taken
from mipp.rpc.address_exchange import exchange
from mipp.rpc.address_updates import read_updates, updates_json
from mipp.rpc.bodies import ADDRESSES_PATH
from mipp.rpc.http_server import HttpServer
from tests.conftest import vectors
from tests.rpc.test_address_updates import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


def until(good, seconds=20):
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end
        time.sleep(0.01)


def shown(network, server, port=None):
    """The certificate that a server shows, whoever it is."""
    port = port or network.processes[server].http.port
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


def book(network, server):
    return network.processes[server].transport.book


def all_know(network, versions):
    until(lambda: all(book(network, i).versions == versions for i in network.processes))


def move(network, server):
    """Give a server another port; its new URL."""
    (port,) = free_ports(1)
    path = network.home(server) / SETTINGS_NAME
    path.write_text(f'listen = "127.0.0.1:{port}"\nthreads = 1\n')
    return f"https://127.0.0.1:{port}"


def connected(network):
    """Wait until all servers reach each other, both ways, and take part in changes."""
    running = network.processes.values()
    until(lambda: all(p.server.voting and all(map(p.mesh.there, p.transport.peers)) for p in running))


class Work:
    """An owner and a user of a client's folder, who change and search."""

    def __init__(self, network):
        self.client, self.seed, self.rows = network.connect(), 0, {}
        self.anna, self.ulla = self.client.create_owner("anna"), self.client.create_user("ulla")
        self.anna.grant(self.ulla.id)

    def again(self):
        data = vectors(5, self.seed)
        self.rows |= dict(zip(self.anna.add_vectors(data), data, strict=True))
        self.seed += 1
        some = list(self.rows)[-1]
        hits = self.ulla.search(self.rows[some], len(self.rows)).hits
        assert (hits[0].batch, hits[0].row) == some and len(hits) == len(self.rows)


def test_each_server_in_turn(network):
    """New certificates while an owner and a user work; the client's folder learns them, and so does one of before."""
    network.start().ready()
    shutil.copytree(network.folder / "client", network.folder / "before")
    fingerprint = network.config.fingerprint
    with network.connect() as client:
        work = Work(network)
        work.again()
        old = {i: shown(network, i) for i in network.names}
        for server in network.names:
            done = rotate_server(network.home(server), new_certificate=True)
            assert (done.server, done.version, len(done.pins)) == (server, 1, 2)
            work.again()  # the old one is shown perhaps, the new one soon
            until(lambda server=server: shown(network, server) != old[server])
            work.again()
        all_know(network, {1: 1, 2: 1, 3: 1})
        network.ready()
        for server in network.names:
            assert len(rotate_server(network.home(server), finish=True).pins) == 1
        all_know(network, {1: 2, 2: 2, 3: 2})
        connected(network)
        work.again()
        assert work.client.channel.book.versions == {1: 2, 2: 2, 3: 2}
        assert (work.client.folder / ADDRESSES_NAME).exists()
        assert all(s["ready"] and s["address_version"] == 2 for s in work.client.server_states().values())
        for server in network.names:
            home = network.home(server)
            assert not (home / "tls.key").exists() and len(list(home.glob("tls-*.key"))) == 1
            assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in home.glob("tls-*"))
            problems, facts = checks.check_server(home)
            assert not [p for p in problems if "free" not in p] and any("address of version 2" in f for f in facts)
            assert any("knows version 2 of this server's address" in f for f in facts)
            assert join_server(home, network.config) == server
        assert client.config.fingerprint == fingerprint
    # a client that was away all the time knows none of these certificates
    with type(client).open(network.folder / "before") as late:
        late.network = network
        late.create_user("uwe")
        assert AddressBook(network.config, network.folder / "before").versions == {1: 2, 2: 2, 3: 2}
    work.client.close()


def test_a_server_moves(network):
    """To another port with another certificate, after a restart; clients and peers find it through the others."""
    network.start().ready()
    work = Work(network)
    work.again()
    for server in (2, 3):
        url = move(network, server)
        network.stop(server)
        rotate_server(network.home(server), new_certificate=True, url=url, finish=server == 3)
        network.start(server).ready()
        work.again()
        assert work.client.server_states()[server]["url"] == url
    all_know(network, {1: 0, 2: 1, 3: 1})
    work.client.close()


def test_a_peer_that_was_down_catches_up(network):
    network.start().ready()
    network.stop(1)
    before = shown(network, 3)
    rotate_server(network.home(3), new_certificate=True, finish=True)
    until(lambda: shown(network, 3) != before)
    url = move(network, 2)
    network.stop(2)
    rotate_server(network.home(2), url=url)
    network.start(2)
    all_know(network, {1: 0, 2: 1, 3: 1})
    network.start(1).ready()  # it knows neither: server 3 tells its own certificate, and where server 2 is
    all_know(network, {1: 0, 2: 1, 3: 1})
    work = Work(network)
    work.again()
    work.client.close()


@pytest.mark.slow
def test_all_servers_move_at_once(network):
    """Nobody is where a client looks; a server's list of addresses, as a file, tells."""
    network.start().ready()
    urls = {server: move(network, server) for server in network.names}
    for server, url in urls.items():
        rotate_server(network.home(server), new_certificate=True, url=url)
    all_know(network, {1: 1, 2: 1, 3: 1})
    network.stop()
    network.start().ready()
    with network.connect() as client, pytest.raises(UnreachableError, match="cannot be reached"):
        client.create_user("ulla")
    shutil.copy(network.home(3) / ADDRESSES_NAME, network.folder / "client" / ADDRESSES_NAME)
    with network.connect() as client:
        client.user("ulla")  # completes its registration
        assert {i: s["url"] for i, s in client.server_states().items()} == urls


def test_a_stolen_key_is_refused(network):
    """By a client and by peers that know the update; also on connections that are open already."""
    base = network.config.addresses[1].certificate
    stolen = network.folder / "stolen"
    shutil.copytree(network.home(1), stolen)
    network.start().ready()
    pem = stolen / "tls.pem", stolen / "tls.key"
    with network.connect() as client:
        client.create_user("ulla")
        old = list(client.channel._idle[1])
        assert old and all(c.fresh for c in old)
        rotate_server(network.home(1), new_certificate=True, finish=True)
        all_know(network, {1: 1, 2: 0, 3: 0})
        connected(network)
        for peer in (2, 3):
            mesh = network.processes[peer].mesh
            until(lambda mesh=mesh: base not in [shown for _, shown in mesh._in.values()])
        connected(network)
        client.create_user("uwe")  # the replies told that there is news
        assert client.channel.book.version(1) == 1 and not any(c.fresh for c in old)
        # in place of a peer
        address = network.config.addresses[2]
        context = tls.mesh_context(*pem, [address.certificate], 1)
        try:
            sock = tls.connect("127.0.0.1", address.port, context, [address.certificate], 5, "server 2")
            assert sock.recv(1) == b""  # TLS 1.3 tells a client only then
        except (OSError, AuthenticationError):
            pass
        # in place of the server
        port = network.processes[1].http.port
        network.stop(1)
        fake = tls.server_context(*pem)
        server = HttpServer("127.0.0.1", port, lambda: fake, network.processes[2].site)
        server.start()
        try:
            with pytest.raises(AuthenticationError, match="another certificate"):
                client.channel.get(1, "/readyz")
        finally:
            server.stop()


class Quiet(AddressBook):
    """Takes nothing over."""

    def take(self, updates, *, own=False):
        return Taken()


def test_a_server_that_withholds(network, monkeypatch):
    """One server shows old addresses or none, and brings forged ones: the other tells."""
    network.start().ready()
    network.stop(3)
    rotate_server(network.home(3), new_certificate=True, finish=True)
    network.start(3).ready()
    all_know(network, {1: 0, 2: 0, 3: 1})
    quiet = Quiet(network.config)
    network.processes[1].site._book = quiet
    network.processes[1].http._extra = list
    with network.connect() as client:
        client.create_user("ulla")
        assert client.channel.book.version(3) == 1
    found = AddressBook(network.config)
    assert exchange(found, 1)[1] == {} and not found.version(3)
    quiet._updates[3] = World().update(3, 7)
    done, versions = exchange(found, 1)
    assert versions == {3: 7} and not done.changed and "another deployment" in done.refused[0]


def test_strangers_at_the_path(network):
    """Anybody may bring addresses; only signed ones are taken, and nothing else is answered there."""
    network.start(1)
    port, base = network.processes[1].http.port, network.config.addresses[1].certificate

    def post(body):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = tls.connect("127.0.0.1", port, tls.client_context(), [base], 5, "server 1")
        connection.request("POST", ADDRESSES_PATH, body)
        reply = connection.getresponse()
        found = reply.status, reply.read()
        connection.close()
        return found

    forged = updates_json([World().update(2, 1)])
    for body in (b"", b"{}", b"\xff" * 1000, b"[" * 100_000):
        assert post(body)[0] == 400
    assert post(b"x" * ((1 << 20) + 1))[0] == 413
    status, body = post(forged)
    assert status == 200 and read_updates(body) == ([], []) and book(network, 1).version(2) == 0
    sent = rotate_server(network.home(2), new_certificate=True)
    signed = (network.home(2) / ADDRESSES_NAME).read_bytes()
    assert read_updates(post(signed)[1])[0][0].version == sent.version == book(network, 1).version(2)
    assert (network.home(1) / ADDRESSES_NAME).exists()


def test_only_servers_are_spoken_to(tmp_path):
    """A URL that leads to some other TLS server: nothing is sent there."""
    made = make_tls("x", "127.0.0.1")
    (tmp_path / "key").write_bytes(made.key)
    (tmp_path / "pem").write_bytes(certificate_pem(made.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem", tmp_path / "key")
    context.num_tickets = 0
    listener, got = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with context.wrap_socket(listener.accept()[0], server_side=True) as sock:
            got.append(sock.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(UnreachableError, match="tells no addresses"):
        tls.connect_unpinned("127.0.0.1", listener.getsockname()[1], 5, "server 1")
    thread.join()
    listener.close()
    assert got == [b""]


# --- the folder -----------------------------------------------------------------------------------------------------


def test_refusals(network, tmp_path):
    home, url = network.home(1), network.config.addresses[1].url
    other = make_tls("x", "x.example")
    pem, key = tmp_path / "pem", tmp_path / "key"
    pem.write_bytes(certificate_pem(other.certificate))
    key.write_bytes(make_tls("y", "y.example").key)
    before = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}
    for options, error, said in (
        ({}, ParameterError, "nothing is to be done"),
        ({"finish": True}, ParameterError, "no earlier certificate"),
        ({"url": url}, ParameterError, "nothing is to be done"),
        ({"url": "http://n:1"}, ParameterError, "https://"),
        ({"url": "https://n:1/../x"}, ParameterError, "https://"),
        ({"certificate": pem}, ParameterError, "both"),
        ({"certificate": pem, "key": key}, ParameterError, "not that of the certificate"),
        ({"certificate": pem, "key": key, "new_certificate": True}, ParameterError, "not both"),
        ({"certificate": home / "tls.pem", "key": home / "tls.key"}, ParameterError, "valid already"),
        ({"certificate": network.home(2) / "tls.pem", "key": network.home(2) / "tls.key"}, DeploymentError, "server 2"),
    ):
        with pytest.raises(error, match=said):
            rotate_server(home, **options)
    with pytest.raises(DeploymentError, match="no folder of a server"):
        rotate_server(network.folder / "client", new_certificate=True)
    init_server(tmp_path / "alone", "cloud", "alone", "https://n:1")
    with pytest.raises(DeploymentError, match="joined no deployment"):
        rotate_server(tmp_path / "alone", new_certificate=True)
    assert {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()} == before
    shutil.copy(network.home(2) / "identity.key", home / "identity.key")
    with pytest.raises(DeploymentError, match="not those that the description names"):
        rotate_server(home, new_certificate=True)


def test_two_certificates_at_most(network, tmp_path):
    home = network.home(1)
    first = network.config.addresses[1].certificate
    rotate_server(home, new_certificate=True)
    second = AddressBook(network.config, home).certificates(1)[0]
    mine = make_tls("mine", "127.0.0.1")
    (tmp_path / "pem").write_bytes(mine.chain)
    (tmp_path / "key").write_bytes(mine.key)
    rotate_server(home, certificate=tmp_path / "pem", key=tmp_path / "key")
    assert AddressBook(network.config, home).certificates(1) == (mine.certificate, second)
    with pytest.raises(DeploymentError):
        load_tls(home, first)
    url = "https://127.0.0.1:7"
    assert rotate_server(home, url=url).url == url  # both stay
    assert AddressBook(network.config, home).certificates(1) == (mine.certificate, second)
    rotate_server(home, finish=True)
    assert AddressBook(network.config, home).certificates(1) == (mine.certificate,)
    assert load_tls(home, mine.certificate).key == mine.key
    assert sorted(p.suffix for p in home.glob("tls*")) == [".key", ".pem"]


def test_a_rotation_that_fails_changes_nothing(network, monkeypatch):
    home = network.home(1)
    before = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}

    def full(path, content):
        raise StoreError("no space")

    with monkeypatch.context() as patch:
        patch.setattr("mipp.rpc.address_book.replace_file", full)
        with pytest.raises(StoreError):
            rotate_server(home, new_certificate=True)
    assert {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()} == before
    rotate_server(home, new_certificate=True)
    network.start().ready()


@pytest.mark.slow
def test_a_rotation_that_is_killed_leaves_a_server(network):
    """At each file that it writes or removes: the server starts with what is valid, and the next rotation works."""
    home, copy, step = network.home(1), network.folder / "copy", 0
    rotate_server(home, new_certificate=True)
    while True:
        step += 1
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home, copy)
        if (pid := os.fork()) == 0:
            left = [step]

            def dying(real, left=left):
                def call(*args, **options):
                    left[0] -= 1
                    if not left[0]:
                        os._exit(9)
                    return real(*args, **options)

                return call

            for module in (tls_files, address_book):
                module.replace_file = dying(module.replace_file)
            pathlib.Path.unlink = dying(pathlib.Path.unlink)
            rotate_server(copy, new_certificate=True, finish=step % 2 == 0)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        made = transport.Transport(copy, network.config, 1)
        newest = made.book.certificates(1)[0]
        assert load_tls(copy, newest).certificate == newest
        done = rotate_server(copy, new_certificate=True, finish=True)
        assert done.version == made.book.version(1) + 1 and len(list(copy.glob("tls*"))) == 2
        if not ended:
            break
    assert step > 5


@pytest.mark.slow
def test_a_restored_folder(network):
    """Its backup knows neither the newest certificate nor its key: the others tell, and another rotation ends it."""
    home, backup = network.home(1), network.folder / "backup"
    shutil.copytree(home, backup)
    network.start().ready()
    rotate_server(home, new_certificate=True, finish=True)
    all_know(network, {1: 1, 2: 0, 3: 0})
    network.stop(1)
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    network.start(1)
    all_know(network, {1: 1, 2: 0, 3: 0})
    # soon in its file, too
    until(lambda: any(f"mipp server rotate {home} --new-certificate" in p for p in checks.check_server(home)[0]))
    rotate_server(network.home(2), new_certificate=True, finish=True)  # others' addresses count all the same
    all_know(network, {1: 1, 2: 1, 3: 0})
    peers = network.processes[1].transport
    until(lambda: network.config.addresses[2].certificate not in peers.peers[2].certificates)
    network.stop(1)
    with pytest.raises(DeploymentError, match="--new-certificate --finish"):
        network.start(1)
    assert rotate_server(home, new_certificate=True, finish=True).version == 2
    network.start(1).ready()
    assert ServerSecrets.load(home).public() == network.config.servers[1]


def test_a_server_that_signs_twice(network):
    """Each of the others keeps what it heard first, and says so; the next version ends it."""
    home, copy = network.home(1), network.folder / "copy"
    shutil.copytree(home, copy)
    rotate_server(home, new_certificate=True)
    rotate_server(copy, new_certificate=True)
    network.start().ready()
    all_know(network, {1: 1, 2: 0, 3: 0})
    (other,), _ = read_updates((copy / ADDRESSES_NAME).read_bytes())
    assert "signed two" in book(network, 2).take([other]).refused[0]
    assert any("signed two different addresses" in p for p in checks.check_server(network.home(2))[0])
    client = AddressBook(network.config, network.folder / "client")
    client.take([other]), exchange(client, 2)
    with network.connect() as opened:
        assert "signed two different addresses" in opened.notes[0]
    rotate_server(home, new_certificate=True)
    all_know(network, {1: 2, 2: 0, 3: 0})
    assert not book(network, 2).conflicts
