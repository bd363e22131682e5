"""Hosting: the manifest, and decoding that happens in another process or on another machine."""
