"""Stored features as queries: read back by their owner, they find their own row first."""

import numpy as np
import pytest

import mipp
from mipp.encoding import pca, tune
from mipp.errors import NotFoundError, ParameterError
from mipp.features.encoding import descriptor_encoding

ROWS = np.random.default_rng(1).normal(size=(60, 8))


def encodings():
    levels = np.random.default_rng(2).integers(0, 8, (60, 8))
    yield "cosine", mipp.Encoding.fit("cosine", ROWS, server_ranking=True), ROWS
    yield "hellinger", mipp.Encoding("hellinger", 8), np.abs(ROWS)
    yield "l2", mipp.Encoding.fit("l2", ROWS, bits=10, query_bits=10), ROWS
    yield "l2-centred", mipp.Encoding.fit("l2", ROWS, center=True, bits=10, query_bits=10), ROWS
    # scores come in steps of the query scale, so equal to within a few steps is equal
    yield "l2-stepped", tune("l2", ROWS, ring_bits=32, server_ranking=True).encoding, ROWS
    yield "l2-stepped-16", tune("l2", ROWS, ring_bits=16, server_ranking=True).encoding, ROWS
    yield "l1", mipp.Encoding("l1", 8, levels=8), levels
    yield "hamming", mipp.Encoding("hamming", 24), (np.arange(60 * 24).reshape(60, 24) * 2654435761 >> 9) & 1


@pytest.mark.parametrize(("encoding", "rows"), [pytest.param(e, r, id=n) for n, e, r in encodings()])
def test_every_row_finds_itself_first(tmp_path, encoding, rows):
    rows = np.unique(rows, axis=0)
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        ids = anna.add_vectors(rows)
        anna.grant(user, rankings=["user"])
        queries = anna.features_of(ids)
        found = user.nearest(queries, 1, ranking="user")
        assert found.rows[:, 0].tolist() == list(range(len(rows)))
        if encoding.metric in ("l1", "hamming"):
            assert (queries == rows).all() and not found.values.any()
        elif encoding.metric == "l2" and not encoding.stepped:
            # up to half a step of the stored integers, and then exactly itself
            assert np.abs(queries - rows).max() <= max(encoding.scale) / 2 * (1 + 1e-9)
            assert not found.values.any()


def test_rows_of_a_projection_find_themselves(tmp_path):
    rows = np.random.default_rng(3).normal(size=(80, 16)) * np.array([8.0] * 4 + [0.1] * 12)
    encoding = mipp.Encoding.fit("cosine", rows, projection=pca(rows, 6, center=False))
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        ids = anna.add_vectors(rows)
        anna.grant(user, rankings=["user"])
        found = user.nearest(anna.features_of(ids), 1, ranking="user")
    assert (found.rows[:, 0] == np.arange(80)).mean() > 0.97, "but for rows as near within the steps of the integers"


@pytest.mark.parametrize("spec", ["cld", "csd64+ehd"])
def test_stored_images_have_distance_nothing_to_themselves(tmp_path, spec):
    ramp = np.add.outer(np.arange(24), np.arange(24))[:, :, None]
    images = [(ramp * np.array([i + 1, 5, 12 - i]) % 256).astype(np.uint8) for i in range(12)]
    descriptor = mipp.features.get(spec)
    values = descriptor.embed(np.stack([descriptor.extract(image) for image in images]))
    with mipp.Deployment.create(tmp_path / "d", descriptor_encoding(spec), descriptor=spec, threads=1) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        ids = anna.add_vectors(values)
        anna.grant(user, rankings=["server", "user"])
        for ranking in ("server", "user"):
            hits = [r.hits[0] for r in user.search_batch(anna.features_of(ids), 1, ranking=ranking)]
            assert [hit.row for hit in hits] == list(range(12)) and not any(hit.value for hit in hits)


def test_the_order_and_the_form_of_ids_do_not_matter(world):
    owner, user = world.owners[0], world.user
    ids = [f"{b.hex()}:{r}" for b, r in user.index(owner).ids()]
    some = [ids[5], ids[0], ids[3], ids[5]]
    got = owner.features_of(some)
    assert (got == np.stack([owner.features_of(i)[0] for i in some])).all() and (got[0] == got[3]).all()
    batch, row = ids[3].split(":")
    assert (owner.features_of((bytes.fromhex(batch), int(row))) == got[2:3]).all()


def test_what_is_no_live_row_of_the_owner_is_refused(world):
    owner, user = world.owners[0], world.user
    ids = [f"{b.hex()}:{r}" for b, r in user.index(owner).ids()]
    owner.delete(ids[2])
    with pytest.raises(NotFoundError, match="was deleted"):
        owner.features_of([ids[1], ids[2]])
    assert len(owner.features_of([ids[1], ids[3]])) == 2
    owner.compact()
    moved = [f"{b.hex()}:{r}" for b, r in user.index(owner).ids()]
    assert np.isfinite(owner.features_of(moved)).all()
    with pytest.raises(NotFoundError):
        owner.features_of(f"{'00' * 16}:0")
    for wrong in ([], "x", [("a", 1)], 3, "00:1"):
        with pytest.raises(ParameterError):
            owner.features_of(wrong)


def test_what_a_server_sees_is_one_request_for_the_batch(world):
    deployment, owner, user = world.deployment, world.owners[0], world.user
    ids = [f"{b.hex()}:{r}" for b, r in user.index(owner).ids()]
    before = dict(deployment.channel.bytes_sent)
    owner.features_of(ids[:1])
    one = {k: v - before.get(k, 0) for k, v in deployment.channel.bytes_sent.items() if v != before.get(k, 0)}
    before = dict(deployment.channel.bytes_sent)
    owner.features_of([i for i in ids if i.split(":")[0] == ids[0].split(":")[0]])
    all_ = {k: v - before.get(k, 0) for k, v in deployment.channel.bytes_sent.items() if v != before.get(k, 0)}
    assert set(one) == set(all_) and one.get("FetchShares") == all_.get("FetchShares"), "nothing shows which rows"
