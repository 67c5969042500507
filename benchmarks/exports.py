#!/usr/bin/env python3
"""Exports as PyTorch writes them today: architectures of torchvision, timm and transformers with random weights, by both of its exporters.

    python benchmarks/exports.py make DIR [NAME ...]                       needs torch, torchvision, timm, transformers, onnxscript
    python benchmarks/exports.py judge DIR [NAME ...] [--infopt BINARY]    needs onnx, onnxruntime, onnxsim

`make` writes NAME.dyn.onnx (torch.export, batch 1), NAME.ts.onnx (TorchScript, any batch) and NAME.npz. `judge` prints a row a file: infopt's runtime beside
ONNX Runtime's; nodes and size after onnxsim and after `infopt optimize`, with the decibels in ONNX Runtime against the export; size and decibels of
`infopt quantize` on four made-up samples. Random weights say nothing of accuracy: what is judged is that everything loads, runs and shrinks.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np

SMALL = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, vocab_size=1000)
GQA = dict(SMALL, num_key_value_heads=2)
GPT = dict(n_layer=3, n_head=4, vocab_size=1000)

TORCHVISION = {"resnet18": "resnet18", "mobilenet_v3": "mobilenet_v3_small", "shufflenet": "shufflenet_v2_x0_5", "squeezenet": "squeezenet1_1", "densenet": "densenet121",
               "googlenet": "googlenet", "lraspp": "segmentation.lraspp_mobilenet_v3_large", "deeplab": "segmentation.deeplabv3_mobilenet_v3_large",
               "ssdlite": "detection.ssdlite320_mobilenet_v3_large", "fasterrcnn": "detection.fasterrcnn_mobilenet_v3_large_320_fpn"}
TIMM = {"convnext": ("convnext_atto", 224, {}), "swin": ("swin_tiny_patch4_window7_224", 224, dict(embed_dim=48, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16))),
        "vit": ("vit_tiny_patch16_224", 224, dict(depth=4)), "deit": ("deit_tiny_distilled_patch16_224", 224, dict(depth=4)), "efficientformer": ("efficientformer_l1", 224, {}),
        "mobilevit": ("mobilevit_xxs", 256, {}), "ghostnet": ("ghostnet_050", 224, {}), "regnet": ("regnety_002", 224, {}), "mixer": ("mixer_s32_224", 224, {}),
        "coat": ("coat_lite_tiny", 224, {}), "hrnet": ("hrnet_w18_small", 224, {}), "levit": ("levit_128s", 224, {}), "maxvit": ("maxvit_nano_rw_256", 256, {}),
        "repvgg": ("repvgg_a0", 224, {}), "edgenext": ("edgenext_xx_small", 256, {}), "fastvit": ("fastvit_t8", 256, {}), "poolformer": ("poolformer_s12", 224, {})}
TOKENS = {"bert": ("BertForSequenceClassification", "BertConfig", SMALL),
          "distilbert": ("DistilBertForSequenceClassification", "DistilBertConfig", dict(dim=128, n_layers=3, n_heads=4, hidden_dim=256, vocab_size=1000)),
          "roberta": ("RobertaForTokenClassification", "RobertaConfig", SMALL), "albert": ("AlbertForSequenceClassification", "AlbertConfig", dict(SMALL, embedding_size=64)),
          "deberta": ("DebertaV2ForSequenceClassification", "DebertaV2Config", dict(SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"])),
          "electra": ("ElectraForSequenceClassification", "ElectraConfig", SMALL), "mpnet": ("MPNetModel", "MPNetConfig", SMALL),
          "modernbert": ("ModernBertForSequenceClassification", "ModernBertConfig", dict(SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2)),
          "clip_text": ("CLIPTextModel", "CLIPTextConfig", SMALL), "gpt2": ("GPT2LMHeadModel", "GPT2Config", dict(GPT, n_embd=128)), "bloom": ("BloomForCausalLM", "BloomConfig", dict(GPT, hidden_size=128)),
          "opt": ("OPTForCausalLM", "OPTConfig", dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, ffn_dim=256, vocab_size=1000, word_embed_proj_dim=128)),
          "llama": ("LlamaForCausalLM", "LlamaConfig", GQA), "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GQA), "mistral": ("MistralForCausalLM", "MistralConfig", GQA),
          "gemma": ("GemmaForCausalLM", "GemmaConfig", dict(SMALL, num_key_value_heads=1, head_dim=32)), "phi": ("PhiForCausalLM", "PhiConfig", SMALL),
          "t5": ("T5EncoderModel", "T5Config", dict(d_model=128, d_kv=32, d_ff=256, num_layers=3, num_heads=4, vocab_size=1000)),
          "mamba": ("MambaForCausalLM", "MambaConfig", dict(hidden_size=64, num_hidden_layers=2, vocab_size=1000))}
PIXELS = {"vit_hf": ("ViTForImageClassification", "ViTConfig", 224, dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)),
          "dinov2": ("Dinov2Model", "Dinov2Config", 224, dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4)),
          "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", 128, {}),
          "yolos": ("YolosForObjectDetection", "YolosConfig", 128, dict(hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192, image_size=[128, 128]))}


def built(name):
    """The module, its inputs by name; random weights."""
    import torch
    import torchvision
    import transformers

    image = lambda size: {"x": torch.rand(1, 3, size, size)}
    if name in TORCHVISION:
        maker = torchvision.models
        for part in TORCHVISION[name].split("."):
            maker = getattr(maker, part)
        rest = {"weights_backbone": None} if "." in TORCHVISION[name] else {}
        return maker(weights=None, **rest).eval(), image(320 if "detection" in TORCHVISION[name] else 224)
    if name in TIMM:
        import timm

        kind, size, options = TIMM[name]
        return timm.create_model(kind, pretrained=False, **options).eval(), image(size)
    kind, config, options = TOKENS[name] if name in TOKENS else (PIXELS[name][0], PIXELS[name][1], PIXELS[name][3])
    model = getattr(transformers, kind)(getattr(transformers, config)(**options)).eval()
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if name in PIXELS:
        inputs = {"pixel_values": torch.randn(1, 3, PIXELS[name][2], PIXELS[name][2])}
    else:
        inputs = {"input_ids": torch.randint(5, 1000, (1, 32))}
        if name != "mamba":
            inputs["attention_mask"] = torch.ones(1, 32, dtype=torch.int64)

    class FirstOutput(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *arguments):
            out = self.model(**dict(zip(inputs, arguments)))
            return out.logits if hasattr(out, "logits") else out[0]

    return FirstOutput().eval(), inputs


def make(folder, names):
    import torch

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        module, inputs = built(name)
        np.savez(folder / f"{name}.npz", **{k: v.numpy() for k, v in inputs.items()})
        for kind, options in {"dyn": dict(dynamo=True, external_data=False, verbose=False),
                              "ts": dict(dynamo=False, opset_version=17, dynamic_axes={k: {0: "batch"} for k in inputs})}.items():
            path = folder / f"{name}.{kind}.onnx"
            try:
                with torch.no_grad():
                    torch.onnx.export(module, tuple(inputs.values()), str(path), input_names=list(inputs), **options)
            except Exception as e:  # noqa: BLE001: what the exporter refuses isn't ours to judge
                path.unlink(missing_ok=True)
                print(f"{name}.{kind}: not exported: {type(e).__name__}", flush=True)


def varied(inputs):
    """Four samples: the given one, and three of its values in other orders; masks stay."""
    random = np.random.default_rng(1)

    def more(name, v):
        others = [v if "mask" in name else random.permuted(v.reshape(-1)).reshape(v.shape) for _ in range(3)]
        return np.concatenate([v, *others])

    return {k: more(k, v) for k, v in inputs.items()}


def judge(folder, names, infopt):
    import onnx
    import onnxruntime as ort
    from published import decibels

    ort.set_default_logger_severity(4)

    def outputs(path, feeds):
        s = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return s.run(None, {i.name: feeds[i.name] for i in s.get_inputs()})

    def described(path, source, expected, feeds):
        if not path.exists():
            return "failed"
        onnx.checker.check_model(path, full_check=True)
        db = decibels([expected], [outputs(path, feeds)])
        return f"{len(onnx.load(path).graph.node)} | {path.stat().st_size / source.stat().st_size:.2f} | {'exact' if db > 300 else f'{db:.0f}'}"

    print("| export | infopt's runtime, dB | nodes | onnxsim | size | dB | infopt | size | dB | int8: nodes | size | dB |\n|---|---|---|---|---|---|---|---|---|---|---|---|")
    for source in sorted(p for p in folder.glob("*.onnx") if not names or p.name.split(".")[0] in names):
        feeds = dict(np.load(folder / (source.name.split(".")[0] + ".npz")))
        expected = outputs(source, feeds)
        with tempfile.TemporaryDirectory() as scratch:
            files = {k: pathlib.Path(scratch) / f"{k}.onnx" for k in ("onnxsim", "optimized", "int8")}
            given, calib, ran = (pathlib.Path(scratch) / f"{k}.npz" for k in ("given", "calib", "ran"))
            np.savez(given, **feeds)
            np.savez(calib, **varied(feeds))
            for command in (["onnxsim", source, files["onnxsim"]], [infopt, "optimize", source, "-o", files["optimized"]], [infopt, "quantize", source, "--calib", calib, "-o", files["int8"]],
                            [infopt, "run", source, "--input", given, "-o", ran]):
                subprocess.run([str(c) for c in command], capture_output=True, check=False)
            own = "failed"
            if ran.exists():
                got = np.load(ran)
                named = [o.name for o in ort.InferenceSession(str(source), providers=["CPUExecutionProvider"]).get_outputs()]
                db = decibels([expected], [[got[n].reshape(e.shape) if got[n].size == e.size else got[n] for n, e in zip(named, expected)]])
                own = "exact" if db > 300 else f"{db:.0f}"
            row = " | ".join(described(files[k], source, expected, feeds) for k in files)
            print(f"| {source.stem} | {own} | {len(onnx.load(source).graph.node)} | {row} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "judge"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--infopt", default=pathlib.Path(__file__).resolve().parent.parent / "build/release/tools/infopt", type=pathlib.Path)
    given = parser.parse_args()
    if given.what == "make":
        make(given.folder, given.names or [*TORCHVISION, *TIMM, *TOKENS, *PIXELS])
    else:
        judge(given.folder, given.names, given.infopt)
