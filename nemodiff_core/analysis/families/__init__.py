"""One module per task family; each exports NAME, generate(rng) and check(example, text)."""
