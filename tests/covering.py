"""Choose a few combinations of options that cover all small ones."""

import random
from itertools import combinations, product


def covering(options, is_valid=lambda case: True, strength=2):
    """Cases with every combination of `strength` options that a valid case has.

    Args:
        options: name -> values.
        is_valid: of a case, a dictionary of name -> value.
        strength: how many options are combined.

    >>> cases = covering({"a": range(3), "b": range(3), "c": range(3)})
    >>> len(cases) < 27, len({(case["a"], case["c"]) for case in cases})
    (True, 9)
    """
    everything = [
        case
        for values in product(*options.values())
        if is_valid(case := dict(zip(options, values, strict=True)))
    ]
    # Of so many cases, a few thousand have every combination of few options.
    everything = random.Random(0).sample(everything, min(len(everything), 4000))

    def parts(case):
        return set(combinations(case.items(), strength))

    chosen, covered = [], set()
    # Those with the most new combinations first.
    for least in range(len(list(combinations(options, strength))), 0, -1):
        remaining = []
        for case in everything:
            new = parts(case) - covered
            if len(new) >= least:
                chosen.append(case)
                covered |= new
            elif new:
                remaining.append(case)
        everything = remaining
    return chosen
