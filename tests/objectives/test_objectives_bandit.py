"""Objectives on problems whose optimum is known: p* = p_0 e^{r / beta} / Z maximises E r - beta KL(p || p_0).

A flat bandit (two prompts, eight arms, one action) and a tree (a first action that may stop, then a second: rows of
one or two actions, nine ends), both tabular, in float64, driven by a minimal loop: draw, prepare, call, step.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from upturn.objectives.grpo import Grpo
from upturn.objectives.mdloo import Mdloo
from upturn.objectives.ppo import Ppo
from upturn.objectives.reward_weighted import RewardWeighted
from upturn.objectives.rloo import Rloo
from upturn.types import Batch, Outputs

pytestmark = pytest.mark.slow

BETA = 0.5  # so that p* is far from p_0: total variation 0.56 and 0.73 in the problems below
NEAR = 0.02  # the total variation that issue 3 asks for


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Tree:
    """A table policy: a first action of a table (P, A), then, save after action 0, a second of a table (P, A, B).

    With ``B = 0`` there is no second action: a bandit. Values have a table of their own.
    """

    prompts: int
    first_actions: int
    second_actions: int = 0
    seed: int = 3
    tables: list[torch.Tensor] = field(init=False)
    values: list[torch.Tensor] = field(init=False)
    reference: list[torch.Tensor] = field(init=False)
    rewards: torch.Tensor = field(init=False)  # (P, A, max(B, 1))

    def __post_init__(self) -> None:
        p, a, b = self.prompts, self.first_actions, max(self.second_actions, 1)
        self.reference = [0.8 * normal(self.seed, p, a), 0.8 * normal(self.seed + 1, p, a, b)]
        self.tables = [t.clone().requires_grad_() for t in self.reference]
        self.values = [torch.zeros(p, dtype=torch.float64), torch.zeros(p, a, dtype=torch.float64)]
        self.values = [v.requires_grad_() for v in self.values]
        self.rewards = normal(self.seed + 2, p, a, b)
        if self.second_actions:
            self.rewards[:, 0] = self.rewards[:, 0, :1]  # after a stop there is nothing to choose

    @property
    def length(self) -> int:
        return 2 if self.second_actions else 1

    def joint(self, tables: list[torch.Tensor]) -> torch.Tensor:
        """(P, ends) probability of every end; the stop is one end, in the place of its first second action."""
        p = tables[0].softmax(dim=1)[:, :, None] * tables[1].softmax(dim=2)
        if self.second_actions:
            stop = torch.zeros_like(p[:, :1])
            stop[:, :, 0] = tables[0].softmax(dim=1)[:, :1]
            p = torch.cat([stop, p[:, 1:]], dim=1)
        return p.flatten(1).detach()

    def optimum(self, beta: float) -> torch.Tensor:
        raised = self.joint(self.reference) * (self.rewards.flatten(1) / beta).exp()
        return raised / raised.sum(dim=1, keepdim=True)

    def draw(self, each: int, candidates: int, rng: torch.Generator) -> Batch:
        """``each`` groups a prompt, with exact rewards."""
        prompt = torch.arange(self.prompts).repeat_interleave(each * candidates)
        with torch.no_grad():
            one = torch.multinomial(self.tables[0].softmax(dim=1)[prompt], 1, generator=rng)[:, 0]
            two = torch.multinomial(self.tables[1].softmax(dim=2)[prompt, one], 1, generator=rng)[:, 0]
        two = torch.where(one == 0, 0, two) if self.second_actions else two
        rewards = self.rewards[prompt, one, two].reshape(-1, candidates)
        return Batch({"prompt": prompt, "one": one, "two": two}, candidates, {"rewards": rewards})

    def forward(self, batch: Batch, tables: list[torch.Tensor] | None = None) -> Outputs:
        prompt, one, two = batch["prompt"], batch["one"], batch["two"]
        tables = self.tables if tables is None else tables
        first = tables[0].log_softmax(dim=1)[prompt, one]
        if not self.second_actions:
            return Outputs(first[:, None], torch.ones_like(first)[:, None], values=self.values[0][prompt][:, None])
        second = tables[1].log_softmax(dim=2)[prompt, one, two]
        mask = torch.stack([torch.ones_like(first), (one > 0).to(first.dtype)], dim=1)
        values = torch.stack([self.values[0][prompt], self.values[1][prompt, one]], dim=1)
        return Outputs(torch.stack([first, second], dim=1), mask, values=values)

    @torch.no_grad()
    def before(self, batch: Batch) -> Batch:
        """What the trainer does with a drawn batch."""
        now, ref = self.forward(batch), self.forward(batch, self.reference)
        assert now.values is not None
        return batch.with_columns(
            behaviour=now.log_probs, before_log_probs=now.log_probs, before_ref_log_probs=ref.log_probs,
            before_values=now.values, before_mask=now.mask,
        )  # fmt: skip

    def call(self, objective: Any, batch: Batch) -> torch.Tensor:
        out = dataclasses.replace(self.forward(batch), ref_log_probs=batch["before_ref_log_probs"])
        loss = objective(out, batch)
        return loss.sum / loss.weight

    def distance(self, target: torch.Tensor) -> float:
        """Largest total variation over the prompts."""
        return float((self.joint(self.tables) - target).abs().sum(dim=1).max() / 2)


def bandit() -> Tree:
    return Tree(prompts=2, first_actions=8)


def tree() -> Tree:
    return Tree(prompts=2, first_actions=3, second_actions=4, seed=11)


def learn(
    world: Tree, objective: Any, *, turns: int = 80, inner: int = 2, each: int = 4, candidates: int = 256,
    rate: float = 0.1,
) -> dict[str, float]:
    """Adam, the rate on a line to nothing, ``inner`` steps a rollout; the adaptive state as the trainer carries it.

    A turn draws each * candidates = 1,024 rows a prompt, the last third of the turns at small rates: the noise
    left is of the order of sqrt(8 / (27 * 1,024)) / 2 = 0.0085 in total variation, and less for what KL already holds.
    """
    rng = torch.Generator().manual_seed(7)
    optimizer = torch.optim.Adam([*world.tables, *world.values], lr=rate, betas=(0.9, 0.99))
    state: dict[str, float] = {}
    for turn in range(turns):
        batch = world.before(world.draw(each, candidates, rng))
        steered = {name: torch.full((len(batch),), value).double() for name, value in state.items()}
        batch = objective.prepare(batch.with_given(**steered))
        if hasattr(objective, "steer"):
            state = objective.steer(state, batch)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - turn / turns)
        for _ in range(inner):
            optimizer.zero_grad()
            world.call(objective, batch).backward()
            optimizer.step()
    return state


BANDIT = [
    Ppo(beta=BETA), Ppo(beta=BETA, whiten=False), Rloo(beta=BETA), Mdloo(beta=BETA, kl_previous=2 * BETA),
    Grpo(beta=BETA, scale_by_std=False), Grpo(beta=BETA, scale_by_std=False, length="batch"),
]  # fmt: skip


@pytest.mark.parametrize("objective", BANDIT, ids=lambda o: type(o).__name__)
def test_a_bandit_comes_to_its_optimum(objective: Any) -> None:
    world = bandit()
    target = world.optimum(BETA)
    assert world.distance(target) > 0.3
    learn(world, objective)
    assert world.distance(target) < NEAR


@pytest.mark.parametrize("objective", BANDIT[:4], ids=lambda o: type(o).__name__)
def test_rows_of_several_actions_come_to_their_joint_optimum(objective: Any) -> None:
    world = tree()
    target = world.optimum(BETA)
    assert world.distance(target) > 0.3
    learn(world, objective)
    assert world.distance(target) < NEAR


def test_grpo_comes_to_where_its_formulas_say() -> None:
    """The mean that holds the candidate itself makes r count for (K - 1) / K; plain k3 pulls along KL(ref || pi)."""
    few, rate = 8, 7 / 8
    world = bandit()
    learn(world, Grpo(beta=BETA, scale_by_std=False), each=128, candidates=few, turns=160, inner=1)
    assert world.distance(world.optimum(BETA / rate)) < NEAR / 2
    assert world.distance(world.optimum(BETA)) > NEAR
    world = bandit()
    learn(world, Grpo(beta=BETA, scale_by_std=False, kl="k3"), turns=160, inner=1)
    assert world.distance(forward_kl_optimum(world, BETA)) < NEAR / 2
    assert world.distance(world.optimum(BETA)) > 2 * NEAR


def forward_kl_optimum(world: Tree, beta: float) -> torch.Tensor:
    """The maximum of E r - beta KL(p_0 || p): p_0 beta / (c - r), c found by halving."""
    rewards, start = world.rewards.flatten(1), world.joint(world.reference)
    low, high = rewards.amax(dim=1, keepdim=True), rewards.amax(dim=1, keepdim=True) + 10 * beta
    for _ in range(80):
        middle = (low + high) / 2
        heavy = (beta * start / (middle - rewards)).sum(dim=1, keepdim=True) > 1
        low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
    return beta * start / (high - rewards)


def test_grpo_over_std_scales_beta_by_each_prompts_own() -> None:
    world = bandit()
    learn(world, Grpo(beta=BETA), turns=160, inner=1)
    p, rewards = world.joint(world.tables), world.rewards.flatten(1)
    spread = ((p * rewards.square()).sum(dim=1) - (p * rewards).sum(dim=1).square()).sqrt()
    expected = world.joint(world.reference) * (rewards / (BETA * spread[:, None])).exp()
    assert world.distance(expected / expected.sum(dim=1, keepdim=True)) < NEAR


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_adaptive_kl_holds_its_target(start: float) -> None:
    """The coefficient ends where KL(p* || p_0) is the target, whether it began below or above."""
    world = tree()
    objective = Ppo(beta=start, kl_target=0.3, kl_horizon=8192.0)
    state = learn(world, objective, turns=150, each=2, candidates=128)
    p, p0 = world.joint(world.tables), world.joint(world.reference)
    kl = torch.where(p > 0, p * (p / p0.clamp(min=1e-300)).log(), 0.0).sum(dim=1).mean()
    assert float(kl) == pytest.approx(0.3, rel=0.1)
    assert world.distance(world.optimum(state["kl_coefficient"])) < NEAR


COUNTS = torch.tensor([[10, 3, 20, 1, 8, 2, 12, 4]])  # of 60: a policy that one group can hold exactly


def enumerated(world: Tree) -> Batch:
    """One group of sixty in which every arm stands as often as the policy COUNTS / 60 draws it."""
    one = torch.arange(8).repeat_interleave(COUNTS[0])
    zero = torch.zeros_like(one)
    return Batch({"prompt": zero, "one": one, "two": zero}, 60, {"rewards": world.rewards[0, one, 0][None, :]})


def maximise(world: Tree, objective: Any, batch: Batch) -> None:
    optimizer = torch.optim.LBFGS(
        world.tables[:1], max_iter=500, tolerance_grad=1e-11, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(world.forward(batch), batch)
        mean = loss.sum / loss.weight
        mean.backward()
        return mean

    optimizer.step(closure)


def test_mdloo_solved_to_its_end_is_one_turn_of_mirror_descent() -> None:
    """log pi' = log pi + A / kl_previous + c, where leave-one-out makes A of 60 rows 60/59 of the centred reward."""
    world = Tree(prompts=1, first_actions=8)
    world.tables[0].data = (COUNTS / 60).double().log()
    start = world.joint(world.tables)
    objective = Mdloo(beta=0.5, kl_previous=0.8)
    batch = objective.prepare(world.before(enumerated(world)))
    maximise(world, objective, batch)
    shaped = world.rewards.flatten(1) - 0.5 * (start / world.joint(world.reference)).log()
    expected = start * (60 / 59 * shaped / 0.8).exp()
    assert world.distance(expected / expected.sum(dim=1, keepdim=True)) < 1e-6


def test_one_reward_weighted_maximisation_is_the_optimum() -> None:
    world = Tree(prompts=1, first_actions=8)
    world.reference[0] = (COUNTS / 60).double().log()
    objective = RewardWeighted(beta=BETA)
    assert world.distance(world.optimum(BETA)) > 0.1
    maximise(world, objective, objective.prepare(enumerated(world)))
    assert world.distance(world.optimum(BETA)) < 1e-6


def test_reward_weighted_with_few_candidates_is_a_curation_in_expectation() -> None:
    """All triples of eight arms, each as often as it is drawn: p_0 H with H of Ferbach et al., written out."""
    world = Tree(prompts=1, first_actions=8)
    p = (COUNTS[0] / 60).double()
    arms = torch.cartesian_prod(*[torch.arange(8)] * 3)
    e = (world.rewards[0, :, 0] / BETA).exp()
    others = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    chance = p[others].prod(dim=1)
    h = torch.stack([(chance * 3 * e[x] / (e[x] + e[others].sum(dim=1))).sum() for x in range(8)])
    one = arms.reshape(-1)
    given = {"rewards": world.rewards[0, arms, 0], "weights": p[arms].prod(dim=1)}
    batch = Batch({"prompt": torch.zeros_like(one), "one": one, "two": torch.zeros_like(one)}, 3, given)
    objective = RewardWeighted(beta=BETA)
    maximise(world, objective, objective.prepare(batch))
    assert float((p * h).sum()) == pytest.approx(1.0)
    assert world.distance((p * h)[None, :]) < 1e-6
