"""Whether a cell does what it did: its outputs compared, without what is noise in them.

`comparison` compares two results. `parts` says what of them is compared, `normalising` what is
noise (its rules are in `normalising.toml`), `text_drift` how texts and numbers differ, `pixels`
how images do.
"""
