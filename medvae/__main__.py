from medvae.cli import main

raise SystemExit(main())
