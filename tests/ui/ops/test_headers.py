"""Headers on every answer, and a policy that names a page's own scripts."""

from __future__ import annotations

import base64
import hashlib

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.ops.headers import SafeHeaders, policy

PAGE = '<html><head><script src="./a.js"></script><script>let a = 1;</script></head><body><script type="module">\nlet b;\n</script></body></html>'


async def page(request):
    return HTMLResponse(PAGE)


async def slow_page(request):
    async def parts():
        for at in range(0, len(PAGE), 7):
            yield PAGE[at : at + 7]

    return StreamingResponse(parts(), media_type="text/html")


async def text(request):
    return PlainTextResponse("<script>no page</script>")


def client(**settings) -> TestClient:
    routes = [Route("/", page), Route("/slow", slow_page), Route("/text", text)]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SafeHeaders, **settings)]))


def rules(answer) -> dict[str, list[str]]:
    return {rule.split()[0]: rule.split()[1:] for rule in answer.headers["content-security-policy"].split("; ")}


def sha(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_a_page_may_run_its_own_inline_scripts_and_no_others():
    for path in ("/", "/slow"):
        answer = client(head="<style>x</style><script>in the head</script>").get(path)
        assert answer.text == PAGE
        allowed = rules(answer)["script-src"]
        assert allowed == ["'self'", "'unsafe-eval'", sha("let a = 1;"), sha("\nlet b;\n"), sha("in the head")]


def test_what_is_no_page_may_run_nothing_inline():
    answer = client().get("/text")
    assert rules(answer)["script-src"] == ["'self'", "'unsafe-eval'"]


def test_no_other_host_is_named_but_those_that_may_frame_the_page():
    answer = client(frames=("https://huggingface.co", "https://*.hf.space")).get("/")
    assert rules(answer)["frame-ancestors"] == ["'self'", "https://huggingface.co", "https://*.hf.space"]
    elsewhere = [name for name, sources in rules(answer).items() if any("//" in source or source == "*" for source in sources)]
    assert elsewhere == ["frame-ancestors"]
    assert "//" not in policy() and rules(answer)["object-src"] == ["'none'"]


def test_every_answer_says_how_it_is_to_be_taken():
    for path in ("/", "/text", "/nowhere"):
        headers = client().get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert "camera=()" in headers["permissions-policy"] and "content-security-policy" in headers
