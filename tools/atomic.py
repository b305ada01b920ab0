"""Write a file whole or not at all."""

import os


def write(path, content, before=None):
    """Write text or bytes to `path`, and return True.

    With `before`, nothing is written and False is returned when the file does not hold that any
    more: somebody else has changed it in the meantime.
    """
    if before is not None and path.read_bytes() != as_bytes(before):
        return False
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(as_bytes(content))
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return True


def as_bytes(content):
    """Text as UTF-8, bytes as they are."""
    return content.encode("utf-8") if isinstance(content, str) else content
