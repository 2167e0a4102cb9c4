"""The tables and the plot of the server under load."""

from docs.figures.serving import load, page


def rows():
    return [{"clients": clients, "tokens_per_second": 900.0, "alone_tokens_per_second": 1000.0, "ratio": 0.9,
             "per_cpu": 450.0, "alone_per_cpu": 500.0, "answers": 7, "errors": 0, "memory_bytes": 9e7,
             "first": load.quantiles([0.3, 0.1, 0.2]), "total": [1.0, 12.0]} for clients in load.CLIENTS]


def test_tables_and_plot(tmp_path):
    values = {page.STEP: {"rows": rows(), "how": "measured"}}
    table = page.tables(values)["table.serving"].splitlines()
    assert table[2] == "| 1 | 1,000 | 900 | 0.90 | 500; 450 | 0.90 | 200 ms | 300 ms | 12.0 s | 7 | 0 | 90 MB |"
    assert len(table) == 2 + len(load.CLIENTS)
    assert page.FILE in page.draw(values, tmp_path)[page.PICTURE] and (tmp_path / page.FILE).exists()
    assert page.tables({}) == page.draw({}, tmp_path) == {}


def test_many_times_are_kept_as_some():
    kept = load.quantiles(range(100_000, 0, -1))
    assert len(kept) <= 2 * load.SPREAD and kept == sorted(kept) and page.at(kept, 0.5) in range(49_000, 51_000)
