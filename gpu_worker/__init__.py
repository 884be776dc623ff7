"""The model inference instance: takes jobs, makes pictures, stores them, reports."""

import os

# These libraries read the environment once, when they are first imported, hence before anything else here.
# An operator's own values win, except that code from a model's folder is never run.
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
for _name, _value in {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_name, _value)
