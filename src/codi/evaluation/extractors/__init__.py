"""From media to the features that metrics compare: one network a file, weights from the user.

Nothing is downloaded unasked: without weights an extractor says which file it wants.
"""
