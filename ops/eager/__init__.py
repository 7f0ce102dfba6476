"""MRA attention in plain PyTorch: fast on a CPU, right on any device.

A call (`operators`) is cut into parts of some heads each (`part`). A part's output is the sum of
terms of one softmax (`terms`): `fine`, exact attention over the chosen blocks, by tiles that fit in
cache (`tiles`), `salient`, exact attention over the keys that every query sees, and in mode "full"
`coarse`, attention over the means of all others. Sequences that are exact as a whole go another way
(`whole_rows`).
"""

SERVES = frozenset(
    {
        "block_size",
        "block_per_row",
        "num_blocks",
        "approx_mode",
        "initial_prior_first_n_blocks",
        "initial_prior_diagonal_n_blocks",
        "selection",
        "coarse_key_size",
        "salient_keys",
        "block_score",
        "exact_up_to",
    }
)
