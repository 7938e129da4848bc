"""A vector store for LangChain (extra ``langchain``): ``from mipp.compat.langchain import EncryptedVectorStore``."""

from ...errors import missing_extra

try:
    import langchain_core as _installed  # noqa: F401
except ImportError:
    raise missing_extra("the vector store needs langchain-core", "langchain") from None

from .store import EncryptedVectorStore

__all__ = ["EncryptedVectorStore"]
