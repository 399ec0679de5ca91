"""`python -m hfrec.serving …` is `hfrec serve …`."""

import sys

from hfrec_command import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
