"""LangChain's standard tests of vector stores, and what is particular to an encrypted one."""

import asyncio
import importlib
import json
import pickle
import sys

import numpy as np
import pytest

import mipp
from mipp.errors import (
    AccessDeniedError,
    DTypeError,
    EncodingError,
    MissingExtraError,
    ParameterError,
    ShapeError,
)

pytest.importorskip("langchain_core", reason="langchain-core (extra langchain) is not installed")
pytest.importorskip("langchain_tests", reason="langchain-tests (extra test) is not installed")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import vectorstores as standard

from mipp.compat.langchain import EncryptedVectorStore
from tests.conftest import made

#: CI runs them: the test command has ten minutes
pytestmark = pytest.mark.slow


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:The test .* is marked with .*asyncio")  # half of them are synchronous
class TestStandard(standard.VectorStoreIntegrationTests):
    """That project's own tests, of an owner and a user of one embedded deployment."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        encoding = mipp.Encoding("cosine", standard.EMBEDDING_SIZE)
        with mipp.Deployment.create(tmp_path / "d", encoding, threads=1, preview_size=512) as deployment:
            owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
            owner.grant(user)
            yield EncryptedVectorStore(self.get_embeddings(), owner=owner, user=user)


class Letters(Embeddings):
    """How often each of the letters a to h is in a text: similar texts have similar vectors. Counts what it saw."""

    def __init__(self):
        self.seen = []

    def embed_documents(self, texts):
        self.seen += texts
        return [[text.count(letter) + 0.01 for letter in "abcdefgh"] for text in texts]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class World:
    """Two owners, each with a store, and a user's store over both."""

    def __init__(self, folder, metric="cosine", **options):
        self.deployment = mipp.Deployment.create(folder, mipp.Encoding(metric, 8), threads=1, preview_size=1024)
        self.user = self.deployment.create_user("ulla")
        self.owners = [self.deployment.create_owner(name) for name in ("anna", "berta")]
        for owner in self.owners:
            owner.grant(self.user, rankings=["server", "user"])
        self.anna, self.berta = (EncryptedVectorStore(Letters(), owner=owner) for owner in self.owners)
        self.store = EncryptedVectorStore(Letters(), user=self.user, **options)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "d")
    yield made
    made.deployment.close()


def texts(documents):
    return [document.page_content for document in documents]


def test_a_user_finds_documents_of_all_owners(world):
    world.anna.add_texts(["aaa", "bbb"], [{"page": 1}, {"page": 2}], ids=["1", "2"])
    world.berta.add_texts(["aab", "ccc"], ids=["1", "4"])
    found = world.store.similarity_search_with_score("aaa", k=4)
    assert texts(d for d, _ in found)[:2] == ["aaa", "aab"] and len(found) == 4
    assert found[0][0] == Document(id="1", page_content="aaa", metadata={"page": 1})
    assert found[0][1] == pytest.approx(1, abs=1e-3) and found[0][1] > found[1][1] > found[2][1] >= found[3][1]
    relevant = world.store.similarity_search_with_relevance_scores("aaa", k=3, score_threshold=0.9)
    assert texts(d for d, _ in relevant) == ["aaa"]
    assert texts(world.store.similarity_search("aaa", k=2, owners="berta")) == ["aab", "ccc"]
    assert texts(world.store.similarity_search_by_vector(Letters().embed_query("ccc"), k=99))[0] == "ccc"
    # an id that two owners use
    assert sorted(texts(world.store.get_by_ids(["4", "none", "1"]))) == ["aaa", "aab", "ccc"]
    assert texts(world.store.get_by_ids(["4", "1"]))[0] == "ccc"
    named = EncryptedVectorStore(Letters(), user=world.user, owner_key="owner", owners="berta", ranking="user")
    assert [d.metadata for d in named.similarity_search("aaa", k=2)] == [{"owner": "berta"}] * 2
    assert texts(named.get_by_ids(["1"])) == ["aab"]


def test_retrievers_and_asynchronous_calls(world):
    world.anna.add_texts(["aaaa", "aaab", "aabb", "cccc", "abcd"])
    assert texts(world.store.as_retriever(search_kwargs={"k": 2}).invoke("aaaa")) == ["aaaa", "aaab"]
    alike = {"k": 2, "fetch_k": 5, "lambda_mult": 0.1}
    assert texts(world.store.as_retriever(search_type="mmr", search_kwargs=alike).invoke("aaaa")) == ["aaaa", "cccc"]

    async def together():
        return await asyncio.gather(*(world.store.asimilarity_search(query, k=1) for query in ("aaaa", "cccc", "abcd")))

    assert [texts(found) for found in asyncio.run(together())] == [["aaaa"], ["cccc"], ["abcd"]]


def test_diversity_embeds_what_was_found_again(world):
    """Vectors do not come back with documents; the README says that the model sees the texts."""
    world.anna.add_texts(["aaa", "bbb", "ccc"])
    model = world.store.embeddings
    model.seen.clear()
    assert len(world.store.max_marginal_relevance_search("aaa", k=1, fetch_k=2)) == 1
    assert model.seen[0] == "aaa" and len(model.seen) == 3 and set(model.seen) < {"aaa", "bbb", "ccc"}


def test_another_process_of_the_owner_replaces_and_deletes(world):
    world.anna.add_texts(["aaa", "bbb", "ccc"], ids=["1", "2", "3"])
    other = EncryptedVectorStore(Letters(), owner=world.deployment.owner("anna"), user=world.user)
    other.add_texts(["ddd"], ids=["2"])
    world.anna.delete(["1"])
    world.anna.add_documents([Document(id="3", page_content="hhh"), Document(page_content="new")])
    assert sorted(texts(other.similarity_search("a", k=9))) == ["ddd", "hhh", "new"]
    assert texts(other.get_by_ids(["1", "2", "3"])) == ["ddd", "hhh"]
    world.owners[0].compact()  # rows get new ids
    assert texts(other.get_by_ids(["3", "2"])) == ["hhh", "ddd"]
    other.delete(["2"])
    assert texts(world.store.get_by_ids(["3", "2"])) == ["hhh"]
    assert other.delete() and not other.similarity_search("a") and not other.get_by_ids(["3"])
    assert other.delete([]) and other.add_documents([]) == []


def test_documents_of_one_call_with_one_id_are_one(world):
    assert world.anna.add_texts(["aaa", "bbb", "ccc"], ids=["1", "2", "1"], batch_size=1) == ["1", "2", "1"]
    assert sorted(texts(world.store.similarity_search("a", k=9))) == ["bbb", "ccc"]


def test_an_upload_that_is_cut_off_leaves_both_until_the_next_one(world, monkeypatch):
    world.anna.add_texts(["aaa"], ids=["1"])
    with monkeypatch.context() as patch:
        patch.setattr(type(world.owners[0]), "delete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.anna.add_texts(["bbb"], ids=["1"])
    assert sorted(texts(world.store.get_by_ids(["1"]))) == ["aaa", "bbb"]
    world.anna.add_texts(["ccc"], ids=["1"])
    assert texts(world.store.get_by_ids(["1"])) == ["ccc"]


def test_rows_of_other_programs_are_documents(world):
    (batch, row), _ = world.owners[0].add_vectors(
        np.eye(8)[:2], [("cat.png", b"...", {"caption": "a cat", "taken": 2020}), None]
    )
    hostile = {"caption": "x", "document": {"id": "0" * 32 + ":7", "metadata": {}}}
    world.owners[1].add_vectors(np.eye(8)[2:4], metadata=[hostile, {"caption": 7, "document": []}])
    found = {d.id: d for d in world.store.similarity_search("a", k=9)}
    assert found[f"{batch.hex()}:{row}"] == Document(
        id=f"{batch.hex()}:{row}", page_content="a cat", metadata={"taken": 2020, "path": "cat.png"}
    )
    assert world.store.get_by_ids([f"{batch.hex()}:{row}"])[0].page_content == "a cat"
    assert len(found) == 4 and "0" * 32 + ":7" not in found
    # what a store did not add, a store does not delete
    assert world.anna.delete() and world.anna.delete([f"{batch.hex()}:{row}"])
    assert len(world.store.similarity_search("a", k=9)) == 4


def test_hostile_texts_come_as_they_were_written(world):
    wild = ["\u202e<script>", "a\0b", "=1+1"]
    world.anna.add_texts(wild, [{"k": text} for text in wild], ids=wild)
    assert sorted(texts(world.store.get_by_ids(wild))) == sorted(wild)
    assert all(d.metadata == {"k": d.page_content} for d in world.store.similarity_search("a", k=9))


def test_a_text_that_is_too_long_names_the_limit_and_nothing_is_sent(world):
    for long, fields in (("x" * 1000, {}), ("x", {"long": "y" * 1000})):
        with pytest.raises(ParameterError, match=r"document 1 .* 1024 bytes \(preview_size\)"):
            world.anna.add_texts(["aaa", long], [{}, fields])
    assert world.store.similarity_search("aaa") == []
    fits = "ü" * 300
    world.anna.add_texts([fits])
    assert texts(world.store.similarity_search("aaa")) == [fits]


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda w: w.anna.add_texts(["a"], ids=["1", "2"]), ParameterError),
        (lambda w: w.anna.add_texts(["a"], [{}, {}]), ValueError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids=["1", "2"]), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids="1"), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids=[7]), DTypeError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids=[""]), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids=["x" * 201]), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], ids=["0" * 32 + ":1"]), ParameterError),
        (lambda w: w.anna.add_documents(["a"]), DTypeError),
        (lambda w: w.anna.add_documents([Document(page_content="a", metadata={"x": object()})]), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], batch_size=0), ParameterError),
        (lambda w: w.anna.add_documents([Document(page_content="a")], namespace="n"), ParameterError),
        (lambda w: w.anna.delete("1"), DTypeError),
        (lambda w: w.anna.delete([1]), DTypeError),
        (lambda w: w.anna.delete(["1"], everything=True), ParameterError),
        (lambda w: w.anna.similarity_search("a"), ParameterError),
        (lambda w: w.anna.get_by_ids(["a"]), ParameterError),
        (lambda w: w.store.add_texts(["a"]), ParameterError),
        (lambda w: w.store.delete(["a"]), ParameterError),
        (lambda w: w.store.get_by_ids("1"), DTypeError),
        (lambda w: w.store.similarity_search("a", k=0), ParameterError),
        (lambda w: w.store.similarity_search("a", k=True), ParameterError),
        (lambda w: w.store.similarity_search("a", filter={"page": 1}), ParameterError),
        (lambda w: w.store.similarity_search_by_vector([1.0, 2.0]), ShapeError),
        (lambda w: EncryptedVectorStore(Letters()), ParameterError),
        (lambda w: EncryptedVectorStore("model", user=w.user), DTypeError),
        (lambda w: pickle.dumps(w.store), TypeError),
    ],
    ids=range(27),
)
@pytest.mark.parametrize("shared", [0])
def test_bad_calls(call, error, shared, bad_world):
    with pytest.raises(error):
        call(bad_world)
    assert texts(bad_world.store.similarity_search("a", k=9)) == ["aaa"]


@pytest.fixture(scope="module")
def bad_world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("bad") / "d")
    made.anna.add_texts(["aaa"])
    yield made
    made.deployment.close()


def test_vectors_of_another_dimension_are_refused(world):
    store = EncryptedVectorStore(DeterministicFakeEmbedding(size=6), owner=world.owners[0])
    with pytest.raises(ShapeError):
        store.add_texts(["a"])


@pytest.mark.parametrize("given", [[[1.0], [1.0, 2.0]], [[1.0] * 8], [1.0, 2.0], ["a", "b"], [[float("nan")] * 8] * 2])
def test_what_a_bad_model_gives_is_refused(world, given):
    class Bad(Letters):
        def embed_documents(self, texts):
            return given

    with pytest.raises((ShapeError, EncodingError)):
        EncryptedVectorStore(Bad(), owner=world.owners[0]).add_texts(["a", "b"])
    assert world.store.similarity_search("a") == []


def test_langchains_own_bookkeeping_of_sources_works(world):
    from langchain_core.indexing import InMemoryRecordManager, index

    both = EncryptedVectorStore(Letters(), owner=world.owners[0], user=world.user)
    manager = InMemoryRecordManager("n")
    manager.create_schema()
    for wanted in (["aaa", "bbb"], ["aaa", "ccc"]):
        sources = [Document(page_content=text, metadata={"source": text}) for text in wanted]
        told = index(sources, manager, both, cleanup="full", source_id_key="source", key_encoder="sha256")
        assert sorted(texts(both.similarity_search("a", k=9))) == wanted
    assert (told["num_added"], told["num_skipped"], told["num_deleted"]) == (1, 1, 1)


def test_a_document_without_an_id_reads_no_records(world, monkeypatch):
    world.anna.add_texts(["aaa"])
    monkeypatch.setattr(type(world.owners[0]), "records", lambda *_: pytest.fail("records were read"))
    other = EncryptedVectorStore(Letters(), owner=world.deployment.owner("anna"))
    other.add_texts(["bbb"])
    assert len(world.store.similarity_search("a")) == 2


def test_a_deployment_without_records_is_refused(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 8)) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        with pytest.raises(ParameterError, match="preview_size"):
            EncryptedVectorStore(Letters(), owner=owner)
        owner.add_vectors(np.eye(8))
        owner.grant(user)
        with pytest.raises(ParameterError, match="records"):
            EncryptedVectorStore(Letters(), user=user).similarity_search("a")


def test_grants_bound_what_a_user_may_do(world, caplog):
    world.anna.add_texts(["aaa", "bbb"], ids=["1", "2"])
    other = world.deployment.create_user("otto")
    store = EncryptedVectorStore(Letters(), user=other)
    for call in (lambda: store.similarity_search("a"), lambda: store.get_by_ids(["1"])):
        with pytest.raises(AccessDeniedError):
            call()
    world.owners[0].grant(other, scores=False)
    assert texts(store.similarity_search("a", k=1)) == ["aaa"]
    with pytest.raises(AccessDeniedError, match="no scores"):
        store.similarity_search_with_score("a", k=1)
    small = EncryptedVectorStore(Letters(), user=world.user, most_read=1)
    assert small.get_by_ids(["2"]) == []
    (told,) = [record.getMessage() for record in caplog.records if record.name.startswith("mipp.compat")]
    assert "anna" in told and "most_read" in told
    assert small.similarity_search("b", k=1)[0].id == "2" and texts(small.get_by_ids(["2"])) == ["bbb"]


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_other_metrics(tmp_path, metric):
    world = World(tmp_path / "d", metric)
    with world.deployment:
        world.anna.add_texts(["aaa", "aab", "ccc"])
        found = world.store.similarity_search_with_score("aaa", k=3)
        assert texts(d for d, _ in found) == ["aaa", "aab", "ccc"]
        values = [value for _, value in found]
        assert values == sorted(values, reverse=metric == "ip")
        scores = [score for _, score in world.store.similarity_search_with_relevance_scores("aaa", k=3)]
        assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1


def test_stores_of_texts_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EncryptedVectorStore.from_texts(["aaa", "bbb"], Letters(), [{"n": 1}, {"n": 2}], ids=["1", "2"]) as store:
        assert store.similarity_search("b", k=1)[0].metadata == {"n": 2} and list(tmp_path.iterdir())
    store.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ParameterError, match="preview_size"):
        EncryptedVectorStore.from_texts(["x" * 600], Letters(), preview_size=512)
    assert not list(tmp_path.iterdir())
    with EncryptedVectorStore.from_documents([Document(page_content="aaa")], Letters(), folder=tmp_path / "d") as store:
        assert len(store.similarity_search("a")) == 1
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        again = EncryptedVectorStore.from_texts(
            ["bbb"], Letters(), owner=deployment.owner("owner"), user=deployment.user("user")
        )
        assert texts(again.similarity_search("b")) == ["bbb", "aaa"]


def test_reprs_and_logs_hold_nothing_secret(world, caplog):
    world.anna.add_texts(["a secret text"], ids=["1"])
    with caplog.at_level("DEBUG"):
        found = world.store.similarity_search("a secret text")
    assert found and "secret" not in caplog.text + repr(world.store) + repr(world.anna)
    assert repr(world.anna) == "EncryptedVectorStore(owner='anna')"
    record = world.owners[0].records(world.user.index().ids())[0]
    assert json.dumps(record.metadata) == (
        '{"caption": "a secret text", "document": {"id": "1", "metadata": {}}}'
    )  # what other programs show


@pytest.mark.slow  # servers over a network
def test_over_a_network(tmp_path):
    with made("network", tmp_path, mipp.Encoding("cosine", 8), preview_size=1024) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.grant(user)
        store = EncryptedVectorStore(Letters(), owner=owner, user=user)
        store.add_texts(["aaa", "bbb"], ids=["1", "2"])
        store.add_texts(["ccc"], ids=["2"])
        assert texts(store.similarity_search("ccc", k=1)) == ["ccc"] and texts(store.get_by_ids(["1"])) == ["aaa"]
        store.delete(["1"])
        assert texts(store.similarity_search("aaa")) == ["ccc"]


def test_without_langchain_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    monkeypatch.delitem(sys.modules, "mipp.compat.langchain")
    with pytest.raises(MissingExtraError, match=r"\[langchain\]"):
        importlib.import_module("mipp.compat.langchain")


def test_an_owner_with_many_rows_harms_its_own_documents_alone(world, monkeypatch):
    world.anna.add_texts(["aaa"], ids=["1"])
    world.owners[1].add_vectors(np.eye(8)[[0] * 6], metadata=[{"caption": f"b{n}"} for n in range(6)])
    store = EncryptedVectorStore(Letters(), user=world.user, most_read=5)
    fetched = []
    preview = type(world.user).preview
    monkeypatch.setattr(
        type(world.user), "preview", lambda self, hits, **o: fetched.extend(hits) or preview(self, hits, **o)
    )
    assert texts(store.get_by_ids(["1", "none"])) == ["aaa"]
    assert {getattr(hit, "owner_name", None) for hit in fetched} == {"anna"}
    row = f"{world.owners[1].batches()[0].id.hex()}:3"
    assert texts(store.get_by_ids([row, "1"])) == ["b3", "aaa"], "the ids of rows are found whatever the limit"


def test_halves_of_surrogate_pairs_harm_nobody(world):
    """JSON can hold them, UTF-8 cannot."""
    world.anna.add_texts(["aaa", "aab"], ids=["1", "2"])
    half = "\ud800"
    hostile = [
        {"caption": half}, {"caption": "x", half: [{half: half}]},
        {"caption": "y", "document": {"id": half, "metadata": {}}},
        {"caption": half, "document": {"id": "2", "metadata": {"a": half}}},
    ]  # fmt: skip
    world.owners[1].add_vectors(np.eye(8)[[0] * 4], metadata=hostile)
    store = EncryptedVectorStore(DeterministicFakeEmbedding(size=8), user=world.user)
    assert len(store.max_marginal_relevance_search("a", k=4, fetch_k=6)) == 4
    for document in [*store.similarity_search("a", k=6), *store.get_by_ids(["2"])]:
        assert json.loads(document.model_dump_json())["page_content"].encode()
    for call in (
        lambda: world.anna.add_texts(["a"], ids=[half]),
        lambda: world.anna.add_texts(["a"], ids=["a" + half]),
    ):
        with pytest.raises(ParameterError, match="no character"):
            call()
