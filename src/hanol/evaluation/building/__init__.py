"""Building suites: parallel text, what is hard to translate in it, candidates of known quality."""
