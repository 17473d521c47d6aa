"""The commands of `python -m pyadamw`, a module each: add_arguments(parser), and run(arguments), which returns the exit
status. They are imported only when they are called.
"""
