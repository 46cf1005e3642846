#!/bin/sh
# Makes real files with the tools themselves, each in an environment of its own, for test_tools.py.
# From the root of the checkout: sh tests/spec/foreign/make.sh ../shared/data/clothing_cc0/images
set -e
photos=$1
out=build/foreign
python=${PYTHON:-python}
weights=../shared/models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors
export HF_HUB_OFFLINE=1 YOLO_CONFIG_DIR=$PWD/$out/settings
mkdir -p "$YOLO_CONFIG_DIR"

environment() {
    name=$1
    shift
    [ -d "$out/$name" ] || "$python" -m venv "$out/$name"
    # What the tests' own environment has, torch above all, is not installed again.
    "$python" -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
        > "$("$out/$name/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/tests.pth"
    "$out/$name/bin/pip" install -q "$@"
}

environment hf "transformers==4.57.6" "optimum-onnx[onnxruntime]==0.1.0" "optimum-intel==1.27.0"
environment ul "ultralytics==8.4.190"
environment ma "openvino-model-api==0.4.7"

here=tests/spec/foreign
[ -e "$weights" ] && "$python" $here/make_timm.py "$photos" $out/made_timm $weights
"$out/hf/bin/python" $here/make_hugging_face.py "$photos" $out/made_hf
"$out/ul/bin/python" $here/make_ultralytics.py "$photos" $out/made_ul
[ -e $out/made_timm ] &&
    "$out/ma/bin/python" $here/make_model_api.py "$photos" $out/made_ma $out/made_timm/mobilenet/model.onnx
"$python" $here/make_drawn.py timm $here/drawn.json
"$out/hf/bin/python" $here/make_drawn.py hugging_face $here/drawn.json
"$out/ul/bin/python" $here/make_drawn.py ultralytics $here/drawn.json
"$out/ma/bin/python" $here/make_drawn.py model_api $here/drawn.json
