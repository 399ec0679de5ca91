"""Fine-tuning under L2-SP with the stock `Trainer`, piece by piece: copy this file and change what is yours.

python scripts/finetune.py --model_name_or_path out --train_file target.csv --output_dir tuned --l2sp_alpha 0.01
accelerate launch scripts/finetune.py --model_name_or_path me/films --train_file target.csv --output_dir tuned

`hfrec finetune` does the same with the same pieces, and resumes, pushes and writes cards besides.
"""

from pathlib import Path

from transformers import EarlyStoppingCallback, HfArgumentParser, Trainer

from hfrec.data.collators import objective_of
from hfrec.data.sequences import to_evaluation_sequences
from hfrec.data.splits import leave_one_out
from hfrec.evaluation.protocol import evaluate_checkpoint
from hfrec.evaluation.ranking import make_compute_metrics, preprocess_ranks
from hfrec.evaluation.table import results_table
from hfrec.hub.checkpoint import load_network
from hfrec.training.arguments import DataArguments, FinetuneArguments
from hfrec.training.fitting import fit_to_log
from hfrec.training.rows import load_log, training_sequences
from hfrec.training.run import save_checkpoint, whole_model
from hfrec.training.trainer import train_and_evaluate_collator
from hfrec.training.trainer_arguments import RecommenderTrainingArguments
from hfrec.training.updates import build_updates


def main(data: DataArguments, start: FinetuneArguments, training: RecommenderTrainingArguments) -> None:
    """Load, give the log's new items rows, train towards the log and back to the start, test."""
    split = leave_one_out(load_log(data))
    model, tokenizer = load_network(start.model_name_or_path, revision=start.model_revision)
    fitted = fit_to_log(model, tokenizer, split.train, data=data, start=start, training=training)
    tokenizer = fitted.tokenizer
    updates = build_updates(model, fitted.anchored, start, training)  # L2-SP, gradual unfreezing, a rate for each layer
    length = model.config.max_position_embeddings
    trainer = Trainer(
        model=model,
        args=training,
        data_collator=train_and_evaluate_collator(model, tokenizer, data, training),
        train_dataset=training_sequences(split.train, tokenizer, objective_of(model), data, length),
        eval_dataset=to_evaluation_sequences(split.train, split.validation, tokenizer),
        processing_class=tokenizer,
        compute_metrics=make_compute_metrics(),
        preprocess_logits_for_metrics=preprocess_ranks,
        optimizers=(updates.optimizer, None),
        callbacks=[EarlyStoppingCallback(training.early_stopping_patience or 10**6)],
    )
    trainer.callback_handler.callbacks[:0] = updates.callbacks  # before the reporters, so that the penalty is reported
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    best = whole_model(trainer)
    if trainer.is_world_process_zero():
        save_checkpoint(best, tokenizer, Path(training.output_dir))
        print(results_table(evaluate_checkpoint(best, tokenizer, split)))


if __name__ == "__main__":
    classes = (DataArguments, FinetuneArguments, RecommenderTrainingArguments)
    main(*HfArgumentParser(classes).parse_args_into_dataclasses())
