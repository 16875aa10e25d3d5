"""Experiments that re-run the headline claims of the papers, each beside its recorded result.

A module `claims/<system>/<claim>.py` defines one `hanol.claims.Claim`; `hanol claims run` writes
`<claim>.json` beside it. Modules without a claim hold what several experiments share.
"""
