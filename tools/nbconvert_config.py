"""Give pictures their alternative texts in what nbconvert exports.

    jupyter nbconvert --config tools/nbconvert_config.py --to html notebooks/01_loss_scale.ipynb

They stand in the metadata of the code cells, as a list under `alt`.
"""

import html

from nbconvert.preprocessors import Preprocessor


class AlternativeTexts(Preprocessor):
    """Make of each picture with a text an <img> that carries it."""

    def preprocess_cell(self, cell, resources, index):
        outputs = [output for output in cell.get("outputs", []) if "data" in output]
        pictures = [output for output in outputs if "image/png" in output.data]
        for output, text in zip(pictures, cell.metadata.get("alt", []), strict=False):
            data = output.data.pop("image/png").strip()
            source = f"data:image/png;base64,{data}"
            output.data["text/html"] = f'<img src="{source}" alt="{html.escape(text)}">'
        return cell, resources


c = get_config()  # noqa: F821 - Jupyter gives it to this file
c.HTMLExporter.preprocessors = [AlternativeTexts]
