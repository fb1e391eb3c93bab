"""Procedural worlds: every modality of one event, rendered from a seed, and an oracle of its facts.

Knows numpy and nothing of models, so that what is generated can be measured without one.
"""
