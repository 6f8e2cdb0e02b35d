"""The commands of ``python -m show``, one module each.

A module has two functions: ``add_options(parser)`` adds its options to an `argparse.ArgumentParser`, and ``run(args)``
does the work and prints. Its docstring is the description in ``--help``. Large libraries are imported inside ``run``,
so that ``--help`` is fast.
"""

COMMANDS = {
    "look": "look at a data folder before it is embedded",
    "predict": "predict the concepts of any images with a run",
    "explain": "draw where in an image a run sees its concepts",
    "report": "write the report of a run: one HTML file for any browser",
    "serve": "serve a page on this machine to drop images on",
}
"""Name of each command, which is that of its module, and what it does."""
