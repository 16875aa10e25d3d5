"""Search in your own documents, and checks of answers that cite them.

An `Index` is a folder with an index: documents of many kinds become titled pages, pages become
passages of about 200 tokens, and passages are found by words (BM25, with Korean, Chinese and
Japanese), by meaning (optional, with an embedder) or both. A `SourceList` numbers the sources of
one run; `check_citations` compares every sentence of an answer with the passages that it cites.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.retrieval.citations._citations import (
        CheckedSentence,
        Citation,
        CitationReport,
        check_citations,
    )
    from hanol.retrieval.citations._sentences import SentenceSpan, citation_numbers, split_sentences
    from hanol.retrieval.citations._stems import word_stems
    from hanol.retrieval.documents._archive import parse_archive
    from hanol.retrieval.documents._documents import (
        KINDS,
        Document,
        DocumentTable,
        Page,
        parse_document,
        read_document,
    )
    from hanol.retrieval.documents._remarks import Remark
    from hanol.retrieval.documents._split import split_passages
    from hanol.retrieval.index._dense import Embedder, SentenceEmbedder
    from hanol.retrieval.index._index import DocumentInfo, Index
    from hanol.retrieval.index._passage import (
        Passage,
        Source,
        SourceList,
        document_passages,
        find_addresses,
        join_pages,
    )
    from hanol.retrieval.index._search import rank_texts, reciprocal_rank_fusion
    from hanol.retrieval.index._update import FailedFile, FileProgress, IndexReport

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "KINDS",
    "CheckedSentence",
    "Citation",
    "CitationReport",
    "Document",
    "DocumentInfo",
    "DocumentTable",
    "Embedder",
    "FailedFile",
    "FileProgress",
    "Index",
    "IndexReport",
    "Page",
    "Passage",
    "Remark",
    "SentenceEmbedder",
    "SentenceSpan",
    "Source",
    "SourceList",
    "check_citations",
    "citation_numbers",
    "document_passages",
    "find_addresses",
    "join_pages",
    "parse_archive",
    "parse_document",
    "rank_texts",
    "read_document",
    "reciprocal_rank_fusion",
    "split_passages",
    "split_sentences",
    "word_stems",
]
