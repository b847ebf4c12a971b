"""Row-sparse optimizers: each step touches only the rows that a batch used."""
