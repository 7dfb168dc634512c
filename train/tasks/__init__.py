"""Published tasks and tables of your own, as `Task`s."""

from caduceus_jax.errors import UserError
from caduceus_jax.train.finetuning.config import LabelledConfig
from caduceus_jax.train.finetuning.examples import Task
from caduceus_jax.train.tasks import gene_expression, published, tables, tracks

_READERS = {"tracks": tracks.read_task, "genes": gene_expression.read_task}


def find_task(config: LabelledConfig) -> Task:
    """Reads the sequences that `config` names.

    Raises:
        UserError: no such task or file, or a file that cannot be used.
    """
    if not config.task:
        return tables.read_task(config)
    if config.task in _READERS:
        return _READERS[config.task](config)
    suite, _, name = config.task.partition("/")
    if suite not in published.SUITES:
        raise UserError(
            f"data.task is {config.task}; it is tracks or genes, starts with one of: "
            f"{', '.join(published.SUITES)}, or is left out: then data.train and data.test name "
            "files"
        )
    return published.read_task(suite, name, config)
