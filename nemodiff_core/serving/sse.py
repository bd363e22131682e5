"""Server-sent events from bytes as they arrive (WHATWG HTML §9.2.6), within limits."""

from __future__ import annotations


class StreamError(Exception):
    """The bytes are no stream that is taken here; the message ends a sentence about the sender."""


class Events:
    """Feed it bytes; it answers with the data of every event that is complete."""

    def __init__(self, *, max_line: int, max_bytes: int) -> None:
        self._max_line, self._max_bytes = max_line, max_bytes
        self._read = 0
        self._rest = b""  # the line that has not ended
        self._data: list[str] = []

    def feed(self, more: bytes) -> list[str]:
        """The data of the events that end in `more`. Raises StreamError."""
        self._read += len(more)
        if self._read > self._max_bytes:
            raise StreamError(f"sent more than {self._max_bytes >> 20} MB")
        text = self._rest + more
        # A carriage return at the end may be half of a line's end.
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = rest + held
        if max(map(len, (*lines, rest))) > self._max_line:
            raise StreamError(f"sent a line of more than {self._max_line >> 10} KB")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> str | None:
        if not line:
            event, self._data = self._data, []
            return "\n".join(event) if event else None
        name, _, value = line.partition(b":")
        if name == b"data":
            try:
                self._data.append(value.removeprefix(b" ").decode())
            except UnicodeDecodeError as error:
                raise StreamError("sent bytes that are no text") from error
        return None
