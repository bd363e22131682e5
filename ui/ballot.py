"""The part of the Race form about blind races: the switch, the list of prompts, and the votes so far."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.mounted import BASE
from ui.parts import QUIET
from ui.votes import CSV_ROUTE, Votes

_NONE_YET = "<p>No votes yet.</p>"


@dataclass
class BallotForm:
    """Its components."""

    blind: gr.Checkbox
    prompts: gr.Textbox
    votes: gr.Accordion
    results: gr.HTML
    download: gr.Button

    @classmethod
    def build(cls, offered: bool = True) -> BallotForm:
        """`offered`: whether this host has blind races; the votes there are stay to be seen."""
        switch = gr.Checkbox(False, label="Blind", visible=offered, elem_id="nd-race-blind", info="Nameless answers in random order, to vote on")
        prompts = gr.Textbox(
            "", label="Prompts", lines=3, max_lines=10, elem_id="nd-race-prompts", visible=False, placeholder="What is 859 + 344?\nSort the list 2, 79, 87, 56",
            info="One a line, voted on one after another. Empty: the prompt above",
        )  # fmt: skip
        with gr.Accordion("Votes so far", open=False, elem_id="nd-race-votes") as votes:
            results = gr.HTML(_NONE_YET, elem_id="nd-race-results")
            download = gr.Button("Download votes (CSV)", size="sm", elem_id="nd-race-csv")
        return cls(switch, prompts, votes, results, download)

    def connect(self, shell: Any) -> None:
        votes: Votes = shell.app.votes
        self.blind.input(lambda on: gr.update(visible=on), self.blind, self.prompts, **QUIET)
        gr.on([self.votes.expand, shell.player.raised("voted")], lambda: table(votes), None, self.results, **QUIET)
        self.download.click(None, None, None, js=_DOWNLOAD.replace("@BASE@", BASE).replace("@ROUTE@", CSV_ROUTE), **QUIET)


def table(votes: Votes) -> str:
    """How often each setting was shown and preferred, as HTML."""
    scores = votes.scores()
    lines = "".join(
        f"<tr><th scope='row'>{html.escape(s.setting)}</th><td>{s.shown}</td><td>{s.best}</td><td>{s.tied}</td><td>{s.all_bad}</td></tr>"
        for s in scores
    )
    problem = f"<p>{html.escape(votes.problem)}</p>" if votes.problem else ""
    if not scores:
        return problem + _NONE_YET
    heads = "".join(f"<th scope='col'>{name}</th>" for name in ("Setting", "Shown", "Best", "Tied", "All bad"))
    return f"{problem}<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


_DOWNLOAD = """
() => {
  @BASE@
  const link = document.createElement('a');
  link.href = base + '@ROUTE@';
  link.download = 'nemodiff-votes.csv';
  link.click();
}
"""
