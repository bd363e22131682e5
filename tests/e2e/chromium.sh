#!/bin/sh
# Makes sure that a Chromium is there for the browser tests. $1: the Python that has Playwright.
found() {
    [ -n "$CHROMIUM" ] && [ -x "$CHROMIUM" ] && return 0
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}
found && exit 0
"$1" -m playwright install chromium && exit 0
echo "Playwright's Chromium could not be downloaded; trying the distribution's package." >&2
if command -v apt-get >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root="sudo -n"; else as_root=""; fi
    $as_root apt-get update -qq && $as_root apt-get install -y -qq chromium >/dev/null
fi
found && exit 0
echo "No Chromium: install one, or set CHROMIUM to its path, and run make test again." >&2
exit 1
