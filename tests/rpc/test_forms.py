"""Descriptions of deployments: the form of sharing that they say, and what files are bound to."""

import dataclasses
import hashlib
import json

import pytest

import mipp
from mipp.errors import DeploymentError
from mipp.rpc.description import DeploymentConfig, ServerKeys

ID = bytes(range(16))


def described(params):
    servers = {i: ServerKeys(*(bytes([i, j]) * 16 for j in range(3))) for i in range(1, params.n + 1)}
    encoding = mipp.Encoding("cosine", 12, ring_bits=params.ring_bits)
    return DeploymentConfig(ID, params, encoding, "", servers)


@pytest.mark.parametrize(
    "params",
    [
        mipp.Params(),
        mipp.Params(ring_bits=64),
        mipp.Params(4, 1),
        mipp.Params(sharing="finite"),
        mipp.Params(4, 1, sharing="finite"),
        mipp.Params(5, 2),
        mipp.Params(2, 1, 32, "paillier"),
        mipp.Params(2, 1, 32, "lattice"),
    ],
    ids=str,
)
def test_a_description_reads_as_it_was_written(params):
    config = described(params)
    again = DeploymentConfig.from_json(config.to_json())
    assert again.params == params and again.params_hash == config.params_hash
    assert again.to_json() == config.to_json()


def test_a_description_without_the_word_is_of_the_finite_form():
    """As earlier versions wrote it; it is not changed when it is written again, so that they still read it."""
    config = described(mipp.Params())
    data = json.loads(config.to_json())
    assert data["params"] == {"n": 3, "t": 1, "k": 32, "scheme": "shares", "sharing": "infinity"}
    del data["params"]["sharing"]
    old = DeploymentConfig.from_json(json.dumps(data))
    assert old.params == mipp.Params(sharing="finite") and old.params_hash != config.params_hash
    assert json.loads(old.to_json()) == data


@pytest.mark.parametrize("word", ["masked", "", "Infinity", 3, ["finite"], {}])
def test_an_unknown_form_is_refused(word):
    data = json.loads(described(mipp.Params()).to_json())
    data["params"]["sharing"] = word
    with pytest.raises(DeploymentError):
        DeploymentConfig.from_json(json.dumps(data))


def test_files_are_bound_to_the_form_and_the_sizes_of_rows():
    """Old files keep their hash; those of the form ``infinity`` keep it when a cloud joins."""
    encoding = described(mipp.Params()).encoding.hash

    def digest(text, *sizes):
        return hashlib.sha256(text + ID + bytes(sizes) + encoding).digest()

    assert described(mipp.Params(sharing="finite")).params_hash == digest(b"mipp v1 params", 3, 1, 32)
    assert described(mipp.Params(2, 1, 32, "paillier")).params_hash == digest(b"mipp v1 params", 2, 1, 32)
    assert described(mipp.Params()).params_hash == digest(b"mipp v1 params infinity", 2, 1, 32)
    assert described(mipp.Params(4, 1)).params_hash == described(mipp.Params()).params_hash
    other = dataclasses.replace(described(mipp.Params()), id=bytes(16))
    assert other.params_hash != described(mipp.Params()).params_hash
