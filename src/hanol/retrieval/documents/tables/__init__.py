"""Reads tables of every format: columns with names, forms, groups of rows."""
