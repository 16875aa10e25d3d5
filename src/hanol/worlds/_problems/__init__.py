"""Problems with one right answer and a program that checks it: what `open_problems` opens."""
