"""A model under jax.jit, jax.grad, jax.vmap and jax.export, as research code uses it."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

import caduceus_jax as cj
from tests.models import forward, language_model, random_ids
from tests.tolerances import SCAN_FP32, relative_error

README = pathlib.Path(__file__).parents[3] / "README.md"


def test_vmap_is_the_batch():
    model, ids = language_model(n_layer=2), jnp.asarray(random_ids())
    one = lambda ids: model(ids[None]).logits[0]  # noqa: E731
    assert relative_error(jax.jit(jax.vmap(one))(ids), forward(model, ids).logits) < SCAN_FP32


def test_gradient_of_the_model_is_a_model_of_gradients():
    model, ids = language_model(n_layer=2), jnp.asarray(random_ids(length=12))
    loss = jax.jit(lambda m: cj.masked_lm_loss(m(ids).logits, ids))
    gradient = jax.jit(jax.grad(loss))(model)
    assert jax.tree.structure(gradient) == jax.tree.structure(model)
    # Along the gradient, the loss changes by the gradient's squared norm.
    squares = sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(gradient))
    step = 1e-3 / np.sqrt(squares)
    ahead, behind = (
        float(loss(jax.tree.map(lambda p, g: p + sign * step * g, model, gradient)))  # noqa: B023
        for sign in (1, -1)
    )
    assert abs((ahead - behind) / (2 * step) - squares) < 0.02 * squares


def test_the_readme_script_runs(golden, monkeypatch, capsys):
    """The first Python block of the README, on a model from this repository."""
    script = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    assert len(script.strip().splitlines()) <= 15
    path = str(golden / "ps")
    assert '"runs/quickstart"' in script
    exec(compile(script.replace('"runs/quickstart"', repr(path)), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
