"""The command line: `richstore COMMAND`, and `python -m richstore COMMAND`. Extra `cli`.

Each module defines commands; `main` has the group of all, `reference` writes their page.
"""
