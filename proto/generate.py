"""Generate router/wire/pb from the .proto files: `make proto`, or with another folder as the only argument.

The output depends only on the .proto files and the locked tools: no date, no path. No file imports another one, so the
generated modules need no change of their imports; `generate` refuses a file that breaks this.
"""

import sys
from importlib.resources import files
from pathlib import Path
from shutil import rmtree

from grpc_tools import protoc

SOURCE = Path(__file__).parent
TARGET = SOURCE.parent / "router" / "wire" / "pb"


def generate(target: Path) -> None:
    """Replace everything in `target` by the code generated now.

    :raises SystemExit: protoc refused a file, or a file imports another one of ours.
    """
    protos = sorted(SOURCE.rglob("*.proto"))
    for proto in protos:
        if 'import "beamline' in proto.read_text():
            raise SystemExit(f"{proto.name}: imports of our own files would need rewritten module paths")
    rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    includes = [f"-I{SOURCE}", f"-I{files('grpc_tools') / '_proto'}"]
    plugin = f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}"
    outputs = [f"--python_out={target}", f"--mypy_out=quiet:{target}"]
    if protoc.main(["protoc", *includes, plugin, *outputs, *map(str, protos)]) != 0:
        raise SystemExit("protoc failed; its message is above")
    for folder in {target, *(d for p in target.rglob("*_pb2.py") for d in p.parents if d.is_relative_to(target))}:
        (folder / "__init__.py").write_text('"""Generated from proto/ by `make proto`; do not edit."""\n')


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
