import pytest

from mipp.backends import dask as dask_module
from mipp.backends.pool import Pool, local_cluster


@pytest.fixture(scope="module")
def pool():
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    made = Pool(local_cluster(2))
    yield made
    made.close()


@pytest.fixture
def small(monkeypatch):
    """Tasks of few rows, so that there are many."""
    monkeypatch.setattr(dask_module, "_TASK_BYTES", 64 << 10)
