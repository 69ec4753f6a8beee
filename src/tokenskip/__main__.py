"""`python -m tokenskip`, which is what launchers take: `accelerate launch -m tokenskip train runs/mine`."""

from tokenskip.cli import main

if __name__ == "__main__":
    main()
