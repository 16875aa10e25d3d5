"""Reads files of many kinds as titled pages of clean text."""
