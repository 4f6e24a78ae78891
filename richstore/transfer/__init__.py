"""A store as text that every program reads, and files of other packages as stores.

`export` and `load` write and read JSON Lines with all types kept, and plain JSON; `convert` reads
what shelve, sqlitedict, diskcache, ZODB, saved_instance and atomic_store have written.
"""

from richstore.transfer.converting import Converted, convert
from richstore.transfer.exporting import export
from richstore.transfer.importing import load

__all__ = ["Converted", "convert", "export", "load"]
