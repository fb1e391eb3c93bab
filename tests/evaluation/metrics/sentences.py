"""Captions with references, as they are written, for the metrics to compare."""

from __future__ import annotations

CANDIDATES = [
    "a man is riding a brown horse on the beach",
    "two dogs play with a red ball in the snow",
    "a dog barks loudly",
    "the the the the",
    "A woman's singing, and the crowd doesn't cheer!",
]
REFERENCES = [
    ["A man rides a horse along the beach.", "a person riding a brown horse on the beach at noon"],
    ["two dogs playing in the snow", "Dogs are running after a red ball in snow.", "two dogs"],
    ["a dog is barking", "a loud dog barks while birds are chirping"],
    ["the cat sat on the mat", "there is a cat on the mat"],
    ["a woman sings while the crowd does not cheer", "a woman is singing to a quiet crowd"],
]
