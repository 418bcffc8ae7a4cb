"""`python -m medvae` is the command `medvae`."""

from medvae.cli.main import main

raise SystemExit(main())
