"""`hanol chat`: a conversation with a model, in a terminal or from a pipe."""

from hanol.cli.chat._session import chat

__all__ = ["chat"]
