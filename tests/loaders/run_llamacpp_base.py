"""Write the GGUF of a base model with llama.cpp's own converter, without its words, which a tiny model has none of.

python run_llamacpp_base.py SOURCES MODEL_FOLDER OUT.gguf
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCES, FOLDER, OUT = map(Path, sys.argv[1:4])
sys.path[1:1] = [str(SOURCES), str(SOURCES / "gguf-py")]

import gguf  # noqa: E402
import torch  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402

with torch.inference_mode():
    sizes = ModelBase.load_hparams(FOLDER, False)
    known = get_model_class(get_model_architecture(sizes, ModelType.TEXT))

    class WithoutWords(known):  # type: ignore[misc,valid-type]
        """The converter of the architecture; tokens stay numbers."""

        model_arch = known.model_arch

        def set_vocab(self) -> None:
            self._set_vocab_none()

    WithoutWords(FOLDER, gguf.LlamaFileType.ALL_F32, OUT, hparams=sizes).write()
