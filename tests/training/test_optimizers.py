import pytest
import torch

from recall.training.optimizers import FTRL, SGD, Adagrad, Adam

RULES = {"sgd": SGD, "adagrad": Adagrad, "adam": Adam, "ftrl": lambda table: FTRL(table, 0.0, 0.0, 0.1)}
TORCH = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}


def gradients(count, shape=(6, 3)):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", TORCH)
def test_dense_steps_match_torch(name):
    first, *others = gradients(6)
    table, reference = first.clone(), torch.nn.Parameter(first.clone())
    mine, theirs = RULES[name](table), TORCH[name]([reference], lr=0.1)
    for gradient in others:
        mine.step(table, None, gradient, 0.1)
        reference.grad = gradient.clone()
        theirs.step()
    torch.testing.assert_close(table, reference.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_sparse_steps_on_all_rows_equal_dense_steps(name):
    first, *others = gradients(5)
    tables = [first.clone(), first.clone()]
    rules = [RULES[name](table) for table in tables]
    for gradient in others:
        for table, rule, rows in zip(tables, rules, (None, torch.arange(6)), strict=True):
            rule.step(table, rows, gradient.clone(), 0.05)
    assert torch.equal(*tables)


@pytest.mark.parametrize("name", RULES)
def test_unused_rows_and_their_state_do_not_change(name):
    table = torch.ones(5, 2)
    rule = RULES[name](table)
    rule.step(table, torch.tensor([1, 3]), torch.ones(2, 2), 0.1)
    assert torch.equal(table[[0, 2, 4]], torch.ones(3, 2))
    assert torch.all(table[[1, 3]] < 1)
    assert all(torch.all(memory[[0, 2, 4]] == 0) for memory in rule.state().values())


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_resumes_from_its_state(name):
    first, *others = gradients(5)
    table, rule = first.clone(), None
    rule = RULES[name](table)
    for gradient in others[:2]:
        rule.step(table, None, gradient, 0.1)
    other_table = table.clone()
    other = RULES[name](other_table)
    other.restore({key: value.clone() for key, value in rule.state().items()})
    for gradient in others[2:]:
        rule.step(table, None, gradient, 0.1)
        other.step(other_table, None, gradient, 0.1)
    assert torch.equal(table, other_table)


def test_ftrl_minimises_its_published_objective():
    """w = argmin sum_t g_t w + sum_t sigma_t / 2 (w - w_t)^2 + l1 |w| + l2 / 2 w^2, found here by a fine grid."""
    alpha, l1, l2 = 0.5, 0.3, 0.2
    steps = torch.tensor([0.9, -0.2, 0.7, 0.4])
    table = torch.zeros(1)
    rule = FTRL(table, l1, l2, alpha)
    past, grid = [], torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    squares = 0.0
    for gradient in steps.tolist():
        past.append(
            (gradient, (1 if not past else 0) / alpha + ((squares + gradient**2) ** 0.5 - squares**0.5) / alpha, float(table))
        )
        squares += gradient**2
        rule.step(table, None, torch.tensor([gradient]), 1.0)
        value = l1 * grid.abs() + l2 / 2 * grid**2
        for g, sigma, w in past:
            value = value + g * grid + sigma / 2 * (grid - w) ** 2
        assert float(table) == pytest.approx(float(grid[value.argmin()]), abs=2e-5)


def test_ftrl_keeps_uninformative_weights_at_exactly_0():
    generator = torch.Generator().manual_seed(1)
    table = torch.zeros(50)
    rule = FTRL(table, 5.0, 0.0, 0.1)
    for _ in range(200):
        gradient = 0.1 * torch.randn(50, generator=generator)
        gradient[:5] -= 0.5
        rule.step(table, None, gradient, 1.0)
    assert torch.all(table[:5] > 0)
    assert torch.all(table[5:] == 0)
