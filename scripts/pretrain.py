"""`hfrec pretrain` from a checkout: python scripts/pretrain.py --help"""

from hfrec.commands.pretrain import main, parse

if __name__ == "__main__":
    import sys

    main(parse(sys.argv[1:]))
