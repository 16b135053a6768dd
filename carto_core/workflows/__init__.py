"""The verbs a person has, for the command line and the pages alike.

`light` scores, selects, plans and exports without torch; the others train, probe, audit and measure.
"""
