"""`hfrec finetune` from a checkout: python scripts/finetune.py --help"""

from hfrec.commands.finetune import main, parse

if __name__ == "__main__":
    import sys

    main(parse(sys.argv[1:]))
