"""The decoding core of nemodiff: one model, several decoders, every step recorded."""

__version__ = "0.1.0"
