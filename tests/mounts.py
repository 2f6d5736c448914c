"""Secrets as Kubernetes mounts them."""

from pathlib import Path


def mounted(folder: Path, secret: str) -> Path:
    """The file of a secret: its path is a link into a folder that is swapped as a whole, also for a new secret."""
    folder.mkdir(parents=True, exist_ok=True)
    swapped = folder / f"..{len(list(folder.iterdir()))}"
    swapped.mkdir()
    (swapped / "secret").write_text(f"{secret}\n")
    (folder / "..tmp").symlink_to(swapped.name)
    (folder / "..tmp").rename(folder / "..data")
    if not (folder / "secret").is_symlink():
        (folder / "secret").symlink_to("..data/secret")
    return folder / "secret"
