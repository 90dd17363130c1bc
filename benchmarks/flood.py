"""`python -m benchmarks.flood`: how many frames of a flooder get through, by simulation.

Each environment of the function has a `Pace` of its own. A frame goes to any of them with the same
probability; Lambda prefers those used last, so this is the worst case. The connection ends when one
of them closes it.
"""

import random

from chalicelib.pace import Pace, Verdict

SECONDS = 60
RATES = (50, 500)  # frames a second
ENVIRONMENTS = (1, 10, 100)


def main() -> None:
    print("frames/s  environments  answered in the first second  in a minute  closed after")
    for rate in RATES:
        for environments in ENVIRONMENTS:
            first, minute, closed = flood(rate, environments)
            end = f"{closed:.1f} s" if closed < SECONDS else "never"
            print(f"{rate:8,}  {environments:12,}  {first:28,}  {minute:11,}  {end:>12}")


def flood(rate: int, environments: int) -> tuple[int, int, float]:
    """The frames answered in the first second and in a minute, and the second of the end."""
    chance = random.Random(1)
    now = 0.0
    paces = [Pace(clock=lambda: now) for _ in range(environments)]
    first = minute = 0
    for frame in range(rate * SECONDS):
        now = frame / rate
        verdict = chance.choice(paces).judge("flooder", 1)
        if verdict is Verdict.CLOSE:
            break
        if verdict is Verdict.ANSWER:
            minute += 1
            first += now < 1
    else:
        now = SECONDS
    return first, minute, now


if __name__ == "__main__":
    main()
