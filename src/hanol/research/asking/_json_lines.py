"""The values of a JSON document as sentences: what a value is called, from the outermost name on.

Documents are read with one line per value, so each line is a place that can be quoted.
"""

import re
from collections.abc import Iterator

_LINE = re.compile(r'( *)(?:"((?:[^"\\]|\\.)*)": )?(\S.*?),?')
_NAMES = {"name", "title", "id", "service", "label", "key", "이름", "제목"}
_JOINTS = re.compile(r"[_-]|(?<=[a-z])(?=[A-Z])")


def json_lines(text: str) -> Iterator[tuple[str, str]]:
    r"""The values of a passage of JSON: each with its names, and its line as it stands there.

    An object of a list, and the outermost one, is called by its first value, if that is a name.

    Example:
        >>> list(json_lines('{\n "name": "gate",\n "tls": {\n  "port": 8443\n }\n}'))
        [('name: gate', '"name": "gate"'), ('gate: tls: port: 8443', '"port": 8443')]
    """
    path: list[tuple[int, str]] = []  # indentation and name of what is open
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        indent, key, value = len(match[1]), match[2], match[3]
        while path and path[-1][0] >= indent:
            path.pop()
        if value in ("{", "["):
            path.append((indent, key or ""))
        elif value[0] not in "{}[]":
            bare = value.strip('"')
            names = [name for _, name in path if name]
            yield ": ".join([*names, *([key] if key else []), bare]), match[0].strip(" ,")
            if path and not path[-1][1] and key and key.lower() in _NAMES:
                path[-1] = (path[-1][0], bare)


def spelled(text: str) -> str:
    """Names of a program as words: "pool_size" is "pool size".

    Example:
        >>> spelled("poolSize on_call")
        'pool Size on call'
    """
    return _JOINTS.sub(" ", text)
