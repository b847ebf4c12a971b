"""Run notebooks and store their results, without a kernel.

    python scripts/run_notebooks.py [examples/*.ipynb]

Cells run in one process, in order, as `exec` runs them. What they print, and the value of a last expression, become their
outputs; a notebook whose cell fails is left as it was.
"""

import ast
import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

_EXAMPLES = Path(__file__).parents[1] / "examples"
_LONG = 5000  # characters beyond which a text is left out beside HTML


def main() -> None:
    """Run from the command line."""
    for path in [Path(one).resolve() for one in sys.argv[1:]] or sorted(_EXAMPLES.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            run(notebook)
            os.chdir(path.parent)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: run")


def run(notebook: dict[str, Any]) -> None:
    """Run the cells of a notebook, and store their outputs in it."""
    names: dict[str, Any] = {"__name__": "notebook"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        tree, last = ast.parse("".join(cell["source"])), None
        if isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body[-1].value)
            tree.body.pop()
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), names)
            value = None if last is None else eval(compile(last, f"cell {number}", "eval"), names)
        text = printed.getvalue()
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}] if text else []
        cell["execution_count"] = number
        if value is not None:
            plain, data = repr(value), {}
            if hasattr(value, "_repr_html_"):
                plain = plain if len(plain) < _LONG else type(value).__name__
                data = {"text/html": value._repr_html_().splitlines(keepends=True)}
            data["text/plain"] = plain.splitlines(keepends=True)
            cell["outputs"].append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})


if __name__ == "__main__":
    main()
