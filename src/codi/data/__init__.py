"""Training data: sources of items, stores on disk, batches keyed by modality name."""
