"""From numbers to pictures and from pictures to numbers.

`plot` draws explanations, `ledger_plot` their ledgers, `mosaic` maps as the 2017 tutorial does; `picture`
opens image files safely, `digit` prepares any picture of a digit as MNIST's were prepared, `photograph` cuts
out what a network sees of a photograph. Import what you need from its file. This one imports nothing, so that
Pillow is loaded only by those who draw.
"""
