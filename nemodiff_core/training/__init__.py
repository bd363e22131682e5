"""The recipe that made the bundled model: corpus, vocabulary, joint objective, optimiser, loop."""
