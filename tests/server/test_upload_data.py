"""Bodies of announced requests in their files: every cut of blocks, hashes on the way, files that are taken over."""

import os

import numpy as np
import pytest

from mipp.errors import MessageError, StoreError
from mipp.io import durable
from mipp.rpc.bodies import body_parts, body_size
from mipp.rpc.wire import frame_hashes
from mipp.server.upload_data import UploadData
from mipp.store.files import FileInfo, ShareFile, check_file, write_share

FRAMES = [b"head", b"", b"r" * 5000, b"", b"i" * 900, b"o" * 77]


def body(frames):
    return b"".join(bytes(p) for p in body_parts(frames))


def filled(folder, frames, step):
    data, whole = UploadData(folder, [len(f) for f in frames]), body(frames)
    for at in range(0, len(whole), step):
        block = whole[at : at + step]
        data.allocate(at, len(block))
        data.write(at, memoryview(block))
        data.hash(at + len(block))
    return data


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[2:], FRAMES[:3], [b""], [b"", b""], [b"x" * 200]])
@pytest.mark.parametrize("step", [1, 63, 64, 1000, 1 << 20])
def test_every_cut_into_blocks(tmp_path, frames, step):
    if step == 1:
        frames = [f[:300] for f in frames]
    arrived = filled(tmp_path, frames, step).arrived(b"envelope")
    assert [bytes(f) for f in arrived.frames] == [b"envelope", *frames]
    assert arrived.hashes == frame_hashes(frames)
    largest = max(range(len(frames)), key=lambda i: len(frames[i]))
    assert [arrived.file_of(i) is not None for i in range(len(frames))] == [i == largest for i in range(len(frames))]
    assert not os.listdir(tmp_path)
    arrived.close()
    assert bytes(arrived.frames[1]) == frames[0]  # views stay


def test_another_body_than_announced_is_refused(tmp_path):
    data = UploadData(tmp_path, [100, 90])
    other = body([b"a" * 101, b"b" * 90])
    assert len(other) == body_size([100, 90])
    data.write(0, memoryview(other))
    with pytest.raises(MessageError, match="announced"):
        data.arrived(b"envelope")
    data.close()


@pytest.fixture
def share():
    return np.random.default_rng(1).integers(0, 1 << 32, (50, 16), np.uint32)


INFO = FileInfo(b"h" * 32, b"o" * 16, b"b" * 16, 32, 16, 16, 0, 50, 50)


@pytest.mark.parametrize("can", ["name it", "not name it", "make no such file"])
def test_a_share_becomes_its_file(tmp_path, monkeypatch, share, can):
    """Where the system can do that, without a copy; the file is the same either way, and so is what is left behind."""
    if can == "make no such file":
        real = os.open
        monkeypatch.setattr(os, "open", lambda path, flags, *a: real(path, flags & ~os.O_TMPFILE | os.O_DIRECTORY, *a)
                            if flags & os.O_TMPFILE == os.O_TMPFILE else real(path, flags, *a))  # fmt: skip
    if can == "not name it":
        monkeypatch.setattr(durable, "_linked", lambda held, name: None)
    arrived = filled(tmp_path, [b"message", share.tobytes(), bytes(100)], 1000).arrived(b"envelope")
    words = np.frombuffer(arrived.frames[2], np.uint32).reshape(share.shape)
    inode = os.fstat(arrived.file).st_ino
    path = tmp_path / "shares" / "batch"
    size, digest = write_share(path, INFO, words, None, arrived.file_of(1))
    assert (path.stat().st_ino == inode) is (can == "name it")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (size, digest) == write_share(tmp_path / "shares" / "copied", INFO, share, None)
    assert path.read_bytes() == (tmp_path / "shares" / "copied").read_bytes()
    assert check_file(path, size, digest) is None
    assert np.array_equal(ShareFile(path, INFO, size, digest).words, share)
    assert sorted(os.listdir(tmp_path / "shares")) == ["batch", "copied"]
    arrived.close()
    assert np.array_equal(words, share)


def test_a_file_that_cannot_be_synced_keeps_no_name(tmp_path, monkeypatch, share):
    arrived = filled(tmp_path, [b"message", share.tobytes()], 1000).arrived(b"envelope")

    def broken(fd):
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreError, match="Input/output"):
        write_share(tmp_path / "shares" / "batch", INFO, share, None, arrived.file_of(1))
    assert not os.listdir(tmp_path / "shares")
    arrived.close()
