"""Files of many kinds to titled pages of clean text."""
