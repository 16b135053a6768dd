"""A report to keep: one HTML file about a run and a plan, for somebody who was not there.

`facts` is what it is made from, `sections` what it says and in which order, `document` the file. No network, no script.
"""
