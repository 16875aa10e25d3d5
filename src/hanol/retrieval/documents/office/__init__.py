"""Reads Office files: Open XML (Word, Excel, PowerPoint) and OpenDocument."""
