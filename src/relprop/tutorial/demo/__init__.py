"""The page on which anybody draws a digit and sees how it is explained, in one file without a network.

`page.py` puts it together. `lrp.js` has the networks and the rules, `pen.js` takes strokes from pointers and
keys, `digit.js` prepares a drawing as MNIST's digits were prepared, `show.js` shows numbers and maps, and
`page.js` knows what is drawn and asked.
"""
