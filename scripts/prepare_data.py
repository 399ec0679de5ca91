"""`hfrec prepare` from a checkout: python scripts/prepare.py --help"""

from hfrec.commands.prepare import main, parse

if __name__ == "__main__":
    import sys

    main(parse(sys.argv[1:]))
