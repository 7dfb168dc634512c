"""Published tasks and tables of your own, as `Task`s."""

from caduceus_jax.errors import UserError
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.tasks import published, tables


def find_task(config: LabelledConfig) -> Task:
    """Reads the sequences that `config` names.

    Raises:
        UserError: no such task or file, or a file that cannot be used.
    """
    if not config.task:
        return tables.read_task(config)
    suite, _, name = config.task.partition("/")
    if suite not in published.SUITES:
        raise UserError(
            f"data.task is {config.task}; it starts with one of: {', '.join(published.SUITES)}, or "
            "is left out where data.train and data.test name files"
        )
    return published.read_task(suite, name, config)
