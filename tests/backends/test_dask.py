"""Products on workers: bit for bit those of this process, whoever dies; sealed; on the operator's own cluster alone."""

import os
import pickle
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from mipp import pir
from mipp.backends import CpuBackend, RecordScan
from mipp.errors import BusyError, ParameterError
from mipp.io.file_hash import FileHash
from mipp.params import Params
from tests.backends.rows import (
    HEAD,
    KEYS,
    Index,
    backend_of,
    keystreams,
    kill_in_the_middle,
    stored,
    words_of,
    zero_share,
)

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
from mipp.backends import dask as dask_module  # noqa: E402
from mipp.backends import pool as pool_module  # noqa: E402
from mipp.backends import tasks  # noqa: E402
from mipp.backends.pool import Pool, local_cluster, operators_cluster  # noqa: E402

pytestmark = pytest.mark.slow  # processes


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("queries", [1, 5])
def test_equal_to_this_process(pool, tmp_path, dtype, queries):
    index = Index(tmp_path, dtype)
    backend, query = backend_of(pool, dtype), index.query(queries)
    index.check(backend, query)
    for start, stop in ((1, 2), (4990, 5310), (5299, 9300), (5000, 5300), (9000, index.total)):
        index.check(backend, query, start, stop)


@pytest.mark.usefixtures("small")
def test_rows_that_are_made_from_keys(pool):
    params, (owners, start) = Params(3, 1, 32), keystreams([[9000, 20_000], [12, 7000, 1]])
    zero, query = zero_share(np.zeros((1, 16), np.uint8), [start]), words_of(3, np.uint32, 5)
    for a, b in ((0, start), (8990, 29_100), (29_000, start)):
        want, got = np.empty((2, 3, b - a), np.uint32)
        CpuBackend(params, 1).load_keys(owners).scores(query, [(a, b)], zero, want)
        backend_of(pool).load_keys(owners).scores(query, [(a, b)], zero, got)
        assert np.array_equal(want, got)


@pytest.mark.usefixtures("small")
def test_records_of_private_fetches(pool, tmp_path, monkeypatch):
    """Packs in files, and small ones that are scanned here; rows that were deleted; rows in the middle of a word."""
    monkeypatch.setattr(dask_module, "_LEAST_BYTES", 4096)
    width, total, scans, first = 64, 9000, [], 37
    for n, count in enumerate((5000, 40, 3001)):
        records = np.random.default_rng(n).integers(0, 256, (count, width), np.uint8)
        mapped, file = stored(tmp_path, records)
        scans.append(RecordScan(mapped if count > 100 else records, first, file if count != 40 else None))
        first += count + 3
    live = ~np.zeros(2 * -(-total // 128), np.uint64)
    live[78:80] = 0  # 5036 and 5050 among them
    rows = [37, 5036, 5050, 8500, 8999]
    keys = [pir.generate_keys(row, total) for row in rows]
    got = []
    for side in (0, 1):
        mine = [pair[side] for pair in keys]
        want, out = np.zeros((2, len(rows), width), np.uint8)
        CpuBackend(Params(3, 1, 32), 1).select(scans, mine, total, live, want)
        backend_of(pool).select(scans, mine, total, live, out)
        assert np.array_equal(want, out)
        got.append(out)
    combined = pir.combine(*got)
    for row, record in zip(rows, combined, strict=True):
        scan = next((s for s in scans if s.first <= row < s.first + len(s.records)), None)
        there = scan is not None and int(live[row // 64]) >> row % 64 & 1
        assert np.array_equal(record, scan.records[row - scan.first] if there else np.zeros(width, np.uint8))
    assert combined.any()


@pytest.mark.usefixtures("small")
def test_a_worker_that_is_killed_in_the_middle(tmp_path):
    pool = Pool(local_cluster(2))
    try:
        index, backend = Index(tmp_path, rows=(40_000, 300, 4000, 700, 40_000)), backend_of(pool)
        query = index.query(2)
        index.check(backend, query)
        before = sum(c.tasks for c in pool.counts.values())
        killed = kill_in_the_middle(pool)
        index.check(backend, query)
        assert killed
        # at most the two tasks of that worker, and a result that was on its way, were computed again
        assert sum(c.tasks for c in pool.counts.values()) - before <= before + 3
        index.check(backend, query)  # and the next one, whoever is there then
    finally:
        pool.close()


@pytest.mark.usefixtures("small")
def test_many_searches_at_once(pool, tmp_path):
    index, backend, failed = Index(tmp_path), backend_of(pool), []

    def search(seed):
        try:
            index.check(backend, words_of(2, np.uint32, seed))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


@pytest.mark.usefixtures("small")
def test_nothing_secret_is_among_what_a_scheduler_unpickles(pool, tmp_path, monkeypatch):
    index, sent = Index(tmp_path), []
    query, client = index.query(3), pool.client
    for name in ("submit", "run", "scatter"):
        real = getattr(client, name)

        def spy(*args, real=real, **options):
            sent.append(pickle.dumps((args[1:] if callable(args[0]) else args, options)))
            return real(*args, **options)

        monkeypatch.setattr(client, name, spy)
    pool._known.clear()  # the session's key is given again
    index.check(backend_of(pool), query)
    assert len(sent) > 5
    secrets_ = [*KEYS.values(), pool._key, *(row.tobytes()[:8] for row in query), index.zero.header]
    secrets_ += [segment.words[0].tobytes()[:8] for segment in index.segments]
    assert not [s for s in secrets_ for one in sent if s in one]
    # nor in what a worker says of itself, in a log or to a debugger
    for thing in (pool, tasks._worker):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        assert KEYS[2].hex() not in repr(vars(thing)) or thing is pool


def test_a_task_of_another_session_is_asked_for_the_key_and_no_more(tmp_path):
    index = Index(tmp_path)
    task = tasks.sealed_task(bytes(16), pool_module.AESGCM(bytes(32)), _asked(index), [])
    assert tasks.compute(task).what == "session"
    tasks.take_session(b"s" * 16, tasks.sealed_session(tasks.hello()[0], b"s" * 16, bytes(32)))
    try:
        forged = b"s" * 16 + task[16:]
        assert tasks.compute(forged) == tasks.Reply("failed", "a task was not sealed by this server's process")
        with pytest.raises(Exception, match="does not open"):
            tasks.take_session(b"t" * 16, tasks.sealed_session(tasks.hello()[0], b"s" * 16, bytes(32)))
    finally:
        tasks.drop_session(b"s" * 16)


def _asked(index):
    return backend_of(None).asked(index.query(1), 1, index.zero, [dask_module._masks(index.zero, 0, 10)])


@pytest.mark.usefixtures("small")
def test_workers_get_files_that_they_do_not_see(tmp_path, monkeypatch):
    """No common disk: the server sends each file once to whom needs it; a damaged copy counts for nothing."""
    folder = tmp_path / "there"
    monkeypatch.setenv(tasks.FILES, str(folder))
    real = dask_module.StoredPart
    monkeypatch.setattr(dask_module, "StoredPart", lambda digest, path, *rest: real(digest, "/nowhere", *rest))
    index = Index(tmp_path)
    live = {s.file.digest for s in index.segments if s.file is not None}
    pool = Pool(local_cluster(1), lambda: live)
    try:
        folder.mkdir()
        damaged = folder / index.segments[0].file.digest.hex()
        damaged.write_bytes(b"x" * index.segments[0].file.size)
        index.check(backend_of(pool), index.query(1))
        names = {d.hex() for d in live}
        assert {p.name for p in folder.iterdir()} == names and damaged.stat().st_mode & 0o077 == 0
        assert damaged.read_bytes() == index.segments[0].file.path.read_bytes()
        # what the server has no more goes from the workers, too
        live.discard(index.segments[0].file.digest)
        pool.prune()
        assert {p.name for p in folder.iterdir()} == names - {damaged.name}
    finally:
        pool.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("trouble", ["pipe", "full", "folder in its place", "not writable", "hard link", "link"])
def test_folders_of_workers_that_are_no_good(tmp_path, monkeypatch, trouble):
    """One worker's trouble ends no search where another one can compute; what links lead to stays as it is."""
    folder, victim = tmp_path / "there", tmp_path / "victim"
    folder.mkdir()
    victim.write_bytes(b"precious")
    monkeypatch.setenv(tasks.FILES, str(folder))
    real = dask_module.StoredPart
    monkeypatch.setattr(dask_module, "StoredPart", lambda digest, path, *rest: real(digest, "/nowhere", *rest))
    index = Index(tmp_path)
    names = [s.file.digest.hex() for s in index.segments if s.file is not None]
    for name in names:
        if trouble == "pipe":
            os.mkfifo(folder / name)
        elif trouble == "folder in its place":
            (folder / name).mkdir()
        elif trouble == "hard link":
            os.link(victim, folder / name)
        elif trouble == "link":
            (folder / name).symlink_to(victim)
    pool = Pool(local_cluster(1))
    if trouble in ("full", "not writable"):
        # a second worker sees the files where the server has them
        monkeypatch.setenv(tasks.FILES, str(index.segments[0].file.path.parent))
    try:
        pool.workers()
        if trouble == "full":
            pool.client.run(_no_room)
        elif trouble == "not writable":
            pool.client.run(_no_folder)
        if trouble in ("full", "not writable", "folder in its place"):
            with pytest.raises(BusyError, match="fail or die"):
                index.check(backend_of(pool), index.query(1))
            monkeypatch.setattr(dask_module, "StoredPart", real)
        index.check(backend_of(pool), index.query(1))
        assert victim.read_bytes() == b"precious"
    finally:
        pool.close()


def _no_room():
    tasks._FREE = 1 << 62


def _no_folder():
    os.environ[tasks.FILES] = "/proc/nothing"


@pytest.mark.usefixtures("small")
def test_searches_at_once_have_a_file_sent_once(tmp_path, monkeypatch):
    folder, sent = tmp_path / "there", []
    monkeypatch.setenv(tasks.FILES, str(folder))
    real, pieces = dask_module.StoredPart, pool_module._pieces
    monkeypatch.setattr(dask_module, "StoredPart", lambda digest, path, *rest: real(digest, "/nowhere", *rest))
    monkeypatch.setattr(pool_module, "_pieces", lambda file: (sent.append(file.digest), pieces(file))[1])
    index, pool, failed = Index(tmp_path), Pool(local_cluster(1)), []

    def search():
        try:
            index.check(backend_of(pool), index.query(1))
        except BaseException as error:
            failed.append(error)

    try:
        threads = [threading.Thread(target=search) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed and len(sent) == len(set(sent)) == 3
        for path in folder.iterdir():
            checksum = FileHash()
            checksum.update(path.read_bytes()[:-32])
            assert checksum.digest().hex() == path.name
    finally:
        pool.close()


@pytest.mark.usefixtures("small")
def test_a_worker_that_stands_still(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_module, "_SLOW", 1.0)
    monkeypatch.setattr(pool_module, "_LOOK", 0.2)
    index, pool = Index(tmp_path, rows=(40_000, 300, 4000, 700, 40_000)), Pool(local_cluster(2))
    try:
        index.check(backend_of(pool), index.query(1))
        pids = [pid for _, _, pid in pool.client.run(tasks.hello).values()]
        os.kill(pids[0], signal.SIGSTOP)
        try:
            index.check(backend_of(pool), index.query(1))
        finally:
            os.kill(pids[0], signal.SIGCONT)
    finally:
        pool.close()


def test_a_file_that_is_another_one_is_compared_again(tmp_path):
    index = Index(tmp_path)
    file = index.segments[0].file
    part = tasks.StoredPart(file.digest, str(file.path), file.size, file.offset, 0, 10, 0, -1)
    first = tasks._file(part)
    assert tasks._file(part) is first
    changed = bytearray(file.path.read_bytes())
    changed[HEAD] ^= 1
    file.path.write_bytes(changed)
    os.utime(file.path, ns=(1, 1))
    with pytest.raises(tasks._LackingFile):
        tasks._file(part)


@pytest.mark.usefixtures("small")
def test_a_worker_that_raises_whatever_it_likes(pool, tmp_path, monkeypatch):
    index, real, bad = Index(tmp_path), tasks.compute, []

    def sometimes(task):
        raise MemoryError("no room")

    submit = pool.client.submit

    def submitted(function, *args, **options):
        if function is real and len(bad) < 3:
            bad.append(1)
            function = sometimes
        return submit(function, *args, **options)

    monkeypatch.setattr(pool.client, "submit", submitted)
    index.check(backend_of(pool), index.query(1))
    assert len(bad) == 3


def test_files_that_workers_got_go_when_the_server_drops_them(tmp_path, monkeypatch):
    """Without folders of their own, too: Dask's folder of the worker."""
    monkeypatch.delenv(tasks.FILES, raising=False)
    real = dask_module.StoredPart
    monkeypatch.setattr(dask_module, "StoredPart", lambda digest, path, *rest: real(digest, "/nowhere", *rest))
    index, scratch = Index(tmp_path), tmp_path / "scratch"
    live = {s.file.digest for s in index.segments if s.file is not None}
    pool = Pool(local_cluster(1, scratch), lambda: live)
    try:
        index.check(backend_of(pool), index.query(1))
        assert {p.name for p in scratch.rglob("mipp-files/*")} == {d.hex() for d in live}
        assert scratch.stat().st_mode & 0o077 == 0
        live.clear()
        pool.prune()
        assert not list(scratch.rglob("mipp-files/*"))
    finally:
        pool.close()


def test_no_pages_over_http(pool):
    """Pages would tell every account of this machine what workers do."""
    port = pool.client.cluster.scheduler.http_server.port
    for path in ("/", "/status", "/workers", "/metrics", "/info/main/workers.html", "/json/counts.json"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)


def test_no_worker_and_no_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_module, "_PATIENCE", 0.5)
    index = Index(tmp_path)
    pool = Pool(local_cluster(0))
    try:
        assert pool.reason == "none of this server's workers is there"
        with pytest.raises(BusyError, match="none of this server's workers"):
            index.check(backend_of(pool), index.query(1))
    finally:
        pool.close()

    # workers that are gone for good, as where their starts failed: a search ends, and the next one has new ones
    monkeypatch.setattr(pool_module, "_LOOK", 0.2)
    made = []

    def connect():
        made.append(1)
        return local_cluster(1)()

    pool = Pool(connect)
    try:
        index.check(backend_of(pool), index.query(1))
        real = pool._submit

        def gone(*given):
            pool.client.cluster.scale(0)
            return real(*given)

        monkeypatch.setattr(pool, "_submit", gone)
        with pytest.raises(BusyError):
            index.check(backend_of(pool), index.query(1))
        monkeypatch.setattr(pool, "_submit", real)
        index.check(backend_of(pool), index.query(1))
        assert len(made) == 2
    finally:
        pool.close()

    def nobody():
        raise OSError("connection refused")

    with pytest.raises(BusyError, match="does not answer"):
        index.check(backend_of(Pool(nobody)), index.query(1))


# --- whose cluster --------------------------------------------------------------------------------------------------


def authority(folder):
    """A certificate authority, and a certificate and key of it; as files."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)

    def made(name, issuer, issuer_key, key, ca):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )  # fmt: skip

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = made(f"authority of {folder.name}", None, ca_key, ca_key, True)
    certificate = made("server", ca.subject, ca_key, key, False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem", folder / "cert.pem", folder / "key.pem"


def refused(address, files):
    """Whether whoever listens there refuses this certificate: a TLS alert comes as the first bytes."""
    host, port = address.removeprefix("tls://").split(":")
    context = ssl.create_default_context(cafile=str(files[0]))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(str(files[1]), str(files[2]))
    try:
        with context.wrap_socket(socket.create_connection((host, int(port)), 5)) as sock:
            sock.settimeout(1)
            return not sock.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_cluster_ends_once():
    """Not when its client is collected, too: that may be inside of a lock that the end waits for."""
    client = local_cluster(0)()
    cluster, ends = client.cluster, []
    close = cluster.close
    cluster.close = lambda **options: ends.append(options) or close(**options)
    client.close()
    client.__del__()
    assert len(ends) == 1 and cluster.status.name == "closed"


def test_a_certificate_of_another_operator_is_refused(tmp_path):
    ours, others = authority(tmp_path / "ours"), authority(tmp_path / "others")
    ca, cert, key = map(str, ours)
    security = distributed.Security(
        tls_ca_file=ca, require_encryption=True, tls_scheduler_cert=cert, tls_scheduler_key=key, tls_worker_cert=cert,
        tls_worker_key=key, tls_client_cert=cert, tls_client_key=key,
    )  # fmt: skip
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, security=security, protocol="tls://", host="127.0.0.1",
        dashboard_address=None,
    )  # fmt: skip
    try:
        index = Index(tmp_path)
        address = cluster.scheduler_address
        pool = Pool(operators_cluster(address, *ours))
        index.check(backend_of(pool), index.query(1))
        worker = pool.workers()[0]
        pool.close()
        began = time.monotonic()
        for files in (others, (ours[0], *others[1:]), (others[0], *ours[1:])):
            with pytest.raises(BusyError, match="does not answer"):
                index.check(backend_of(Pool(operators_cluster(address, *files))), index.query(1))
        for port in (address, worker):
            assert not refused(port, ours) and refused(port, others)
        assert time.monotonic() - began < 60
        with pytest.raises(ParameterError, match="over TLS"):
            operators_cluster(address.replace("tls", "tcp"), *ours)
    finally:
        cluster.close()


def test_workers_that_are_lost_are_in_the_log(caplog):
    """Also while nobody searches."""
    caplog.set_level("INFO", "mipp.server")
    made = Pool(local_cluster(2))
    try:
        (first, _) = made.workers()
        os.kill(made.client.run(os.getpid, workers=[first])[first], signal.SIGKILL)
        end = time.monotonic() + 20
        while f"worker {first} was lost" not in caplog.messages:
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        made.close()
    assert f"worker {first} is there" in caplog.messages
