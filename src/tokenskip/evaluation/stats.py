"""Intervals and tests, from counts and arrays. Pure; the one bootstrap is seeded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
RESAMPLES = 10_000

Array = npt.NDArray[np.float64]


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95% Wilson score interval of `k` successes in `n`; (0, 1) when nothing was tried."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(lost: int, gained: int) -> float:
    """The two-sided p-value of McNemar's exact test: a fair coin decides each problem that changed."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def bootstrap_mean(values: Array, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile-bootstrap interval of the mean of `values`, shape (problems,)."""
    if not len(values):
        return float("nan"), float("nan")
    # Resampling n values with replacement = drawing how often each distinct value occurs: no (resamples, n) array.
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    low, high = np.percentile(draws @ distinct / len(values), [2.5, 97.5])
    return float(low), float(high)


def clustered_wilson(means: Array, n_rows: int) -> tuple[float, float]:
    """The 95% Wilson interval of pass@1 where problems were sampled several times; `means`: of each, (problems,).

    With p the mean of the means and v its variance over problems, the rows are worth n = p (1 - p) / v independent
    ones (Kish's design effect, 1965; Dean and Pagano, 2015): at least one a problem, at most all of them.
    """
    n_problems = len(means)
    if not n_problems:
        return 0.0, 1.0
    p = float(means.mean())
    if n_rows == n_problems or p in (0, 1):  # one sample each; or all alike, which several samples do not make surer
        return wilson(round(p * n_problems), n_problems)
    variance = float(means.var(ddof=1)) / n_problems if n_problems > 1 else 0.0
    n = min(max(p * (1 - p) / variance, n_problems), n_rows) if variance else n_rows
    # Wilson's formula by hand: scipy takes whole numbers only, and what the rows are worth is none.
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * (p * (1 - p) / n + Z95**2 / (4 * n * n)) ** 0.5
    return centre - half, centre + half
