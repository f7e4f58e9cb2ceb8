"""Asking for help must not cost the import of torch: checked by what is loaded, not by the clock."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "scipy", "av", "diffusers", "transformers", "peft", "huggingface_hub",
         "matplotlib", "jinja2", "fastapi", "uvicorn", "prometheus_client", "pyarrow", "fsspec", "ray")  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["score", "--help"], ["score"], ["pull", "--help"],
                                       ["import-reference", "--help"], ["serve", "--help"],
                                       ["batch", "--help"], ["report", "--help"]])  # fmt: skip
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import sys\n"
        f"sys.argv = ['genzqa', *{arguments!r}]\n"
        "from genzqa.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('LOADED', sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout
    assert done.returncode == (2 if arguments == ["score"] else 0)
    assert "genzqa" in done.stdout + done.stderr
