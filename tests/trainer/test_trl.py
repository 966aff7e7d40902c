"""Our packs and our export, as another trainer takes them: unconverted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.trainer.test_export import assets_of, generation_of, model_of
from trainer.data.packs import Packs, read_manifest, split_files
from trainer.export import export

transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own
def test_trl_goes_on_from_our_export_on_our_packs_with_our_loss(run: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    model = model_of("llama")
    export(tmp_path / "export", model, assets=assets_of(run), generation=generation_of(run), dtype="float32")
    packs = Packs(run / "pack", split_files(read_manifest(run), "train"))
    pack = next(i for i in range(len(packs)) if len(packs.document_lengths(i)) > 1)
    batch = packs.read([pack], vocab_size=304)
    with torch.no_grad():
        ours = float(model(batch).cross_entropy) / len(batch.rows_S)
    files = [pa.ipc.open_file(run / "pack" / file.path).read_all() for file in split_files(read_manifest(run), "train")]
    table = pa.concat_tables(files).select(["input_ids", "labels", "seq_lengths"])[pack : pack + 1]
    settings: dict[str, Any] = {"padding_free": True, "max_length": None, "gradient_checkpointing": False}
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", attn_implementation="sdpa"),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=1,
            max_steps=1,
            bf16=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        ),
        train_dataset=datasets.Dataset(table),
        processing_class=transformers.AutoTokenizer.from_pretrained(tmp_path / "export"),
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(ours, rel=1e-5)
