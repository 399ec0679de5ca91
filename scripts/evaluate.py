"""`hfrec evaluate` from a checkout: python scripts/evaluate.py --help"""

from hfrec.commands.evaluate import main, parse

if __name__ == "__main__":
    import sys

    main(parse(sys.argv[1:]))
