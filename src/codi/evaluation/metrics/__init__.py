"""What generated media are worth: pure functions from features, texts or times to numbers.

A file for each family. None of them knows a model, a file format or where features come from
(`codi.evaluation.extractors`); every one has a known answer and, where one exists, a published
implementation that the tests compare it with.
"""
