"""Judging by rubrics: what is judged and by what, protocols of several agents, what they said."""
