import os
import sys


def find_files(root, pattern):
    """Yield the paths below root that match pattern."""
