"""Decode without the web app: `python examples/quick_start.py`."""

from nemodiff_core import load

model = load()  # the bundled model; or a folder, or "nvidia/Nemotron-Labs-Diffusion-3B"

run = model.run("What is 859 + 344?", mode="diffusion", block_length=16, threshold=0.9)
for step in run:
    print(f"{step.index:3} {step.phase:8} {len(step.events):2} events   {run.text}")

print(f"\n{run.metrics['tokens']} tokens in {run.metrics['nfe']} forwards: {run.metrics['tpf']:.2f} tokens per forward")

# Self-speculation writes exactly what autoregressive decoding writes, in fewer forwards.
same = model.write("What is 859 + 344?", mode="linear_spec") == model.write("What is 859 + 344?", mode="ar")
print("identical to autoregressive decoding:", same)

run.trace.save("run.json.gz")  # open it in the app, or send it to somebody
