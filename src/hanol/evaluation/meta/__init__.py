"""Judges and metrics judged: how far they agree with people, and what follows from that."""
