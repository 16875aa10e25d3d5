"""The World Factbook, with Wikipedia's leads where they are installed, as a world."""
