"""The notebook of docs/examples runs from the first cell to the last, and is stored without outputs."""

import tempfile
from pathlib import Path

import pytest

import mipp

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "search.ipynb"
if not NOTEBOOK.is_file():
    pytest.skip("no docs beside the tests", allow_module_level=True)
nbformat = pytest.importorskip("nbformat", reason="nbclient (extra test) is not installed")

#: CI runs them: the test command has ten minutes
pytestmark = pytest.mark.slow


@pytest.fixture
def notebook():
    read = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(read)
    return read


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_stored_without_outputs(notebook):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))
    assert len(NOTEBOOK.read_bytes()) < 10_000


def test_it_runs_and_leaves_nothing_behind(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    from jupyter_client.manager import AsyncKernelManager

    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir(), temporary.mkdir()
    # neither a person's settings nor another checkout
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(Path(mipp.__file__).parents[1]))
    monkeypatch.setenv("TMPDIR", str(temporary))
    with tempfile.TemporaryDirectory() as short:  # a socket's path has about 100 bytes at most
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{short}/kernel")
        nbclient.NotebookClient(notebook, km=manager, timeout=120, resources={"metadata": {"path": work}}).execute()

    pages = [
        output.data["text/html"]
        for cell in code(notebook)
        for output in cell.outputs
        if output.output_type == "execute_result" and "text/html" in output.data
    ]
    assert [page.count("data:image/") for page in pages] == [0, 5, 0, 4, 0, 2]
    assert not list(work.iterdir()) and not list(temporary.iterdir())
    # what a program would log of the same results holds no caption and no name
    texts = [o.data["text/plain"] for cell in code(notebook) for o in cell.outputs if "data" in o]
    assert len(texts) == 6 and texts[1].startswith("[Preview(") and "blue" not in texts[0] + texts[1] + texts[3]
