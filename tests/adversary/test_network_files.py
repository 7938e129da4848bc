"""A server's folder that somebody changed: it does not start, and says why."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from mipp.crypto import certificates
from mipp.deployment.serving import ServerProcess
from mipp.errors import DeploymentError
from mipp.rpc.local_socket import SOCKET_NAME
from tests.network import Network

pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path, encoding):
    return Network(tmp_path, encoding)


def other_pem(network):
    (network.home(1) / "tls.pem").write_bytes((network.home(2) / "tls.pem").read_bytes())


def others_identity(network):
    other_pem(network)
    (network.home(1) / "tls.key").write_bytes((network.home(2) / "tls.key").read_bytes())


def no_key(network):
    (network.home(1) / "tls.key").unlink()


def key_for_all(network):
    os.chmod(network.home(1) / "tls.key", 0o644)


def folder_for_socket(network):
    (network.home(1) / SOCKET_NAME).mkdir()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_pem, "key"),
        (others_identity, "not the certificate"),
        (no_key, "tls.key"),
        (key_for_all, "readable by others"),
        (folder_for_socket, SOCKET_NAME),
    ],
)
def test_a_changed_folder_is_refused(network, change, text):
    change(network)
    with pytest.raises(DeploymentError, match=text):
        ServerProcess(network.home(1))


def test_a_link_in_the_sockets_place_is_not_followed(network, tmp_path):
    target = tmp_path / "target"
    target.write_text("x")
    (network.home(1) / SOCKET_NAME).symlink_to(target)
    network.start(1)
    try:
        assert (network.home(1) / SOCKET_NAME).is_socket() and target.read_text() == "x"
    finally:
        network.stop()


def test_a_certificate_whose_dates_do_not_fit_still_serves(tmp_path, encoding, monkeypatch):
    """Its whole is compared, so its dates say nothing; else all servers would stop on one day."""
    made = certificates.make_tls
    later = datetime.now(UTC) + timedelta(days=400)
    monkeypatch.setattr("mipp.deployment.ceremony.make_tls", lambda name, host: made(name, host, now=later))
    monkeypatch.setattr("mipp.deployment.ceremony.check_tls", lambda *_: None)  # they joined in time
    Network(tmp_path, encoding).start().ready().stop()
