"""The demonstration behind `python -m richstore demo`: real files in, two processes, one store.

It is written as a user would write it: it imports `richstore` and uses its public names only.
`index` reads source files, `first` and `second` are the two processes, `progress` draws the bar.
"""
