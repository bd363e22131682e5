"""The `nemodiff` command."""
