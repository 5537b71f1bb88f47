"""Breast histopathology patches, told apart IDC+ from IDC−: the package behind the notebooks.

Importing this package is cheap on purpose: it loads no TensorFlow, Gradio or papermill, so that ``bhi --help`` answers at once.
"""

import os
import warnings

__version__ = "0.1.0"

# TensorFlow prints its C++ start-up log to stderr unless told otherwise before its first import; every entry passes here first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Gradio and tqdm's Keras callback load tqdm's notebook bars, which nothing here shows: their wish for ipywidgets is no news.
warnings.filterwarnings("ignore", message="IProgress not found")
