"""What is in these pictures?

    python examples/quickstart.py demo/run/model.onnx photo.jpg another.jpg

No model yet? `edgeml demo` trains one, on pictures that it draws, and leaves it in demo/run.
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
    except EdgemlError as err:  # all that edgeml raises on purpose, in one line each
        print(err, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
