"""How fast richstore is, as ratios within one run: `python -m benchmarks [--quick] [--json FILE]`.

Each figure compares two things that run in turns in the same process, on the same disk, with the
same settings; what is reported is the median over the rounds of the ratio in each round. So a
figure does not depend much on the machine, nor on what else it is doing.

The package is no part of what is installed, and uses the public names of richstore alone.
"""
