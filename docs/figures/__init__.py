"""Every number of the pages: run as ``python -m docs.figures`` from the checkout; nothing imports it."""
