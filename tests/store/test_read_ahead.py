"""Files of records that are opened ahead of the first private fetch."""

import numpy as np

import mipp
from mipp.store import records
from tests.conftest import DIM, vectors


def test_the_first_private_fetch_opens_no_file(tmp_path, encoding, monkeypatch):
    with mipp.Deployment.create(tmp_path / "d", encoding, preview_size=512) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        for seed in range(3):
            owner.add_vectors(vectors(5, seed), metadata=[{"caption": f"{seed}.{n}"} for n in range(5)])
        owner.grant(user)
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        opened, real = [], records.RecordPack

        def counting(path, *args, **options):
            opened.append(path)
            return real(path, *args, **options)

        monkeypatch.setattr(records, "RecordPack", counting)
        deployment.read_ahead()
        assert len(opened) == 6, "three packs at each of two clouds"
        user = deployment.user("ulla")
        assert user.preview(user.search(np.ones(DIM), 1))[0].caption
        assert len(opened) == 6


def test_a_damaged_file_keeps_nothing_else_from_being_read(tmp_path, encoding):
    with mipp.Deployment.create(tmp_path / "d", encoding, preview_size=512) as deployment:
        owner = deployment.create_owner("anna")
        for seed in range(2):
            owner.add_vectors(vectors(5, seed), metadata=[{}] * 5)
    path = next(p for p in (tmp_path / "d" / "servers" / "1" / "records").rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        deployment.read_ahead()
        assert sum(len(deployment.servers[i].store.records.damaged) for i in (1, 2)) == 1
