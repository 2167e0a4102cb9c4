"""Which tile the array takes when, and what it is of: products, one after the other."""

from amaranth.lib import data

# What a product is: of a matrix, or of the records of the rows that a tree layer visits, each as a
# row of its own, or added up.
DENSE, WALK, GATHER = range(3)


class Product(data.Struct):
    """One section of the stream for the array.

    `DENSE`: rows x (chunks * C) trits times the codes of a buffer. In the other modes ``rows`` is
    the number N of rows that each active slot visits, ``chunks`` the tiles of a record, and
    ``length`` the number of sums that a `GATHER` gives.
    """

    mode: 2
    buffer: 1
    rows: 24
    chunks: 16
    length: 16
