"""Whether anything reads the captions of a recipe."""

from __future__ import annotations

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.errors import UserError
from upturn.protocols import Caption, Policy, Source
from upturn.types import Prompt


def caption_strategies(recipe: Recipe) -> dict[str, Caption]:
    """The strategies that ``captions:`` names, by name (or ``as:``); several are a comparison."""
    found: dict[str, Caption] = {}
    for i, spec in enumerate(recipe.captions):
        at, fields = f"captions.{i}" if len(recipe.captions) > 1 else "captions", dict(spec)
        name = str(fields.pop("as", fields["name"]))
        if name in found:
            raise UserError(f"two caption strategies are called '{name}'", where=at, fix="Give one an 'as:'.")
        found[name] = components.make("caption", fields, at)
    return found


def reads_text(policy: Policy) -> bool:
    """Whether an image model is prompted by text: a class-conditional one reads a label."""
    return policy.kind == "image" and "label" not in policy.asks


def check_captions(recipe: Recipe, source: Source, policy: Policy) -> None:
    """Raises UserError where captions are configured and nothing would read them."""
    keys = ["captions"] if recipe.captions else []
    keys += [f"evaluate.{i}.captions" for i, e in enumerate(recipe.evaluate) if e.captions is not None]
    if keys:
        refuse_captions(recipe, source, policy, keys[0])


def refuse_captions(recipe: Recipe, source: Source, policy: Policy, where: str) -> None:
    """Raises UserError where the data has no images, or the policy reads no text."""
    if source.kind != "image":
        raise UserError(
            f"captions are for images, and the data '{recipe.data['name']}' is {source.kind}", where=where,
            fix="Remove it.",
        )
    if not reads_text(policy):
        raise UserError(
            f"the model '{recipe.models['policy'].name}' reads no text, so no caption would reach it", where=where,
            fix="Remove it, or use a policy that reads text, such as text_to_image.",
        )


def caption_of(recipe: Recipe, source: Source, policy: Policy) -> Caption | None:
    check_captions(recipe, source, policy)
    found = caption_strategies(recipe)
    if len(found) > 1:
        raise UserError(
            f"{len(found)} strategies are a comparison ({', '.join(found)}): one run has one", where="captions",
            fix="Leave one, e.g. --set captions=empty; 'upturn captions' prints them side by side, and a study "
            "trains each.",
        )
    return next(iter(found.values()), None)


def prompt_for(policy: Policy, prompt: Prompt) -> Prompt:
    """The prompt as this model reads it: an unconditional one reads none."""
    return prompt if policy.conditional else Prompt(fields=prompt.fields)
