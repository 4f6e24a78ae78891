"""Files that other packages have written: one module for each kind, none needs the package."""
