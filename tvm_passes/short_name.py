"""Source names shortened to ids; imports no TVM."""

from __future__ import annotations

import hashlib
import re

LONGEST = 32
"""Maximum number of characters that are kept of a source name."""


def short_name(name: str) -> str:
    """Shorten a source name to letters, digits and underscores.

    ``/blocks/blocks.0/expand/Conv`` → ``blocks_0_expand_Conv``: exporters repeat a container's
    name. The end of a long name is kept, followed by a hash of the whole name. The result is empty
    for a name without a Latin letter.
    """
    once = re.sub(r"(?<![^/.])([^/.]+)/(?=\1\.)", "", name)
    words = re.sub(r"[^A-Za-z0-9]+", "_", once).strip("_")
    if not re.search("[A-Za-z]", words):
        return ""
    if len(words) <= LONGEST:
        return words
    tail = words[-LONGEST:]
    digest = hashlib.blake2b(name.encode(), digest_size=2).hexdigest()
    start = re.search("_(?=[A-Za-z])", tail)
    return f"{tail[start.end() :] if start else tail}_{digest}"
