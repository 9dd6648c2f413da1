"""A product of experts: a head for each input, and the normalised product of what they say."""

from __future__ import annotations

from mmtool.fusions.late import Late


class Poe(Late):
    """Heads' outputs (log-probabilities up to a constant, log-odds, numbers) averaged over the inputs that are there.

    For classes that is the geometric mean of the heads' probabilities, normalised: p ∝ Π p_i^(1/M), a logarithmic opinion
    pool; for tags the same of p and 1 - p, each tag by itself; for numbers the product of Gaussian experts of one
    variance. The exponent 1/M keeps inputs that say the same from adding up to a certainty that none of them has, and one
    input alone is heard as it is. Unlike `late`, a class that one input all but rules out does not come back.
    Papers: Hinton, 2002 (Neural Computation 14(8)); of modalities with missing ones, Wu & Goodman, 2018 (arXiv:1802.05335).
    """

    api = 1
    combines = "outputs"
