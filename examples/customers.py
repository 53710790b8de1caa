"""Make a table of customers with words, gaps and dates, by a known law.

    python examples/customers.py customers.csv --rows 4000

A customer of a telephone company leaves within the next month with the probability
`sigmoid(-3.2 + a + b + c + d + e)`, where

- `a` is 2.2 for the plan "monthly", 0.4 for "yearly", and 0 for "two years";
- `b` is -0.04 for each month since the customer joined, at most -2;
- `c` is 0.02 for each unit that the monthly charge lies above 60;
- `d` is 0.6 for each call to support, at most 2.4; where nobody counted the calls (15 % of the
  customers, a gap) it is 1.2, since it is the busy branches that do not count;
- `e` is 0.8 in Essen and Turin, -0.8 in Ghent, and 0 in the other cities, some of them rare.

About 20 % leave. `total_charges` is written as text, with a blank for customers of the first month,
and `customer_id` says nothing.
"""

import argparse

import numpy as np
import pandas as pd

CITIES = ["Essen", "Turin", "Ghent", "Lyon", "Porto", "Graz", "Brno", "Cork", "Vigo", "Lund"]
PLANS = {"monthly": 2.2, "yearly": 0.4, "two years": 0.0}
TODAY = pd.Timestamp("2026-01-01")


def make_customers(rows: int = 4000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table with the column `left`, "yes" or "no", and each row's true probability."""
    random = np.random.default_rng(seed)
    months = random.exponential(24, rows).astype(int).clip(0, 96)
    plan = random.choice(list(PLANS), rows, p=[0.55, 0.25, 0.2])
    city = random.choice(
        CITIES, rows, p=[0.2, 0.2, 0.2, 0.15, 0.1, 0.08, 0.05, 0.018, 0.001, 0.001]
    )
    charge = random.gamma(9, 7, rows).round(2)
    calls = random.poisson(0.7, rows).astype(float)
    calls[random.random(rows) < 0.15] = np.nan
    logit = (
        -3.2
        + np.vectorize(PLANS.get)(plan)
        - np.minimum(0.04 * months, 2.0)
        + 0.02 * (charge - 60)
        + np.where(np.isnan(calls), 1.2, np.minimum(0.6 * calls, 2.4))
        + 0.8 * np.isin(city, ["Essen", "Turin"])
        - 0.8 * (city == "Ghent")
    )
    probability = 1 / (1 + np.exp(-logit))
    joined = TODAY - pd.to_timedelta(30 * months + random.integers(0, 30, rows), unit="D")
    table = pd.DataFrame(
        {
            "customer_id": [f"C{number:07d}" for number in random.permutation(rows)],
            "plan": plan,
            "city": city,
            "joined": joined.strftime("%Y-%m-%d"),
            "monthly_charge": charge,
            "total_charges": [
                f"{m * c:.2f}" if m else " " for m, c in zip(months, charge, strict=True)
            ],
            "support_calls": calls,
            "paperless": random.choice(["yes", "no"], rows),
            "left": np.where(random.random(rows) < probability, "yes", "no"),
        }
    )
    return table, probability


def write_customers(path: str, rows: int = 4000, seed: int = 0) -> None:
    """Write a table as CSV, and print its size."""
    table, _ = make_customers(rows, seed)
    table.to_csv(path, index=False)
    print(f"{path}: {len(table)} customers, {(table.left == 'yes').mean():.1%} left")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a table of customers.")
    parser.add_argument("path", help="the CSV file to write")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_customers(given.path, given.rows, given.seed)


if __name__ == "__main__":
    main()
