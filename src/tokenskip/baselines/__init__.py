"""Small references of the method's relatives, to be measured beside it: `benchmarks/families.py` runs them.

Nothing else of the package imports this chapter. Each family is one module; `rows`, `fit` and `decode` are shared.
"""
