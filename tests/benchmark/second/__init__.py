"""A second set for judging the check-up, written by somebody who has not seen its code.

The accepted causes were written before any run. `cd tests && python -m benchmark.second.run`.
"""
