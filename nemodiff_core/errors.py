"""Errors that reach a person: each message is one sentence that says what to do."""

from __future__ import annotations


class NemodiffError(Exception):
    """Something the user can act on; the message is the whole explanation."""


class ConfigError(NemodiffError):
    """A config.json that does not describe a model of this family."""


class CheckpointError(NemodiffError):
    """A checkpoint that cannot be found, read or trusted."""


class RequestError(NemodiffError):
    """A decoding request outside what is possible or allowed here."""


class TraceError(NemodiffError):
    """A file that is not a sound trace."""
