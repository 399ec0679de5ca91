"""Pretraining with the stock `Trainer`, piece by piece: copy this file and change what is yours.

python scripts/pretrain.py --train_file interactions.csv --output_dir out --objective masked --max_length 100
accelerate launch scripts/pretrain.py --dataset ml-1m --output_dir out --loss sampled_softmax

`hfrec pretrain --recipe none` does the same with the same pieces, and resumes, pushes and writes cards besides.
"""

from pathlib import Path

from transformers import EarlyStoppingCallback, HfArgumentParser, Trainer, set_seed

from hfrec.data.sequences import to_evaluation_sequences
from hfrec.data.splits import leave_one_out
from hfrec.evaluation.protocol import evaluate_checkpoint
from hfrec.evaluation.ranking import make_compute_metrics, preprocess_ranks
from hfrec.evaluation.table import results_table
from hfrec.training.arguments import DataArguments, ModelArguments
from hfrec.training.rows import build_tokenizer, load_log, training_sequences
from hfrec.training.run import save_checkpoint, whole_model
from hfrec.training.start import histories_and_counts, start_from_log
from hfrec.training.trainer import build_model, train_and_evaluate_collator
from hfrec.training.trainer_arguments import RecommenderTrainingArguments


def main(data: DataArguments, shape: ModelArguments, training: RecommenderTrainingArguments) -> None:
    """Read, train, keep the best checkpoint, test it beside the classical methods."""
    set_seed(training.seed)
    split = leave_one_out(load_log(data))  # train, and each user's last two items
    tokenizer = build_tokenizer(split.train)
    length = data.max_length or 100
    model = build_model(shape, len(tokenizer), length)
    if shape.item_start == "svd":
        start_from_log(model, *histories_and_counts(split.train, tokenizer), seed=training.seed)
    trainer = Trainer(
        model=model,
        args=training,
        data_collator=train_and_evaluate_collator(model, tokenizer, data, training),
        train_dataset=training_sequences(split.train, tokenizer, shape.objective, data, length),
        eval_dataset=to_evaluation_sequences(split.train, split.validation, tokenizer),
        processing_class=tokenizer,
        compute_metrics=make_compute_metrics(),
        preprocess_logits_for_metrics=preprocess_ranks,
        callbacks=[EarlyStoppingCallback(training.early_stopping_patience or 10**6)],
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        save_checkpoint(best, tokenizer, Path(training.output_dir))
        print(results_table(evaluate_checkpoint(best, tokenizer, split)))


if __name__ == "__main__":
    main(*HfArgumentParser((DataArguments, ModelArguments, RecommenderTrainingArguments)).parse_args_into_dataclasses())
