"""Stub."""
import argparse
SUMMARY = "stub"
def configure(parser: argparse.ArgumentParser) -> None:
    """Stub."""
def run(arguments: argparse.Namespace) -> int:
    """Stub."""
    return 0
