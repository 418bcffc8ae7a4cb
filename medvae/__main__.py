"""`python -m medvae` is the command `medvae`."""

from medvae.cli import main

raise SystemExit(main())
