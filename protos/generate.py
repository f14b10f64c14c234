"""Generate extproc/protos from the .proto files beside this script.

    python protos/generate.py           write extproc/protos
    python protos/generate.py --check   exit 1 and name the files that differ from what is committed

protoc's output is rewritten in two ways: modules are imported from extproc.protos instead of the
top-level package `envoy`, and descriptors are added to extproc.protos.POOL instead of the default.
"""

import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).parent
TARGET = SOURCE.parent / "extproc" / "protos"


def generate(out: Path) -> dict[Path, str]:
    """Return the generated modules, relative path to text."""
    files = [str(f.relative_to(SOURCE)) for f in sorted(SOURCE.rglob("*.proto"))]
    well_known = resources.files("grpc_tools") / "_proto"
    include = [f"--proto_path={SOURCE}", f"--proto_path={well_known}"]
    code = protoc.main(["protoc", *include, f"--python_out={out}", f"--pyi_out={out}", *files])
    if code:
        raise SystemExit(code)
    return {f.relative_to(out): rewrite(f.read_text()) for f in sorted(out.rglob("*_pb2.py*"))}


def rewrite(text: str) -> str:
    """Move a generated module below extproc.protos and into its descriptor pool."""
    text = re.sub(r"^from envoy\.", "from extproc.protos.envoy.", text, flags=re.MULTILINE)
    text = text.replace(
        "from google.protobuf import descriptor_pool as _descriptor_pool\n",
        "from extproc.protos import POOL as _POOL\n",
    )
    return text.replace("_descriptor_pool.Default()", "_POOL")


def differing(modules: dict[Path, str]) -> list[Path]:
    """Return what is stale, missing or left over in TARGET."""
    stale = {path for path, text in modules.items() if not same(TARGET / path, text)}
    committed = {file.relative_to(TARGET) for file in TARGET.rglob("*_pb2.py*")}
    return sorted(stale | (committed - modules.keys()))


def same(path: Path, text: str) -> bool:
    """Whether the file exists with this text."""
    return path.exists() and path.read_text() == text


def main() -> int:
    """Generate, or compare with what is committed."""
    with tempfile.TemporaryDirectory() as folder:
        modules = generate(Path(folder))
    if "--check" in sys.argv[1:]:
        different = differing(modules)
        for path in different:
            print(f"{TARGET / path}: differs from protos/; run `make protos`", file=sys.stderr)
        return 1 if different else 0
    for path, text in modules.items():
        (TARGET / path).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / path).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
