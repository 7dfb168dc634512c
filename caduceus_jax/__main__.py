"""`python -m caduceus_jax`, which is `caduceus-jax`."""

import sys

from caduceus_jax.cli.main import main

sys.exit(main())
