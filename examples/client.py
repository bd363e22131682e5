"""Watch an answer being written, from another program: `python examples/client.py "What is 859 + 344?"`.

It needs gradio_client and a running app (`make run`), and nothing else of this project.
"""

import argparse

from gradio_client import Client

parser = argparse.ArgumentParser(description="Ask a running nemodiff app.")
parser.add_argument("prompt")
parser.add_argument("--url", default="http://127.0.0.1:7860/", help="where the app is")
parser.add_argument("--mode", default="diffusion", choices=["ar", "diffusion", "linear_spec", "quadratic_spec"])
parser.add_argument("--tokens", type=int, default=128, help="longest answer")
asked = parser.parse_args()

client = Client(asked.url, verbose=False)
job = client.submit(asked.prompt, mode=asked.mode, max_new_tokens=asked.tokens, settings={"block_length": 16}, api_name="/decode")

shown = ""
for answer in job:  # at most 25 a second; the last one is whole
    if answer["state"] == "waiting" and answer["said"]:
        print(answer["said"])
    elif answer["text"] != shown:
        shown = answer["text"]
        print(f"{answer['forwards']:4} forwards: {shown}")

figures = job.result()["metrics"]
print(f"\n{figures['tokens']} tokens, {figures['tpf']:.2f} tokens per forward, {figures['tokens_per_second']:.0f} tokens/s")
