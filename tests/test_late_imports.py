"""What loading a scorer leaves out, and that nobody else in the process can tell. Each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PHOTO = str(Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg")
LATE = ("torch._dynamo", "peft", "transformers", "scipy", "scipy.stats", "sympy", "diffusers.hooks",
        "diffusers.models.transformers.transformer_flux", "diffusers.models.autoencoders.autoencoder_tiny")  # fmt: skip

QUICK = "import genzqa; genzqa.load()\n"
PLAIN = "from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel; import genzqa; genzqa.load()\n"


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_both_ways(code: str) -> tuple[str, str]:
    return run(QUICK + code), run(PLAIN + code)


def test_scoring_imports_none_of_it_and_the_score_is_the_same() -> None:
    score = f"\nprint(genzqa.load().score({PHOTO!r}).raw)\nimport sys; print(*(set(sys.modules) & set({LATE!r})))"
    quick, plain = in_both_ways(score)
    assert quick.splitlines()[0] == plain.splitlines()[0]
    assert quick.splitlines()[1:] == []
    assert set(plain.splitlines()[1].split()) == set(LATE)


def test_the_program_imports_none_of_it() -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['genzqa', 'score', '--json', {PHOTO!r}]\n"
        "from genzqa.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print('LATE', *(set(sys.modules) & set({LATE!r})))\n"
    )
    assert run(code).splitlines()[-1] == "LATE"


def test_a_photo_needs_no_video_decoder() -> None:
    assert run(QUICK + f"genzqa.load().score({PHOTO!r}); import sys; print('av' in sys.modules)") == "False"


INSTALLED = """
import importlib.metadata
from diffusers.utils import import_utils
found = import_utils._is_distribution_installed
print(import_utils.importlib_metadata is importlib.metadata, found("PIL"), found("pillow"), found("no such"))
print(import_utils._package_map == importlib.metadata.packages_distributions(), import_utils._package_map["PIL"])
"""


def test_what_is_installed_is_found_when_it_is_asked_for() -> None:
    quick, plain = in_both_ways(INSTALLED)
    assert quick == plain
    assert quick.splitlines()[1] == "True ['pillow']"


MARKED = """
import sys, torch._dynamo
from torch._dynamo.trace_rules import is_callable_allowed
from diffusers.utils.torch_utils import maybe_allow_in_graph
import diffusers.models.attention_dispatch
modules = ["attention", "attention_processor", "attention_dispatch"]
print([maybe_allow_in_graph is torch._dynamo.allow_in_graph] +
      sorted(f"{module}.{name}" for module in modules
             for name, value in vars(sys.modules["diffusers.models." + module]).items()
             if getattr(value, "__module__", "") == "diffusers.models." + module and is_callable_allowed(value)))
"""

GRAPH = """
import torch
from diffusers import UNet2DConditionModel
unet = UNet2DConditionModel.from_config(genzqa.load().model.require_drawing().unet.config).eval()
block = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0")
seen = []
def backend(graph, inputs):
    seen.extend(f"{node.op} {getattr(node.target, '__name__', node.target)}" for node in graph.graph.nodes)
    return graph.forward
class Holder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = block
    def forward(self, hidden, text):
        return self.block(hidden, encoder_hidden_states=text) * 2
width = unet.config.cross_attention_dim
hidden = torch.zeros(1, 4, block.attn1.to_q.in_features)
text = torch.zeros(1, 3, width if isinstance(width, int) else width[-1])
compiled = torch.compile(Holder(), backend=backend)(hidden, text)
print(torch.equal(compiled, Holder()(hidden, text)), len(seen), seen)
"""


def test_the_compiler_gets_the_marks_and_makes_the_same_graph() -> None:
    quick, plain = in_both_ways(MARKED + GRAPH)
    assert quick == plain
    marks, graph = plain.splitlines()
    assert "'attention.BasicTransformerBlock'" in marks
    assert "'attention_processor.Attention'" in marks
    assert marks.startswith("[True, ")
    assert graph.startswith("True ")


LORA = """
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
torch.manual_seed(0)
unet = UNet2DConditionModel.from_config(genzqa.load().model.require_drawing().unet.config).eval()
width = unet.config.cross_attention_dim
inputs = torch.randn(1, unet.config.in_channels, 16, 16), 1, torch.randn(1, 3, width if isinstance(width, int) else width[-1])
def scaled(**options):
    with torch.no_grad():
        return unet(*inputs, **options).sample.abs().mean().item()
before = scaled()
unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
after, half = scaled(), scaled(cross_attention_kwargs={"scale": 0.5})
unet.set_adapters("default", 0.5)
assert len({before, after, half}) == 3 and half == scaled()
unet.fuse_lora(); unet.unload_lora()
print(before, after, half, scaled())
"""


def test_lora_of_diffusers_works() -> None:
    quick, plain = in_both_ways(LORA)
    assert quick == plain


PIPELINES = """
import diffusers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.loaders import lora_base, peft, single_file_utils
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedModel
model = CLIPTextModel(CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                     vocab_size=9))
print([name for pipeline in (StableDiffusionPipeline, StableDiffusionXLPipeline) for name in dir(pipeline) if "lora" in name],
      issubclass(type(model), lora_base.PreTrainedModel), isinstance(model, lora_base.BaseTunerLayer),
      issubclass(int, (str, lora_base.PreTrainedModel)),
      lora_base.PreTrainedModel is PreTrainedModel, lora_base.BaseTunerLayer is BaseTunerLayer,
      peft._maybe_remove_and_reapply_group_offloading(model),
      single_file_utils.AutoImageProcessor.from_pretrained.__name__,
      float(diffusers.schedulers.scheduling_euler_discrete.scipy.stats.beta.ppf(0.5, 2, 2)),
      diffusers.USE_PEFT_BACKEND if hasattr(diffusers, "USE_PEFT_BACKEND") else diffusers.utils.USE_PEFT_BACKEND)
"""


def test_pipelines_and_their_lora_loaders_work() -> None:
    quick, plain = in_both_ways(PIPELINES)
    assert quick == plain
    assert "'load_lora_weights'" in plain


ALL_MODELS = """
import sys
{first}
import diffusers
names = sorted(name for name in dir(diffusers.models.{kind}) if name[0].isupper())
for name in names:
    home = getattr(diffusers.models.{kind}, name)
    assert home is getattr(sys.modules[home.__module__], name), name
    assert type(sys.modules[home.__module__].__loader__).__name__ == "SourceFileLoader"
package = sys.modules["diffusers.models.{kind}"]
print(type(package) is type(sys), package is diffusers.models.{kind},
      package.__path__ == list(package.__spec__.submodule_search_locations))
"""


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("transformers", "from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel"),
        ("autoencoders", "from diffusers.models.autoencoders import AutoencoderTiny"),
        ("unets", "import diffusers.models.unets.unet_3d_condition"),
    ],
)
def test_packages_of_models_arrive_whole_and_once(kind: str, first: str) -> None:
    assert run(QUICK + ALL_MODELS.format(kind=kind, first=first)) == "True True True"


BEFORE = "import builtins, sys; plain = builtins.__import__\n"
AFTER = "print(builtins.__import__ is plain, any(type(finder).__name__ == '_LateImports' for finder in sys.meta_path))"


def test_diffusers_that_is_there_already_is_left_alone() -> None:
    assert run(BEFORE + PLAIN + AFTER) == "True False"
    assert run(BEFORE + QUICK + AFTER) == "True True"


def test_a_release_that_needs_more_is_imported_plainly() -> None:
    broken = (
        "from genzqa.model import late_imports\n"
        "late_imports._LIBRARIES |= {'huggingface_hub'}\n"  # it gives decorators, which are wanted at once
        "late_imports._LateName.__call__ = lambda *arguments: 1 / 0\n"
        f"import genzqa; genzqa.load().score({PHOTO!r})\n"
        "assert {'torch._dynamo', 'peft', 'transformers'} <= set(sys.modules)\n"
    )
    assert run(BEFORE + broken + AFTER) == "True False"
