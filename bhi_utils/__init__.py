"""Breast histopathology patches, told apart IDC+ from IDC−: the package behind the notebooks.

Importing this package is cheap on purpose: it loads no TensorFlow, Gradio or papermill, so that ``bhi --help`` answers at once.
"""

import os
import platform
import warnings

__version__ = "0.1.0"

# TensorFlow prints its C++ start-up log to stderr unless told otherwise before its first import; every entry passes here first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN's kernels, which TensorFlow takes by itself only where the processor has AVX-512: with AVX2 alone they are nearly twice as fast.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Gradio and tqdm's Keras callback load tqdm's notebook bars, which nothing here shows: their wish for ipywidgets is no news.
warnings.filterwarnings("ignore", message="IProgress not found")
