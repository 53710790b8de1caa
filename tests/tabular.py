"""A table with columns of every kind, and gaps."""

import numpy as np
import pandas as pd

ROWS = 200


def make_table(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2021-01-01")
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 10, rows).round(1),
            "visits": rng.integers(0, 5, rows),
            "city": rng.choice(["Rome", "Oslo", "Bonn"], rows, p=[0.5, 0.3, 0.2]).astype(object),
            "charge": rng.normal(100, 5, rows).round(2).astype(str).astype(object),
            "member": rng.choice(["Yes", "no"], rows).astype(object),
            "flag": rng.random(rows) > 0.5,
            "joined": start + pd.to_timedelta(rng.integers(0, 900 * 24, rows), "h"),
            "born": (start - pd.to_timedelta(rng.integers(0, 9000, rows), "D")).strftime(
                "%Y-%m-%d"
            ),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], rows)),
            "customer": [f"c{i}" for i in range(rows)],
            "row": np.arange(rows),
            "constant": 1,
            "empty": np.full(rows, np.nan),
        }
    )
    table.loc[3, "age"] = np.nan
    table.loc[4, "city"] = None
    table.loc[5, "city"] = "Bergen"
    table.loc[[7, 8], "charge"] = " "
    table.loc[9, "joined"] = pd.NaT
    return table
