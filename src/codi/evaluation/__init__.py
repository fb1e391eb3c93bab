"""How good a model is: suites of tasks, measured by oracles and reported as cells."""
