"""Colours, fonts and the page's own CSS. No web font: nothing is fetched from another host."""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """A quiet theme: one blue for what can be pressed, greys for the rest."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        secondary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        text_size=gr.themes.sizes.text_md,
        radius_size=gr.themes.sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def shown_in(*views: str) -> list[str]:
    """Classes for what only some views show."""
    return ["nd-in", *(f"nd-in-{view.lower()}" for view in views)]


def head(views: Sequence[str], exports: bool = True) -> str:
    """What the page's head holds: its style, and the view that a link asks for, known before anything is drawn.

    Without `exports` the player has no menu of them.
    """
    names = [view.lower() for view in views]
    rules = "\n".join(f'html[data-nd-view="{name}"] .nd-in:not(.nd-in-{name}) {{ display: none !important; }}' for name in names)
    rules += "" if exports else "\n#nd-player .ndp-export-place { display: none; }"
    choose = (
        f"const views = {json.dumps(names)}; const asked = new URLSearchParams(location.search).get('view');"
        "document.documentElement.dataset.ndView = views.includes(asked) ? asked : views[0];"
    )
    return f"<style>{CSS}{rules}</style><script>{choose}</script>"


# Three areas: what to ask, the stage, and the knobs. On a phone the stage comes before the knobs.
CSS = """
.gradio-container { width: 100%; max-width: 1500px !important; margin: 0 auto; padding: 12px 16px !important; }
.gradio-container { overflow: clip !important; } /* Gradio's `hidden` would keep everything in it from sticking */
.gradio-container .main, .gradio-container .wrap { min-width: 0; }
.gradio-container .main.fillable { padding: 0 !important; }
#nd-player .html-container, #nd-title .html-container, #nd-status .html-container, #nd-notice .html-container { padding: 0; }
#nd-head { align-items: center; gap: 8px 20px; flex-wrap: wrap; }
#nd-head > * { flex: 0 1 auto; min-width: 0 !important; width: auto; }
#nd-title h1 { font-size: 1.35rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
#nd-title p { margin: 2px 0 0; color: var(--body-text-color-subdued); font-size: 0.92rem; }
#nd-status { font-size: 0.86rem; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
#nd-status p, #nd-notice p { margin: 0; }
#nd-status p::before { content: "● "; color: #009e73; }
#nd-status .nd-loading::before { content: "◌ "; color: #b8860b; }
#nd-status .nd-failed::before { content: "✕ "; color: #d55e00; }
#nd-which { flex-wrap: wrap; align-items: center; justify-content: flex-end; gap: 4px 12px; margin-left: auto; }
#nd-which > * { flex: 0 1 auto; min-width: 0 !important; width: auto; }
#nd-models { display: none; flex: 1 1 100%; }
html[data-nd-models] #nd-models { display: flex; }
#nd-model-row { align-items: end; flex-wrap: wrap; gap: 8px 12px; }
#nd-model-row > *, #nd-model-row .form > * { flex: 1 1 260px; min-width: 0 !important; }
#nd-model-row .form { flex-wrap: wrap; }
#nd-model-row > button { flex: 0 1 auto; }
#nd-model-about p, #nd-model-said p { margin: 0; font-size: 0.86rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
#nd-model-said .nd-failed { color: var(--body-text-color); }
#nd-model-said .nd-failed::before { content: "✕ "; color: #d55e00; }
#nd-model-said:not(:has(p)) { display: none; }
#nd-page { display: grid; grid-template: "ask stage" auto "knobs stage" 1fr / minmax(300px, 380px) minmax(0, 1fr);
  gap: 14px 20px; align-items: start; }
#nd-page > * { min-width: 0 !important; width: 100%; }
#nd-ask { grid-area: ask; }
#nd-knobs { grid-area: knobs; }
#nd-stage { grid-area: stage; }
#nd-board-budget { display: grid; grid-template: "plane roof" auto "runs roof" 1fr "table table" auto "bench bench" auto / minmax(0, 1.2fr) minmax(0, 1fr);
  gap: 14px; align-items: start; margin-bottom: 14px; }
#nd-plane-card { grid-area: plane; }
#nd-runs-card { grid-area: runs; }
#nd-roof-card { grid-area: roof; }
#nd-table-card { grid-area: table; }
#nd-bench-card { grid-area: bench; }
#nd-bench-row { align-items: end; flex-wrap: wrap; gap: 8px; }
#nd-bench-row > * { flex: 1 1 220px; min-width: 0 !important; }
#nd-bench-row > button { flex: 0 0 auto; }
#nd-bench-about p { margin: 0; font-size: 0.8rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
#nd-bench-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px 20px; }
#nd-bench-charts > * { min-width: 0 !important; }
#nd-bench-growth { grid-column: 1 / -1; }
.nd-card { gap: 8px !important; min-width: 0 !important; padding: 12px 14px; border: 1px solid var(--border-color-primary);
  border-radius: 12px; background: var(--block-background-fill); }
.nd-card .form, .nd-card .block { border: 0 !important; box-shadow: none; }
.nd-card .form > .block { padding: 2px 0 !important; background: none; }
.nd-card .html-container { padding: 0 !important; }
.nd-card-title h2 { margin: 0; font-size: 1rem; line-height: 1.3; }
.nd-card .form { gap: 14px !important; background: none; }
.nd-pair .form { flex-wrap: wrap; }
.nd-pair .form > * { flex: 1 1 120px; min-width: 0 !important; }
#nd-roof-model { flex: 3 1 220px !important; }
#nd-roof-context { flex: 1 1 112px !important; }
#nd-sweep-row { gap: 8px; }
#nd-sweep-progress .html-container { padding: 0 2px; }
#nd-sweep-progress p { margin: 0; font-size: 0.9rem; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
:is(#nd-sweep-progress, #nd-model-said) progress { display: block; appearance: none; width: 100%; height: 8px; margin: 2px 0 6px; border: 0; border-radius: 4px;
  overflow: hidden; background: var(--border-color-primary); }
:is(#nd-sweep-progress, #nd-model-said) progress::-webkit-progress-bar { background: none; }
:is(#nd-sweep-progress, #nd-model-said) progress::-webkit-progress-value { background: #0072b2; }
:is(#nd-sweep-progress, #nd-model-said) progress::-moz-progress-bar { background: #0072b2; }
#nd-page .form { border-radius: var(--radius-md); }
#nd-run-row, #nd-files, #nd-example-row { flex-wrap: wrap; gap: 8px; }
#nd-run-row > *, #nd-files > * { flex: 1 1 110px; min-width: 0 !important; }
#nd-example-row { align-items: end; }
#nd-example-row > * { min-width: 0 !important; }
#nd-example-row > button { flex: 0 1 auto; }
#nd-files { justify-content: flex-end; }
#nd-files > button, #nd-files > div { flex: 0 1 auto; }
#nd-files { align-items: center; }
#nd-files > #nd-with-prompt { flex: 0 0 auto; width: max-content; margin-left: auto; border: 0; background: none; padding: 0; }
#nd-notice:not(:has(p)) { display: none; }
#nd-notice { position: sticky; top: 8px; z-index: 20; }  /* what is said of a button far below must be seen there */
#nd-notice p { border-left: 4px solid #d55e00; box-shadow: 0 1px 8px rgb(0 0 0 / 16%); background: var(--block-background-fill); color: var(--body-text-color);
  padding: 8px 12px; border-radius: 4px; overflow-wrap: anywhere; }
#nd-notice p.nd-note { border-left-color: #0072b2; }
.gradio-container :is(button, input, textarea, select, [tabindex]):focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
.dark.gradio-container :is(button, input, textarea, select, [tabindex]):focus-visible,
.dark .gradio-container :is(button, input, textarea, select, [tabindex]):focus-visible { outline-color: #56b4e9; }
body.dark :is(.ndp, .ndc) { color-scheme: dark !important; }
@media (max-width: 900px) {
  .gradio-container { padding: 8px 10px !important; }
  #nd-page { grid-template: "ask" auto "stage" auto "knobs" auto / minmax(0, 1fr); gap: 12px; }
  html[data-nd-view="budget"] #nd-page { grid-template: "knobs" auto "stage" auto / minmax(0, 1fr); }
  #nd-which { margin-left: 0; flex-basis: 100%; justify-content: space-between; }
  #nd-board-budget { grid-template: "plane" auto "runs" auto "table" auto "roof" auto "bench" auto / minmax(0, 1fr); }
}
html[data-nd-view="learn"] #nd-page { grid-template: "knobs stage" 1fr / minmax(340px, 430px) minmax(0, 1fr); }
html[data-nd-view="edit"] #nd-page { grid-template: "knobs stage" 1fr / minmax(360px, 5fr) minmax(0, 7fr); }
#nd-course .html-container, #nd-editor .html-container { padding: 0; }
html[data-nd-present] :is(#nd-head, #nd-files, footer) { display: none !important; }
html[data-nd-present] .gradio-container { max-width: none !important; }
html[data-nd-present] #nd-page { grid-template-columns: minmax(380px, 40%) minmax(0, 1fr); }
html[data-nd-present] #nd-player .ndp { zoom: 1.15; }
html[data-nd-present] #nd-player :is(.ndp-export-place, .ndp-time-legend) { display: none; }
html[data-nd-present] #nd-player .ndp-figures { gap: 8px 14px; }
@media (min-width: 901px) {
  html[data-nd-present] #nd-knobs { position: sticky; top: 12px; max-height: calc(100vh - 24px); overflow-y: auto; }
}
@media (max-width: 900px) {
  html[data-nd-view="learn"] #nd-page, html[data-nd-view="edit"] #nd-page, html[data-nd-present] #nd-page { grid-template: "knobs" auto "stage" auto / minmax(0, 1fr); }
}
@media (prefers-reduced-motion: reduce) {
  .gradio-container * { transition: none !important; animation: none !important; }
}
"""
