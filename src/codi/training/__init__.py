"""Training: stages as data (`recipe`), objectives as tasks, and one loop for all of them."""
