"""Tests of the engines; `conformance` is the suite that every engine passes."""
