"""The ceremony: servers' folders, the description, joining, clients' folders; refusals leave nothing behind."""

import contextlib
import dataclasses
import errno
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import mipp
from mipp.crypto.certificates import make_tls
from mipp.deployment import ceremony
from mipp.deployment.ceremony import assemble, connect_folder, init_server, join_server, read_card, read_description
from mipp.deployment.servers import ServerSecrets, server_class
from mipp.errors import DeploymentError, DTypeError, KeyFileError, ParameterError, ScoreRangeError
from mipp.rpc.addresses import Address
from mipp.rpc.description import DeploymentConfig
from tests.conftest import DIM, embedded_only, server_card, three_cards

ENCODING = mipp.Encoding("cosine", DIM)
#: differences of its scores can wrap
WIDE = mipp.Encoding("ip", 4, bits=8, query_bits=8, ring_bits=16, row_norm2=127**2, query_norm2=257**2)
FILES = {"server.key", "identity.key", "tls.key", "tls.pem", "server.toml", "card.json"}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folders(tmp_path):
    """Folders of three servers, which did not join."""
    for name, role in (("north", "cloud"), ("south", "cloud"), ("mid", "key-centre")):
        init_server(tmp_path / name, role, name, f"https://{name}.example:7443")
    return [tmp_path / name for name in ("north", "south", "mid")]


@pytest.fixture
def description(folders):
    return assemble([read_card(f) for f in folders], ENCODING)


# --- a server's folder ----------------------------------------------------------------------------------------------


def test_a_new_server(tmp_path):
    folder = tmp_path / "deep" / "north"
    card = init_server(folder, "cloud", "north", "https://North.example:7443")
    assert {p.name for p in folder.iterdir()} == FILES and mode(folder) == 0o700
    assert all(mode(folder / name) == 0o600 for name in ("server.key", "identity.key", "tls.key"))
    assert read_card(folder) == card == read_card(folder / "card.json") and card.url == "https://north.example:7443"
    secrets = ServerSecrets.load(folder)
    public = secrets.public()
    assert (public.box, public.pair, public.sign) == (card.box, card.pair, card.sign)
    for secret in secrets:
        assert secret not in (folder / "card.json").read_bytes() and secret.hex() not in card.to_json()
        assert secret.hex() not in repr(secrets) and repr(secret) not in repr(secrets)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["north"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "north").mkdir(mode=0o755)
    init_server(tmp_path / "north", "cloud", "north", "https://north.example:7443")
    assert mode(tmp_path / "north") == 0o700


def test_used_folders(tmp_path):
    used, file, link = tmp_path / "used", tmp_path / "file", tmp_path / "link"
    used.mkdir()
    (used / "photo.png").write_bytes(b"x")
    file.write_bytes(b"y")
    link.symlink_to(tmp_path / "nowhere")
    before = contents(tmp_path)
    for folder in (used, file, link):
        with pytest.raises(DeploymentError, match="is used"):
            init_server(folder, "cloud", "north", "https://north.example:7443")
    init_server(tmp_path / "north", "cloud", "north", "https://north.example:7443")
    before |= {p.relative_to(tmp_path): p.read_bytes() for p in (tmp_path / "north").iterdir()}
    with pytest.raises(DeploymentError, match="is used"):
        init_server(tmp_path / "north", "cloud", "north", "https://north.example:7443")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("values", [
    ("boss", "north", "https://n:1"), ("cloud", "a b", "https://n:1"), ("cloud", "a\x1b[2J", "https://n:1"),
    ("cloud", "north", "http://n:1"), ("cloud", "north", "https://n"), ("cloud", "\u00e9" * 40, "https://n:1"),
])  # fmt: skip
def test_bad_values_write_nothing(tmp_path, values):
    with pytest.raises(ParameterError) as error:
        init_server(tmp_path / "s", *values)
    assert not list(tmp_path.iterdir()) and str(error.value).isprintable()


def test_operators_certificate(tmp_path):
    tls, other = make_tls("north", "north.example"), make_tls("north", "north.example")
    pem, key, wrong = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "w.pem"
    pem.write_bytes(tls.chain)
    key.write_bytes(tls.key)
    wrong.write_bytes(other.key)
    for given in ((pem, None), (None, key), (pem, wrong), (key, key)):
        with pytest.raises(ParameterError):
            init_server(tmp_path / "s", "cloud", "north", "https://n:1", *given)
    with pytest.raises(DeploymentError, match="cannot read"):
        init_server(tmp_path / "s", "cloud", "north", "https://n:1", tmp_path / "gone", key)
    assert not (tmp_path / "s").exists()
    card = init_server(tmp_path / "s", "cloud", "north", "https://n:1", pem, key)
    assert card.certificate == tls.certificate and (tmp_path / "s" / "tls.pem").read_bytes() == tls.chain
    assert mode(tmp_path / "s" / "tls.key") == 0o600


@pytest.mark.parametrize("number", range(12))
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, number):
    """The n-th sync fails, whatever it is of."""
    left, real = [number], os.fsync

    def fsync(fd):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DeploymentError, match="No space left"):
        init_server(tmp_path / "north", "cloud", "north", "https://north.example:7443")
    assert not list(tmp_path.iterdir())


# --- the description ------------------------------------------------------------------------------------------------


def test_numbers_follow_the_order_of_cards():
    north, south, mid = three_cards()
    config = assemble([mid, south, north], ENCODING, rankings=("user",))
    assert [config.addresses[i].name for i in (1, 2, 3)] == ["south", "north", "mid"]
    assert config.registrar == mid.sign and config.rankings == ("user",)
    assert config.servers[3].box == mid.box and list(config.servers) == [1, 2, 3]
    assert DeploymentConfig.from_json(config.to_json()) == config
    assert assemble([mid, south, north], ENCODING).id != config.id
    assert assemble([mid, south, north], ENCODING, registrar=b"").registrar == b""


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_schemes_with_one_cloud_have_two_servers(scheme):
    north, south, mid = three_cards()
    config = assemble([mid, north], ENCODING, scheme=scheme, registrar=b"r" * 32)
    assert [config.addresses[i].name for i in (1, 2)] == ["north", "mid"] and config.registrar == b"r" * 32
    assert config.params.scheme == scheme
    with pytest.raises(DeploymentError, match="1 cloud and 1 key centre"):
        assemble([north, south, mid], ENCODING, scheme=scheme)


def test_the_number_of_clouds_names_the_scheme():
    north, south, mid = three_cards()
    assert assemble([mid, north], ENCODING).params.scheme == "lattice"
    assert assemble([mid, north, south], ENCODING).params.scheme == "shares"


def test_what_cannot_be_assembled():
    north, south, mid = three_cards()
    for cards in (
        [],
        [north],
        [north, south],
        [north, south, mid, mid],
        [north, south, south],
        [mid] * 3,
    ):
        with pytest.raises(DeploymentError, match="2 or 3 clouds and 1 key centre"):
            assemble(cards, ENCODING)
    for other, said in (
        (server_card(name="NORTH", url="https://other:1"), "same name"),
        (server_card(name="other", url=north.url), "same URL"),
        (north, "same name"),
    ):
        with pytest.raises(DeploymentError, match=said):
            assemble([north, other, mid], ENCODING)
    for error, changed in (
        (ParameterError, {"registrar": b"short"}), (ParameterError, {"scheme": "none"}),
        (ParameterError, {"descriptor": "csd64"}), (ParameterError, {"rankings": ("boss",)}),
        (DTypeError, {"encoding": 7}), (ParameterError, {"window": (2, 1)}), (DTypeError, {"descriptor": 7}),
        (ScoreRangeError, {"encoding": WIDE, "rankings": ("server",)}),
    ):  # fmt: skip
        with pytest.raises(error):
            assemble([north, south, mid], **{"encoding": ENCODING, **changed})


# --- joining --------------------------------------------------------------------------------------------------------


def test_join(folders, description):
    for number, folder in enumerate(folders, 1):
        before = contents(folder)
        assert join_server(folder, description) == number
        after = contents(folder)
        assert {k: after[k] for k in before} == before and read_description(folder) == description
        assert {p.name for p in folder.iterdir()} == FILES | {"deployment.json", "catalog-2.sqlite", "shares", "images"}
        assert join_server(folder, description) == number and contents(folder) == after
        server = server_class(description.params, number)(description, number, folder, *ServerSecrets.load(folder))
        assert server.store.summary(b"").owners == []
        server.close()


def test_two_processes_join_at_once(folders, description):
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: join_server(folders[0], description), range(8))) == [1] * 8
    with pytest.raises(DeploymentError, match="cannot read"):
        join_server(folders[0] / "gone", description)


def test_a_second_description_is_refused(folders, description):
    join_server(folders[0], description)
    before = contents(folders[0])
    for other, why in (
        (assemble([read_card(f) for f in folders], ENCODING), "joined another description"),
        (dataclasses.replace(description, version=2), "0 of the servers before have signed"),
    ):
        with pytest.raises(DeploymentError, match=why):
            join_server(folders[0], other)
    assert contents(folders[0]) == before


def test_descriptions_that_mean_another_server(folders, description, tmp_path):
    folder, before = folders[0], contents(folders[0])
    own, other = description.addresses[1], server_card()
    moved = Address("north", "https://north.example:1", own.certificate)
    resealed = Address("north", own.url, other.certificate)
    foreign = dataclasses.replace(description.servers[1], pair=other.pair)
    swapped = {1: description.addresses[3], 2: description.addresses[2], 3: own}
    for changed, said in (
        ({"addresses": {}}, "embedded"),
        ({"addresses": description.addresses | {1: other.address}}, "another certificate"),
        ({"addresses": description.addresses | {1: moved}}, "another URL"),
        ({"addresses": description.addresses | {1: resealed}}, "another certificate"),
        ({"addresses": {**description.addresses, 1: Address("nord", own.url, own.certificate)}}, "no server north"),
        ({"servers": description.servers | {1: foreign}}, "another public keys"),
        ({"addresses": swapped}, "another role"),
    ):
        with pytest.raises(DeploymentError, match=said):
            join_server(folder, dataclasses.replace(description, **changed))
    assert contents(folder) == before
    with pytest.raises(DeploymentError, match="no folder of a server"):
        join_server(tmp_path, description)


def test_folders_whose_files_do_not_fit(folders, description):
    (folders[0] / "identity.key").rename(folders[0] / "kept.key")
    with pytest.raises(KeyFileError):
        join_server(folders[0], description)
    (folders[0] / "identity.key").write_bytes((folders[1] / "identity.key").read_bytes())
    (folders[0] / "identity.key").chmod(0o600)
    with pytest.raises(DeploymentError, match="not those that the description names"):
        join_server(folders[0], description)
    for name in ("tls.pem", "tls.key"):
        (folders[1] / name).write_bytes((folders[2] / name).read_bytes())
    with pytest.raises(DeploymentError, match="not the certificate of its card"):
        join_server(folders[1], description)
    assert not any((f / "deployment.json").exists() or (f / "catalog-2.sqlite").exists() for f in folders)


@pytest.mark.parametrize("name", ["rename", "fsync", "mkdir"])
@pytest.mark.parametrize("number", range(4))
def test_joining_again_after_it_was_interrupted(folders, description, monkeypatch, name, number):
    folder, left, real = folders[0], [number], getattr(os, name)

    def failing(*args, **options):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        return real(*args, **options)

    monkeypatch.setattr(os, name, failing)
    with contextlib.suppress(DeploymentError):
        join_server(folder, description)
    monkeypatch.undo()
    assert not (folder / "deployment.json").exists() or (folder / "catalog-2.sqlite").exists()
    assert join_server(folder, description) == 1
    assert {p.name for p in folder.iterdir()} == FILES | {"deployment.json", "catalog-2.sqlite", "shares", "images"}


def test_a_store_is_never_replaced(folders, description):
    """Neither one that is lost, nor one whose description is."""
    folder = folders[0]
    join_server(folder, description)
    catalog = folder / "catalog-2.sqlite"
    catalog.rename(folder / "kept")
    with pytest.raises(DeploymentError, match="missing"):
        join_server(folder, description)
    assert not catalog.exists()
    (folder / "kept").rename(catalog)
    before = catalog.read_bytes()
    (folder / "deployment.json").unlink()
    with pytest.raises(DeploymentError, match="another deployment"):
        join_server(folder, assemble([read_card(f) for f in folders], ENCODING))
    assert catalog.read_bytes() == before and not (folder / "deployment.json").exists()
    assert join_server(folder, description) == 1


# --- clients --------------------------------------------------------------------------------------------------------


@embedded_only
def test_a_clients_folder(tmp_path, description, deployment):
    folder, right = tmp_path / "deep" / "index", description.fingerprint
    for wrong in (right[:-1], assemble(three_cards(), ENCODING).fingerprint):
        with pytest.raises(DeploymentError):
            connect_folder(folder, description, wrong)
    assert not (tmp_path / "deep").exists()
    connect_folder(folder, description, right.lower())
    assert read_description(folder) == description
    assert all(mode(p) == 0o700 for p in (folder, folder / "owners", folder / "users"))
    (folder / "owners" / "anna.key").write_bytes(b"x")
    connect_folder(folder, description, right)
    assert (folder / "owners" / "anna.key").read_bytes() == b"x"
    for other, why in (
        (assemble(three_cards(), ENCODING), "belongs to another deployment"),
        (dataclasses.replace(description, version=2), "0 of the servers before have signed"),
    ):
        with pytest.raises(DeploymentError, match=why):
            connect_folder(folder, other, other.fingerprint)
    (folder / "deployment.json").unlink()
    with pytest.raises(DeploymentError, match="holds owners or users"):
        connect_folder(folder, description, right)
    with pytest.raises(DeploymentError, match="embedded"):
        connect_folder(tmp_path / "e", deployment.config, deployment.config.fingerprint)
    with pytest.raises(DeploymentError, match="a server's folder"):
        connect_folder(tmp_path / "north", description, right)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeploymentError, match="cannot make"):
        connect_folder(tmp_path / "file" / "index", description, right)


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(ceremony, "MAX_DESCRIPTION_BYTES", 10)
    (tmp_path / "d.json").write_bytes(b" " * 11)
    with pytest.raises(DeploymentError, match="more than 10 bytes"):
        read_description(tmp_path / "d.json")
    assert sys.platform == "win32" or not list(tmp_path.glob(".*"))
