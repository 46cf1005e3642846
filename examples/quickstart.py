"""Print the labels of images.

    python examples/quickstart.py demo/run/model.onnx photo.jpg another.jpg

No model yet? `edgeml demo` draws images, trains a model on them and writes it to demo/run.
"""

from __future__ import annotations

import sys

from edgeml import EdgemlError, Predictor


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__)
        return 2
    model, *images = arguments
    try:
        # The file knows its labels, thresholds and preprocessing: there is nothing to set.
        with Predictor(model) as predictor:
            for image in images:
                prediction = predictor.predict(image)
                best = ", ".join(f"{label} {score:.2f}" for label, score in prediction.top(3))
                print(f"{image}: {' '.join(prediction.labels) or '(nothing)'}   [best: {best}]")
    except EdgemlError as err:  # every error that edgeml raises on purpose, each in one line
        print(err, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
