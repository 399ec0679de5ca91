"""`hfrec recommend` from a checkout: python scripts/recommend.py --help"""

from hfrec.commands.recommend import main, parse

if __name__ == "__main__":
    import sys

    main(parse(sys.argv[1:]))
