"""Drawing explanations, and reading pictures.

`plot` draws explanations, `ledger_plot` draws ledgers, and `mosaic` draws maps as the 2017 tutorial does.
`picture` opens image files safely. `digit` prepares a picture of a digit as MNIST's digits were prepared.
`photograph` resizes a photograph and cuts out its centre. Import what you need from its file. This file
imports nothing, so Pillow is loaded only if something is drawn or read.
"""
